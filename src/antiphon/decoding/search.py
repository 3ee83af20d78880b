"""Searching for outputs: beam search (a beam of one is greedy) and sampling.

A search follows one source. It knows no model and no tensors: it is given candidates, each a row with one more token
and that token's log-probability, and says which rows live on. Tokens are ids; EOS ends a hypothesis and is not part of
its output, but its log-probability is part of the score.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from antiphon.config import GenerationConfig
from antiphon.ids import EOS


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A target so far. score: its log-probability (natural logarithm), the sum of `log_probs` (one for each token)."""

    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    score: float = 0.0
    attention: tuple[object, ...] = ()

    def extended(self, token: int, log_prob: float, attention: object | None) -> "Hypothesis":
        seen = self.attention if attention is None else (*self.attention, attention)
        return Hypothesis((*self.tokens, token), (*self.log_probs, log_prob), self.score + log_prob, seen)

    @property
    def ended(self) -> bool:
        return bool(self.tokens) and self.tokens[-1] == EOS

    def normalized(self, length_penalty: float) -> float:
        """score / length^penalty, the length with EOS (Wu et al. 2016 in its plain form)."""
        return self.score / float(max(len(self.tokens), 1) ** length_penalty)


@dataclass(slots=True)
class Candidates:
    """What a search may go on with: parallel lists of row (an index into its live ones), token and log-probability."""

    rows: Sequence[int]
    tokens: Sequence[int]
    log_probs: Sequence[float]
    attention: Sequence[object] | None = None  # one for each row


class Search(Protocol):
    """One request while it is decoded. `live` are its rows; when there are none, it is done."""

    settings: GenerationConfig
    prefix: Sequence[int]
    live: list[Hypothesis]
    parents: list[int]  # the row that each live hypothesis came from at the last `advance`

    def advance(self, candidates: Candidates) -> None:
        """One step: from candidates for its rows to new live rows."""

    def results(self) -> list[Hypothesis]:
        """The `n_best` finished hypotheses, best first."""


@dataclass
class BeamSearch:
    """The `beam_size` best hypotheses at each step; one that ends gives up its place.

    It is over when no live hypothesis can still beat the n best that ended: the score only falls, and the length it is
    divided by is at most `max_length`, so this is exact. A hypothesis that reaches `max_length` is cut there.
    """

    settings: GenerationConfig
    max_length: int
    prefix: Sequence[int] = ()
    live: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])
    parents: list[int] = field(default_factory=lambda: [0])
    finished: list[Hypothesis] = field(default_factory=list)

    def advance(self, candidates: Candidates) -> None:
        rows, tokens, log_probs = candidates.rows, candidates.tokens, candidates.log_probs
        scores = [self.live[row].score + log_prob for row, log_prob in zip(rows, log_probs, strict=True)]
        order = (
            sorted(range(len(scores)), key=scores.__getitem__, reverse=True) if len(scores) > 1 else range(len(scores))
        )
        places = self.settings.beam_size - len(self.finished)
        live, self.parents = self.live, []
        self.live = []
        for index in order[:places]:
            row = rows[index]
            if scores[index] == float("-inf"):
                break
            seen = None if candidates.attention is None else candidates.attention[row]
            hypothesis = live[row].extended(tokens[index], log_probs[index], seen)
            if hypothesis.ended or len(hypothesis.tokens) >= self.max_length:
                self.finished.append(hypothesis)
            else:
                self.live.append(hypothesis)
                self.parents.append(row)
        self._drop_hopeless()

    def _drop_hopeless(self) -> None:
        """Live hypotheses whose best possible end is no better than the n best that have ended already."""
        if not self.live or len(self.finished) < self.settings.n_best:
            return
        penalty = self.settings.length_penalty
        bar = self.results()[-1].normalized(penalty)
        longest = max(self.max_length, 1) ** penalty
        hopeful = [index for index, hypothesis in enumerate(self.live) if hypothesis.score / longest > bar]
        self.live = [self.live[index] for index in hopeful]
        self.parents = [self.parents[index] for index in hopeful]

    def results(self) -> list[Hypothesis]:
        penalty = self.settings.length_penalty
        ranked = sorted(self.finished, key=lambda hypothesis: hypothesis.normalized(penalty), reverse=True)
        return ranked[: self.settings.n_best]


@dataclass
class Sampling:
    """`n_best` outputs drawn at random, each from its own stream of numbers, so that none depends on another."""

    settings: GenerationConfig
    max_length: int
    prefix: Sequence[int] = ()
    live: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])
    parents: list[int] = field(default_factory=lambda: [0])
    finished: list[Hypothesis] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._streams = [random.Random(f"{self.settings.seed}/{number}") for number in range(self.settings.n_best)]

    def draws(self) -> list[tuple[int, float]]:
        """(row, a number in [0, 1)) for each sample that goes on; at the beginning one row is drawn from n times."""
        rows = range(len(self.live)) if self.live[0].tokens else [0] * len(self._streams)
        return [(row, stream.random()) for row, stream in zip(rows, self._streams, strict=True)]

    def advance(self, candidates: Candidates) -> None:
        live, streams = self.live, self._streams
        self.live, self.parents, self._streams = [], [], []
        for index, (row, token, log_prob) in enumerate(
            zip(candidates.rows, candidates.tokens, candidates.log_probs, strict=True)
        ):
            seen = None if candidates.attention is None else candidates.attention[row]
            hypothesis = live[row].extended(token, log_prob, seen)
            if hypothesis.ended or len(hypothesis.tokens) >= self.max_length:
                self.finished.append(hypothesis)
            else:
                self.live.append(hypothesis)
                self.parents.append(row)
                self._streams.append(streams[index])

    def results(self) -> list[Hypothesis]:
        return sorted(self.finished, key=lambda hypothesis: hypothesis.score, reverse=True)


def make_search(settings: GenerationConfig, max_length: int, prefix: Sequence[int] = ()) -> BeamSearch | Sampling:
    """The search that `settings` ask for. max_length: the longest output in tokens, without EOS; the prefix counts."""
    kind = Sampling if settings.sample else BeamSearch
    return kind(settings, max(max_length, len(prefix) + 1), tuple(prefix))
