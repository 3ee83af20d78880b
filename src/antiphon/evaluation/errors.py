"""What a model gets wrong most often: the edits between outputs and their closest references, counted.

Symbols are what whitespace separates, as in `antiphon.metrics.symbol_error_rate`, whose edits these are.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from antiphon import metrics


@dataclass(frozen=True)
class Error:
    """`said` where `wanted` would have been right; None: nothing. `share` is that of all edits, 0 to 1."""

    wanted: str | None
    said: str | None
    count: int
    share: float

    def __str__(self) -> str:
        if self.said is None:
            return f"missing {self.wanted}"
        return f"inserted {self.said}" if self.wanted is None else f"{self.wanted} -> {self.said}"


def frequent_errors(
    outputs: Sequence[str], references: Sequence[Sequence[str]], limit: int = 10
) -> tuple[tuple[Error, ...], int]:
    """At most `limit` kinds of edits, the most frequent first, ties by order; and the number of all edits."""
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for output, options in zip(outputs, references, strict=True):
        wanted, fewest = metrics.closest(output, options)
        if fewest:
            counts.update(_edits(output.split(), wanted))
    total = counts.total()
    kinds = counts.most_common(limit)
    return tuple(Error(wanted, said, count, count / total) for (wanted, said), count in kinds), total


def _edits(said: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    """(wanted, said) of each edit in one shortest way from what was said to what was wanted."""
    from rapidfuzz.distance import Levenshtein

    for edit in Levenshtein.editops(said, wanted):
        yield (
            None if edit.tag == "delete" else wanted[edit.dest_pos],
            None if edit.tag == "insert" else said[edit.src_pos],
        )
