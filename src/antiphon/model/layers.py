"""The small parts that encoders and decoders share: the memory between them, embeddings, feed-forward layers."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(NamedTuple):
    """What an encoder hands to a decoder.

    values (B, S, D): a vector for each token. mask (B, S): True = a real token. summary (B, D): one vector for all.
    tokens (B, S): the ids that were read.
    """

    values: Tensor
    mask: Tensor
    summary: Tensor
    tokens: Tensor


class TokenEmbedding(nn.Module):
    """A vector for each token id, scaled to unit variance; its weights (V, D) may also score the output."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model).normal_(std=d_model**-0.5))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) -> (..., D)."""
        return F.embedding(ids, self.weight) * float(self.weight.shape[1] ** 0.5)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between; "gated" multiplies by a second branch (GEGLU, Shazeer 2020)."""

    def __init__(self, d_model: int, d_ff: int, kind: str) -> None:
        super().__init__()
        self.gated = kind == "gated"
        self.inner = nn.Linear(d_model, 2 * d_ff if self.gated else d_ff)
        self.outer = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self.gated:
            gate, x = self.inner(x).chunk(2, dim=-1)
            x = F.gelu(gate.contiguous()) * x
        else:
            x = F.gelu(self.inner(x))
        out: Tensor = self.outer(x)
        return out


def at_least_float32(x: Tensor) -> Tensor:
    """bfloat16 as float32; others as they are."""
    return x.float() if x.dtype == torch.bfloat16 else x


def score_tokens(features: Tensor, weight: Tensor, head: nn.Module | None) -> Tensor:
    """features (..., D), output weights (V, D) -> logits (..., V). head: stands in for the weights where it is set."""
    if head is None:
        return F.linear(features, weight)
    logits: Tensor = head(features)
    return logits
