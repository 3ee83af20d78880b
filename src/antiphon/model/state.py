"""The state of a running decode: what each source and each row has left behind so far.

A row is one hypothesis being decoded; the rows of a source stand side by side, in the order of the sources. What is
the same for all hypotheses of a source (memory, cross-attention keys) is kept once a source, apart from what is not
(caches, hidden vectors), so a beam that reorders its rows never moves the former. Rows are aligned at their first
token, each with its own age. This file knows no architecture: a decoder names its tensors, and which axis of each is
ragged.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.model.slots import KeyValues


class DecodeState:
    """Tensors of B sources (`shared`, axis 0 = source) and N rows (`past`, axis 0 = row).

    owner: the source of each row, ascending. ages: the tokens each row has consumed. lengths: the length of each
    source. ragged: the axis of a named tensor along which sources (or rows) may differ; it is padded at its end. slots:
    a transformer's keys and values, where they are not in `past`.
    """

    def __init__(
        self,
        shared: dict[str, Tensor],
        past: dict[str, Tensor],
        lengths: Sequence[int],
        ragged: Mapping[str, int],
        owner: Sequence[int] | None = None,
        ages: Sequence[int] | None = None,
        keep_attention: bool = False,
        slots: KeyValues | None = None,
    ) -> None:
        self.shared = shared
        self.past = past
        self.lengths = list(lengths)
        self.ragged = ragged
        self.owner = list(range(len(self.lengths))) if owner is None else list(owner)
        self.ages = [0] * len(self.owner) if ages is None else list(ages)
        self.keep_attention = keep_attention
        self.slots = slots
        self.attention: Tensor | None = None  # (N, layers, heads, S) of the last step, where asked for

    @property
    def num_rows(self) -> int:
        return len(self.owner)

    def select(self, rows: Sequence[int]) -> Self:
        """The state of `rows` (indices of today's, those of a source together): drops, repeats and reorders.

        A source without rows leaves. This state is used up: what does not move stays in its tensors.
        """
        if len(rows) == self.num_rows and all(new == old for new, old in enumerate(rows)):
            return self
        owners = [self.owner[row] for row in rows]
        kept = list(dict.fromkeys(owners))
        place = {source: new for new, source in enumerate(kept)}
        lengths = [self.lengths[source] for source in kept]
        owner = [place[source] for source in owners]
        return type(self)(
            self._gather(self.shared, kept, max(lengths, default=0)),
            self._gather(self.past, rows, None),
            lengths,
            self.ragged,
            owner,
            [self.ages[row] for row in rows],
            self.keep_attention,
            None if self.slots is None else self.slots.select(rows, owner, kept),
        )

    def join(self, others: Sequence[Self]) -> Self:
        """This state and `others` as one: newcomers' rows come last; the shorter are padded at their end."""
        states = [self, *others]
        owner: list[int] = []
        offset = 0
        for state in states:
            owner += [offset + source for source in state.owner]
            offset += len(state.lengths)
        return type(self)(
            {name: self._concatenate([state.shared[name] for state in states], name) for name in self.shared},
            {name: self._concatenate([state.past[name] for state in states], name) for name in self.past},
            [length for state in states for length in state.lengths],
            self.ragged,
            owner,
            [age for state in states for age in state.ages],
            any(state.keep_attention for state in states),
            None if self.slots is None else self.slots.join([state.slots for state in others if state.slots]),
        )

    def fold(self, x: Tensor) -> Tensor:
        """(N, ...) -> (B, W, ...): the rows of each source side by side, W = the most rows that a source has."""
        sources = len(self.lengths)
        if self.num_rows == sources:
            return x.unsqueeze(1)
        slots, width = self._grid
        if self.num_rows == sources * width:
            return x.reshape(sources, width, *x.shape[1:])
        padded = x.new_zeros(sources * width, *x.shape[1:])
        return padded.index_copy_(0, slots.to(x.device), x).view(sources, width, *x.shape[1:])

    def unfold(self, x: Tensor) -> Tensor:
        """(B, W, ...) -> (N, ...): the inverse of `fold`."""
        flat = x.reshape(-1, *x.shape[2:])
        if self.num_rows == flat.shape[0]:
            return flat
        return flat.index_select(0, self._grid[0].to(x.device))

    @cached_property
    def memory_of_rows(self) -> tuple[Tensor, Tensor]:
        """The slot of the memory that each row looks at, and how many tokens it has, each (N,)."""
        assert self.slots is not None
        places = self.slots.memory.places
        return torch.tensor([places[source] for source in self.owner]), torch.tensor(
            [self.lengths[source] for source in self.owner]
        )

    @cached_property
    def _grid(self) -> tuple[Tensor, int]:
        """Where each row stands in the (B x W) grid of `fold`, and W."""
        counts = [0] * len(self.lengths)
        ranks = []
        for source in self.owner:
            ranks.append(counts[source])
            counts[source] += 1
        width = max(counts)
        return torch.tensor([s * width + rank for s, rank in zip(self.owner, ranks, strict=True)]), width

    def _gather(self, tensors: dict[str, Tensor], rows: Sequence[int], length: int | None) -> dict[str, Tensor]:
        """The tensors of `rows`, cut to `length`. If few rows move, only these are copied, within the tensors."""
        moved = [new for new, old in enumerate(rows) if new != old]
        gathered = {}
        for name, tensor in tensors.items():
            if length is not None and name in self.ragged:
                tensor = tensor.narrow(self.ragged[name], 0, length)
            if 2 * len(moved) > len(rows) or len(rows) > len(tensor):
                tensor = tensor.index_select(0, torch.tensor(rows, dtype=torch.long, device=tensor.device))
            elif moved:
                old, new = torch.tensor([[rows[place] for place in moved], moved], device=tensor.device)
                tensor = tensor[: len(rows)].index_copy_(0, new, tensor.index_select(0, old))
            else:
                tensor = tensor[: len(rows)]
            gathered[name] = tensor
        return gathered

    def _concatenate(self, tensors: Sequence[Tensor], name: str) -> Tensor:
        axis = self.ragged.get(name)
        if axis is not None:
            longest = max(tensor.shape[axis] for tensor in tensors)
            tensors = [pad_axis(tensor, axis, longest) for tensor in tensors]
        return torch.cat(list(tensors))


def pad_axis(x: Tensor, axis: int, length: int) -> Tensor:
    """`x` with zeros (False) at the end of `axis`, up to `length`."""
    missing = length - x.shape[axis]
    if missing <= 0:
        return x
    return F.pad(x, [0, 0] * (x.dim() - 1 - axis) + [0, missing])
