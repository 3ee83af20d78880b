"""Attention: dot-product with heads for transformers; additive or dot with one head for recurrent decoders.

Two batched products and a softmax: at the lengths of sentences the framework's fused attention is several times slower
backwards on a processor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.model.positions import Frame, rotate
from antiphon.model.state import DecodeState, pad_axis

CACHE_BLOCK = 16  # caches grow by so many tokens at a time
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
        self.num_heads, self.head_width = num_heads, d_model // num_heads
        self.project = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def heads(self, x: Tensor, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> query, key, value, each (B, H, T, K), the first two turned to their positions."""
        query, key, value = (split_heads(part, self.num_heads) for part in self.project(x).chunk(3, dim=-1))
        return rotate(query, frame.rotation), rotate(key, frame.rotation), value

    def forward(self, x: Tensor, frame: Frame) -> Tensor:
        """x (B, T, D) -> (B, T, D); the frame says who may see whom."""
        query, key, value = self.heads(x, frame)
        out: Tensor = self.output(merge_heads(attend(query, key, value, frame.added())[0]))
        return out

    def start(self, index: int, memory: Tensor) -> dict[str, Tensor]:
        """What layer `index` keeps of each row's past before there is any; memory (B, S, D)."""
        empty = memory.new_empty(len(memory), self.num_heads, 0, self.head_width)
        return {f"key{index}": empty, f"value{index}": empty}

    def step(self, x: Tensor, frame: Frame, state: DecodeState, index: int) -> Tensor:
        """x (N, D), a new token a row -> (N, D); its key and value join those of layer `index` that the state keeps."""
        query, key, value = self.heads(x.unsqueeze(1), frame)
        keys, values = (write_cache(state, f"{name}{index}", new) for name, new in (("key", key), ("value", value)))
        attended, _ = attend(query, keys, values, frame.added())
        out: Tensor = self.output(merge_heads(attended).squeeze(1))
        return out


def write_cache(state: DecodeState, name: str, new: Tensor) -> Tensor:
    """Puts new (N, H, 1, K) at each row's age into a cache (N, H, C, K), which grows in blocks; returns the cache up to
    the oldest row's token."""
    oldest = max(state.ages)
    cache = state.past[name]
    if cache.shape[2] <= oldest:
        cache = state.past[name] = pad_axis(cache, 2, (oldest // CACHE_BLOCK + 1) * CACHE_BLOCK)
    if min(state.ages) == oldest:
        cache[:, :, oldest] = new[:, :, 0]
    else:
        rows = torch.arange(len(cache), device=new.device)
        cache[rows, :, torch.tensor(state.ages, device=new.device)] = new[:, :, 0]
    return cache[:, :, : oldest + 1]


class CrossAttention(nn.Module):
    """The decoder looks at the memory; the memory's keys and values are projected once."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_width = num_heads, d_model // num_heads
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

    def step(self, x: Tensor, state: DecodeState, index: int, bias: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (N, D), a token a row -> output (N, D), weights (N, H, S) if the state keeps them, which has the keys and
        values of layer `index`."""
        return self.attend_folded(
            x, state, state.shared[f"memory_key{index}"], state.shared[f"memory_value{index}"], bias
        )

    def attend_folded(
        self, x: Tensor, state: DecodeState, keys: Tensor, values: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """As `step`. The rows of a source stand side by side, so that its keys are never repeated."""
        crossed, weights = self(state.fold(x), keys, values, bias)
        return state.unfold(crossed), state.unfold(weights.transpose(1, 2)) if state.keep_attention else None


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
