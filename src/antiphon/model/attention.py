"""Attention: dot-product with heads for transformers; additive or dot with one head for recurrent decoders.

Two batched products and a softmax: at the lengths of sentences the framework's fused attention is several times slower
backwards on a processor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.model.positions import Frame, rotate

HIDDEN = -1e9  # score of a key that may not be seen


def mask_bias(mask: Tensor) -> Tensor:
    """mask (B, S), True = a real token -> bias (B, 1, 1, S): 0 or HIDDEN."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, HIDDEN)[:, None, None, :]


def causal_bias(length: int, device: torch.device) -> Tensor:
    """(T, T) bias that hides what comes later."""
    return torch.full((length, length), HIDDEN, device=device).triu_(1)


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """query (B, H, T, K), keys and values (B, H, S, K) -> output (B, H, T, K), weights (B, H, T, S)."""
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        weights = torch.softmax(scores, dim=-1)
        return weights @ values, weights


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, H x K) -> (B, H, T, K)."""
    return x.view(*x.shape[:-1], num_heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, K) -> (B, T, H x K)."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Tokens of one sequence look at one another; one projection for queries, keys and values."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def heads(self, x: Tensor, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> query, key, value, each (B, H, T, K), the first two turned to their positions."""
        query, key, value = (split_heads(part, self.num_heads) for part in self.project(x).chunk(3, dim=-1))
        return rotate(query, frame.rotation), rotate(key, frame.rotation), value

    def forward(self, x: Tensor, frame: Frame) -> Tensor:
        """x (B, T, D) -> (B, T, D); frame.bias says who may see whom."""
        query, key, value = self.heads(x, frame)
        out: Tensor = self.output(merge_heads(attend(query, key, value, frame.bias)[0]))
        return out


class CrossAttention(nn.Module):
    """The decoder looks at the memory; the memory's keys and values are projected once."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(d_model, d_model)
        self.memory = nn.Linear(d_model, 2 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory (B, S, D) -> keys and values, each (B, H, S, K)."""
        keys, values = self.memory(memory).chunk(2, dim=-1)
        return split_heads(keys, self.num_heads), split_heads(values, self.num_heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> output (B, T, D), weights (B, H, T, S)."""
        attended, weights = attend(split_heads(self.query(x), self.num_heads), keys, values, bias)
        return self.output(merge_heads(attended)), weights


class RecurrentAttention(nn.Module):
    """One head over the memory for a recurrent decoder.

    "additive": v . tanh(Wq q + Wk m) (Bahdanau et al. 2015). "dot": q . Wk m (Luong et al. 2015, "general").
    """

    def __init__(self, d_model: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.key = nn.Linear(d_model, d_model, bias=False)
        if kind == "additive":
            self.query = nn.Linear(d_model, d_model)
            self.score = nn.Linear(d_model, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """query (B, T, D), keys = self.key(memory), values (B, S, D), mask (B, S) -> (B, T, D), weights (B, T, S)."""
        if self.kind == "additive":
            scores = self.score(torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)
        else:
            scores = query @ keys.transpose(1, 2) * query.shape[-1] ** -0.5
        weights = F.softmax(scores.masked_fill(~mask.unsqueeze(1), HIDDEN), dim=-1)
        return weights.to(values.dtype) @ values, weights
