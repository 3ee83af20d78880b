"""The running batch: rows of different requests, ages and beam widths, decoded together one step at a time.

Offline decoding and the server both run this loop; a request that ends leaves at once, and others join between steps.
It asks a model for `start` and `step` only, and leaves the choice of tokens to each request's own search.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from antiphon.decoding.rules import forbid
from antiphon.decoding.search import Candidates, Sampling, Search
from antiphon.ids import BOS


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
        """Encodes new sources (ids, each ending with EOS) together, and lets their searches join."""
        state = self.model.start(sources)
        state.keep_attention = self.keep_attention
        self._state = state if self._state is None else self._state.join([state])
        self.searches += searches

    @torch.inference_mode()
    def step(self) -> list[Search]:
        """One more token for every row; returns the searches that ended with it."""
        tokens = [h.tokens[-1] if h.tokens else BOS for search in self.searches for h in search.live]
        logits = self.model.step(self._state, tokens)
        widths = [len(search.live) for search in self.searches]
        for search, candidates in zip(self.searches, self._candidates(logits), strict=True):
            search.advance(candidates)
        return self._retire(widths)

    def drop(self, search: Search) -> None:
        """A request that is not wanted any more: its rows are free at once."""
        index = next((i for i, other in enumerate(self.searches) if other is search), None)
        if index is None:
            return
        rows: list[int] = []
        row = 0
        for other in self.searches:
            rows += [] if other is search else range(row, row + len(other.live))
            row += len(other.live)
        del self.searches[index]
        self._state = self._state.select(rows) if rows else None

    def _retire(self, widths: Sequence[int]) -> list[Search]:
        """Moves the state's rows to where the live hypotheses came from (`widths`: how many each search had); the
        searches without any leave, and are returned."""
        rows: list[int] = []
        offset = 0
        for search, width in zip(self.searches, widths, strict=True):
            rows += [offset + parent for parent in search.parents]
            offset += width
        ended = [search for search in self.searches if not search.live]
        self.searches = [search for search in self.searches if search.live]
        self._state = self._state.select(rows) if rows else None
        return ended

    def _candidates(self, logits: Tensor) -> list[Candidates]:
        """logits (N, V) -> for each search, the best continuations of its rows, or the ones drawn."""
        allowed = forbid(logits, self.searches)
        log_z = logits.logsumexp(dim=-1, keepdim=True)
        seen = self._state.attention.cpu() if self._state.attention is not None else None
        beams = [search for search in self.searches if not isinstance(search, Sampling)]
        width = min(max((search.settings.beam_size for search in beams), default=1), logits.shape[1])
        top_scores, top_tokens = allowed.topk(width, dim=-1)
        top_scores = torch.where(top_scores == -torch.inf, top_scores, logits.gather(1, top_tokens)) - log_z
        scores, tokens = top_scores.tolist(), top_tokens.tolist()
        drawn = self._draw(allowed, logits, log_z)
        candidates = []
        row = 0
        for index, search in enumerate(self.searches):
            rows = len(search.live)
            attention = None
            if seen is not None:
                attention = list(seen[row : row + rows, ..., : self._state.lengths[index]])
            if isinstance(search, Sampling):
                found = drawn.pop(0)
                found.attention = attention
            else:
                found = _best(tokens[row : row + rows], scores[row : row + rows], search.settings.beam_size, attention)
            candidates.append(found)
            row += rows
        return candidates

    def _draw(self, allowed: Tensor, logits: Tensor, log_z: Tensor) -> list[Candidates]:
        """For each sampling search, one token for each of its samples."""
        drawn = []
        row = 0
        for search in self.searches:
            if isinstance(search, Sampling):
                draws = search.draws()
                rows = torch.tensor([row + index for index, _ in draws], device=logits.device)
                numbers = torch.tensor([number for _, number in draws], device=logits.device)
                tokens = sample(allowed[rows], numbers, search.settings)
                log_probs = (logits[rows].gather(1, tokens.unsqueeze(1)) - log_z[rows]).squeeze(1)
                drawn.append(Candidates([index for index, _ in draws], tokens.tolist(), log_probs.tolist()))
            row += len(search.live)
        return drawn


def _best(tokens: list[list[int]], scores: list[list[float]], width: int, attention: list[Any] | None) -> Candidates:
    """tokens and scores: for each row its best continuations, best first -> the first `width` of each."""
    rows = [row for row, found in enumerate(tokens) for _ in found[:width]]
    return Candidates(
        rows,
        [token for found in tokens for token in found[:width]],
        [s for found in scores for s in found[:width]],
        attention,
    )


def sample(logits: Tensor, numbers: Tensor, settings: Any) -> Tensor:
    """logits (N, V), numbers (N,) in [0, 1) -> tokens (N,), by inverting the distribution that the settings shape.

    top_p keeps the smallest set of the most probable tokens that reaches it (Holtzman et al. 2020).
    """
    probabilities, tokens = torch.softmax(logits / settings.temperature, dim=-1).sort(
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
