"""Whether one system is better than another or was lucky: paired tests on the outputs both gave for the same sources.

Two-sided p-values: how often a difference this large would be seen if there were none. BLEU, chrF and TER: paired
bootstrap resampling (Koehn 2004, "Statistical significance tests for machine translation evaluation"). Exact match:
McNemar's exact test (McNemar 1947, "Note on the sampling error of the difference between correlated proportions").

What is resampled are sacreBLEU's own sums for each output. How a p-value comes of the samples is not its PairedTest's
way: that (2.6) gives a system against itself the smallest p there is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from antiphon import metrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SAMPLES = 5000
SEED = 12345
BOOTSTRAP = f"paired bootstrap, {SAMPLES:,} samples, seed {SEED}"
MCNEMAR = "McNemar's exact test"


@dataclass(frozen=True)
class Comparison:
    """A score, that of the other system, and how likely such a difference is by chance."""

    score: float
    other: float
    p_value: float
    test: str


@dataclass(frozen=True)
class Against:
    """Two systems on the same sources. The p-value of `exact_match` is also that of WER. `ter`: when asked for."""

    name: str
    exact_match: Comparison
    bleu: Comparison
    chrf: Comparison
    ter: Comparison | None = None


def compare(
    outputs: Sequence[str],
    others: Sequence[str],
    references: metrics.References,
    name: str = "other",
    ter: bool = False,
    their_references: metrics.References | None = None,
) -> Against:
    """`outputs` against those of the system `name`, for the same sources. their_references: the same ones as that
    system writes them, where it does so otherwise. Raises ValueError if counts disagree."""
    metrics.check(outputs, references)
    metrics.check(others, references if their_references is None else their_references)
    return Against(
        name,
        mcnemar(outputs, others, references, their_references),
        paired_bootstrap("bleu", outputs, others, references, their_references),
        paired_bootstrap("chrf", outputs, others, references, their_references),
        paired_bootstrap("ter", outputs, others, references, their_references) if ter else None,
    )


def mcnemar(
    outputs: Sequence[str],
    others: Sequence[str],
    references: metrics.References,
    their_references: metrics.References | None = None,
) -> Comparison:
    """Exact match: of the sources that just one system gets right, is each as often the one? The binomial test."""
    asked = references if their_references is None else their_references
    ours = [output in options for output, options in zip(outputs, references, strict=True)]
    theirs = [output in options for output, options in zip(others, asked, strict=True)]
    only_ours = sum(right and not other for right, other in zip(ours, theirs, strict=True))
    only_theirs = sum(other and not right for right, other in zip(ours, theirs, strict=True))
    return Comparison(
        metrics.exact_match(outputs, references),
        metrics.exact_match(others, asked),
        binomial_test(only_ours, only_theirs),
        MCNEMAR,
    )


def binomial_test(heads: int, tails: int) -> float:
    """How likely a fair coin falls at least as unevenly, either way."""
    ways = all_ways = 1  # to have none of the rarer side; to have at most so many of it
    for count in range(min(heads, tails)):
        ways = ways * (heads + tails - count) // (count + 1)
        all_ways += ways
    return min(1.0, float(2 * all_ways / 2 ** (heads + tails)))


def paired_bootstrap(
    metric: str,
    outputs: Sequence[str],
    others: Sequence[str],
    references: metrics.References,
    their_references: metrics.References | None = None,
) -> Comparison:
    """`metric` ("bleu", "char_bleu", "chrf", "ter") of both systems, over the same sources drawn with replacement.

    The p-value is twice the share of samples that do not show the difference, or show it the other way round; at least
    that of a system which is better on each source, by the sign test: samples of a few sources are all alike.
    """
    import numpy as np

    scorer = metrics.scorer(metric)

    def statistics(texts: Sequence[str], wanted: metrics.References) -> "Floats":
        """(outputs, sums): what sacreBLEU adds up over a corpus."""
        return np.array(scorer._extract_corpus_statistics(list(texts), metrics.streams(wanted)), dtype=np.float64)

    def score(sums: "Floats") -> float:
        return float(scorer._compute_score_from_stats(sums.tolist()).score)

    ours, theirs = statistics(outputs, references), statistics(others, their_references or references)
    differences = np.array([score(counts @ ours) - score(counts @ theirs) for counts in _samples(len(outputs))])
    reversals = min((differences <= 0).sum(), (differences >= 0).sum())
    return Comparison(
        score(ours.sum(0)),
        score(theirs.sum(0)),
        min(1.0, max(2 * (int(reversals) + 1) / (SAMPLES + 1), 2.0 ** (1 - len(outputs)))),
        BOOTSTRAP,
    )


def _samples(size: int) -> "Iterator[Floats]":
    """How often each of `size` outputs is in a sample, (size,), for each sample."""
    import numpy as np

    random = np.random.default_rng(SEED)
    for _ in range(SAMPLES):
        yield np.bincount(random.integers(size, size=size), minlength=size).astype(np.float64)
