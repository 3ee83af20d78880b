"""The running batch: rows of different requests, ages and beam widths, decoded together one step at a time.

Offline decoding and the server both run this loop; a request that ends leaves at once, and others join between steps.
It asks a model for `start` and `step` only, and leaves the choice of tokens to each request's own search.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from antiphon.decoding.rules import forbid
from antiphon.decoding.search import Candidates, Sampling, Search
from antiphon.ids import BOS

ENCODE_TOKENS = 1024  # source tokens, padding included, encoded at once: what lies between layers stays in the cache
BLOCKS = 8


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
        for search, candidates in zip(self.searches, self._candidates(logits), strict=True):
            search.advance(candidates)
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
        log_probs = logits.log_softmax(dim=-1)
        forbid(log_probs, self.searches)
        seen = self._state.attention.cpu() if self._state.attention is not None else None
        found = self._best(log_probs)
        row = 0
        for index, search in enumerate(self.searches):
            rows = slice(row, row + len(search.live))
            if isinstance(search, Sampling):
                found[index] = _drawn(search, log_probs[rows])
            if seen is not None:
                found[index].attention = list(seen[rows, ..., : self._state.lengths[index]])
            row = rows.stop
        return found

    def _best(self, log_probs: Tensor) -> list[Candidates]:
        """log_probs (N, V) -> for each search, its `beam_size` best continuations over all of its rows, best first."""
        widest = max(1 if isinstance(search, Sampling) else search.settings.beam_size for search in self.searches)
        values, tokens = top(log_probs, min(widest, log_probs.shape[1]))
        rows = torch.zeros_like(tokens)
        counts = [len(search.live) for search in self.searches]
        if len(tokens) > len(counts):
            values, tokens, rows = self._best_of_rows(values, tokens, counts, widest)
        widths = [search.settings.beam_size for search in self.searches]
        lists = zip(rows.tolist(), tokens.tolist(), values.tolist(), widths, strict=True)
        return [Candidates(*(part[:width] for part in parts)) for *parts, width in lists]

    def _best_of_rows(
        self, values: Tensor, tokens: Tensor, counts: Sequence[int], widest: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """values and tokens (N, k): the best of each row, counts: rows of each search -> the `widest` best of each
        search by their score: log-probabilities, tokens, and which of its rows."""
        device, width = values.device, tokens.shape[1]
        live = torch.tensor(counts, device=device).unsqueeze(1)
        inside = torch.arange(max(counts), device=device) < live
        grid = torch.zeros(inside.shape, dtype=torch.long, device=device)
        grid[inside] = torch.arange(len(tokens), device=device)
        values, tokens = values[grid].masked_fill(~inside.unsqueeze(-1), -torch.inf).flatten(1), tokens[grid].flatten(1)
        scores = [h.score for search in self.searches for h in search.live]
        scores_of_rows = torch.tensor(scores, dtype=torch.float64, device=device)[grid].repeat_interleave(width, dim=1)
        order = (values + scores_of_rows).topk(min(widest, values.shape[1]), dim=-1).indices
        return values.gather(1, order), tokens.gather(1, order), (order // width).minimum(live - 1)


def _chunks(sources: Sequence[Sequence[int]]) -> Iterator[range]:
    """Neighbours that are encoded together: as many as stay below ENCODE_TOKENS, padding included."""
    start = longest = 0
    for index, source in enumerate(sources):
        longest = max(longest, len(source))
        if index > start and (index + 1 - start) * longest > ENCODE_TOKENS:
            yield range(start, index)
            start, longest = index, len(source)
    yield range(start, len(sources))


def top(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """x (N, V) -> the `count` largest values of each row and their places, each (N, count), the largest first.

    Where V is large, by blocks: the largest values lie in the blocks with the largest maxima.
    """
    num_rows, width = x.shape
    per_block = width // BLOCKS
    if width < 64 * count * BLOCKS or x.device.type != "cpu":
        return x.topk(count, dim=-1)
    # Block j is made of the columns j, j + per_block, ...: their maxima are one pass over whole vectors.
    main = x[:, : per_block * BLOCKS].view(num_rows, BLOCKS, per_block)
    blocks = main.amax(1).topk(count, dim=-1).indices
    starts = torch.arange(0, per_block * BLOCKS, per_block)
    rest = torch.arange(per_block * BLOCKS, width).expand(num_rows, -1)
    places = torch.cat([(blocks.unsqueeze(1) + starts.unsqueeze(1)).flatten(1), rest], dim=1)
    values, order = x.gather(1, places).topk(count, dim=-1)
    return values, places.gather(1, order)


def _drawn(search: Sampling, log_probs: Tensor) -> Candidates:
    """log_probs (rows of the search, V) -> one token for each of its samples."""
    draws = search.draws()
    rows = torch.tensor([row for row, _ in draws], device=log_probs.device)
    numbers = torch.tensor([number for _, number in draws], device=log_probs.device)
    tokens = sample(log_probs[rows], numbers, search.settings)
    values = log_probs[rows].gather(1, tokens.unsqueeze(1)).squeeze(1)
    return Candidates(rows.tolist(), tokens.tolist(), values.tolist())


def sample(log_probs: Tensor, numbers: Tensor, settings: Any) -> Tensor:
    """log_probs (N, V), numbers (N,) in [0, 1) -> tokens (N,), by inverting the distribution that the settings shape.

    top_p keeps the smallest set of the most probable tokens that reaches it (Holtzman et al. 2020).
    """
    probabilities, tokens = torch.softmax(log_probs / settings.temperature, dim=-1).sort(
        dim=-1, descending=True, stable=True
    )
    total = probabilities.cumsum(dim=-1)
    outside = (total - probabilities) >= settings.top_p
    if settings.top_k:
        outside[:, settings.top_k :] = True
    outside |= probabilities == 0
    outside[:, 0] = False
    total = probabilities.masked_fill(outside, 0).cumsum(dim=-1)
    places = (total <= (numbers.to(total.dtype) * total[:, -1]).unsqueeze(1)).sum(dim=-1)
    last = (~outside).sum(dim=-1) - 1
    return tokens.gather(1, torch.minimum(places, last).unsqueeze(1)).squeeze(1)
