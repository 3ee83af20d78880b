"""The running batch: rows of different requests, ages and beam widths, decoded together one step at a time.

Offline decoding and the server both run this loop; a request that ends leaves at once, and others join between steps.
It asks a model for `start` and `step` only, and leaves the choice of tokens to each request's own search.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from antiphon.decoding.candidates import candidates
from antiphon.decoding.search import Candidates, Search
from antiphon.ids import BOS

ENCODE_TOKENS = 1024  # source tokens, padding included, encoded at once: what lies between layers stays in the cache


class State(Protocol):
    """What a model keeps for its rows, and how rows come and go."""

    lengths: list[int]  # of each source
    keep_attention: bool
    attention: Tensor | None

    def select(self, rows: Sequence[int]) -> Self: ...

    def join(self, others: Sequence[Self]) -> Self: ...


class StepModel(Protocol):
    """A model that can be decoded from."""

    def start(self, sources: Sequence[Sequence[int]]) -> Any:
        """Sources of ids, each ending with EOS -> a State with one row for each."""

    def step(self, state: Any, tokens: Sequence[int]) -> Tensor:
        """The last token of each row -> logits (N, V) for the next."""


class ActiveBatch:
    """Requests in flight: `searches` in the order of the state's sources, their live rows in the order of its rows."""

    def __init__(self, model: StepModel, keep_attention: bool = False) -> None:
        self.model = model
        self.keep_attention = keep_attention
        self.searches: list[Search] = []
        self._state: Any = None

    @property
    def num_rows(self) -> int:
        return sum(len(search.live) for search in self.searches)

    @torch.inference_mode()
    def add(self, sources: Sequence[Sequence[int]], searches: Sequence[Search]) -> None:
        """Encodes new sources (ids, each ending with EOS), and lets their searches join. Sources of like lengths
        should stand together: they are encoded a few at a time, padded to the longest of them."""
        states = [self.model.start([sources[index] for index in chunk]) for chunk in _chunks(sources)]
        for state in states:
            state.keep_attention = self.keep_attention
        if self._state is not None:
            states.insert(0, self._state)
        self._state = states[0].join(states[1:]) if len(states) > 1 else states[0]
        self.searches += searches

    @torch.inference_mode()
    def step(self) -> list[Search]:
        """One more token for every row; returns the searches that ended with it."""
        tokens = [h.tokens[-1] if h.tokens else BOS for search in self.searches for h in search.live]
        logits = self.model.step(self._state, tokens)
        widths = [len(search.live) for search in self.searches]
        for search, found in zip(self.searches, self._candidates(logits), strict=True):
            search.advance(found)
        ended = [search for search in self.searches if not search.live]
        self._move([search.parents if search.live else () for search in self.searches], widths)
        return ended

    @torch.inference_mode()
    def drop(self, search: Search) -> None:
        """A request that is not wanted any more: its rows are free at once."""
        if any(other is search for other in self.searches):
            widths = [len(other.live) for other in self.searches]
            stay = [() if other is search else range(width) for other, width in zip(self.searches, widths, strict=True)]
            self._move(stay, widths)

    def _move(self, parents: Sequence[Sequence[int]], widths: Sequence[int]) -> None:
        """parents: for each search, which of its rows (`widths`: how many it had) go on; it leaves where none does.

        The last searches take the places of those that leave, so that few rows move.
        """
        places: list[tuple[Search, list[int]]] = []
        offset = 0
        for search, rows, width in zip(self.searches, parents, widths, strict=True):
            places.append((search, [offset + row for row in rows]))
            offset += width
        index = 0
        while index < len(places):
            if places[index][1]:
                index += 1
            elif index == len(places) - 1:
                places.pop()
            else:
                places[index] = places.pop()
        self.searches = [search for search, _ in places]
        self._state = self._state.select([row for _, rows in places for row in rows]) if places else None

    def _candidates(self, logits: Tensor) -> list[Candidates]:
        """logits (N, V) -> for each search, the best continuations of its rows, or the ones drawn."""
        found = candidates(logits, self.searches)
        if self._state.attention is not None:
            seen = self._state.attention.cpu()
            row = 0
            for index, search in enumerate(self.searches):
                rows = slice(row, row + len(search.live))
                found[index].attention = list(seen[rows, ..., : self._state.lengths[index]])
                row = rows.stop
        return found


def _chunks(sources: Sequence[Sequence[int]]) -> Iterator[range]:
    """Neighbours that are encoded together: as many as stay below ENCODE_TOKENS, padding included."""
    start = longest = 0
    for index, source in enumerate(sources):
        longest = max(longest, len(source))
        if index > start and (index + 1 - start) * longest > ENCODE_TOKENS:
            yield range(start, index)
            start, longest = index, len(source)
    yield range(start, len(sources))
