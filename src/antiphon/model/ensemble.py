"""Several networks that decide together: each token's probability is the mean of what they give it.

They may be of any architecture, as long as they share their vocabularies. Each keeps a state of its own for the same
rows.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from antiphon.model.seq2seq import Seq2Seq
from antiphon.model.state import DecodeState


class EnsembleState:
    """What each member keeps for the same sources and rows; as a DecodeState to whoever decodes."""

    def __init__(self, members: Sequence[DecodeState]) -> None:
        self.members = list(members)

    @property
    def lengths(self) -> list[int]:
        return self.members[0].lengths

    @property
    def keep_attention(self) -> bool:
        return self.members[0].keep_attention

    @keep_attention.setter
    def keep_attention(self, wanted: bool) -> None:
        for member in self.members:
            member.keep_attention = wanted

    @property
    def attention(self) -> Tensor | None:
        """(N, 1, 1, S): the mean over the members that have attention, of each the heads of its last layer."""
        seen = [member.attention[:, -1].mean(1) for member in self.members if member.attention is not None]
        return torch.stack(seen).mean(0)[:, None, None] if seen else None

    def select(self, rows: Sequence[int]) -> Self:
        """As `DecodeState.select`."""
        return type(self)([member.select(rows) for member in self.members])

    def join(self, others: Sequence[Self]) -> Self:
        """As `DecodeState.join`."""
        return type(self)(
            [member.join([other.members[place] for other in others]) for place, member in enumerate(self.members)]
        )


class Ensemble:
    """Two or more networks, as one that can be decoded from. What it calls logits are log-probabilities."""

    def __init__(self, members: Sequence[Seq2Seq]) -> None:
        self.members = list(members)

    @property
    def device(self) -> torch.device:
        return self.members[0].device

    def start(self, sources: Sequence[Sequence[int]]) -> EnsembleState:
        """As `Seq2Seq.start`."""
        return EnsembleState([member.start(sources) for member in self.members])

    def step(self, state: EnsembleState, tokens: Sequence[int]) -> Tensor:
        """The last token of each row -> log-probabilities (N, V)."""
        return _mean([member.step(own, tokens) for member, own in zip(self.members, state.members, strict=True)])

    def teacher_forced(self, sources: Sequence[Sequence[int]], target_in: Tensor) -> Tensor:
        """As `Seq2Seq.teacher_forced`: log-probabilities (B, T, V)."""
        return _mean([member.teacher_forced(sources, target_in) for member in self.members])


def _mean(logits: Sequence[Tensor]) -> Tensor:
    """(..., V) of each member -> the logarithm of their mean probabilities (..., V)."""
    log_probs = torch.stack([one.log_softmax(-1) for one in logits])
    return log_probs.logsumexp(0) - math.log(len(logits))
