"""What a trace is made of: frozen records of strings, numbers and lists, which `dataclasses.asdict` turns into JSON.

Numbers are rounded. Probabilities and entropies are those of the model's own distribution, before any rule of the
search; logarithms are natural.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

DIGITS = 6  # behind the decimal point

Fate = Literal["kept", "finished", "pruned"]


@dataclass(frozen=True)
class Architecture:
    """What kind of model it is. bidirectional: a recurrent encoder reads forwards for the first half of a vector, and
    backwards for the second. attention: of the decoder to the source."""

    encoder: str
    bidirectional: bool
    decoder: str
    attention: Literal["multi-head", "additive", "dot", "monotone", "none"]
    encoder_layers: int
    decoder_layers: int
    d_model: int


@dataclass(frozen=True)
class Source:
    """What the encoder was given and what it made of it: S tokens, EOS the last, and a vector (D) for each.

    norms (S): the vectors' lengths. projection (S, 2): the vectors on their two principal axes, along which they vary
    by `variance` (2) of their whole variance. summary (D): the one vector a recurrent decoder begins with; else None.
    """

    tokens: list[int]
    pieces: list[str]
    vectors: list[list[float]]
    norms: list[float]
    projection: list[list[float]]
    variance: list[float]
    summary: list[float] | None
    summary_norm: float | None


@dataclass(frozen=True)
class Node:
    """A hypothesis of the search tree: that of its parent with one more token. `id` is its place in the list.

    step: its tokens, 0 for the root, which is GO. score: the sum of the log_probs on the way to it; normalized: divided
    by length^length_penalty. fate: kept (an extension of it found a place), finished (it ended, or was cut at
    max_length), or pruned at the step `pruned_at`: its own, if it found no place; the next, if no extension of it did.
    """

    id: int
    parent: int | None
    step: int
    token: int
    piece: str
    log_prob: float
    score: float
    normalized: float
    fate: Fate
    pruned_at: int | None


@dataclass(frozen=True)
class Alternative:
    """Another token that could have come. node: in the search tree; None where a rule of the search forbade it."""

    token: int
    piece: str
    probability: float
    node: int | None


@dataclass(frozen=True)
class Step:
    """One step of the best output: the decoder is fed with the piece `input`, and `piece` is chosen.

    entropy: of the distribution, in nats. alternatives: the most probable other tokens. attention [layer][head][source
    token]: weights over the source; empty for a decoder without attention.
    """

    node: int
    input: str
    token: int
    piece: str
    probability: float
    entropy: float
    alternatives: list[Alternative]
    attention: list[list[list[float]]]


@dataclass(frozen=True)
class Finished:
    """A hypothesis that finished. pieces and token_scores: as of `run.Output`; ended: by itself, not cut at max_length.
    returned: it is among the n best, which are what a decode returns."""

    node: int
    text: str
    score: float
    normalized: float
    pieces: list[str]
    token_scores: list[float]
    ended: bool
    returned: bool


@dataclass(frozen=True)
class ForcedToken:
    """A token of the given target after those before it. loss: -log(probability). best_piece: what the model would
    have said."""

    input: str
    token: int
    piece: str
    probability: float
    loss: float
    best_piece: str
    best_probability: float


@dataclass(frozen=True)
class Forced:
    """The given target under teacher forcing, EOS the last token. loss: summed, in nats; perplexity: of a token."""

    text: str
    tokens: list[ForcedToken]
    loss: float
    perplexity: float


@dataclass(frozen=True)
class Trace:
    """One decode of one text. settings: those of `GenerationConfig`, max_length as it was worked out for this text.

    path: the steps of the best output. outputs: all hypotheses that finished, best first.
    """

    text: str
    prefix: str
    architecture: Architecture
    settings: dict[str, Any]
    source: Source
    nodes: list[Node]
    path: list[Step]
    outputs: list[Finished]
    target: Forced | None


def probability(log_prob: float) -> float:
    return rounded(math.exp(log_prob))


def rounded(value: float) -> float:
    return round(value, DIGITS) + 0.0  # no -0.0


def plain(x: Tensor) -> Any:
    """Nested lists of rounded numbers."""
    return (x.double().round(decimals=DIGITS) + 0.0).tolist()
