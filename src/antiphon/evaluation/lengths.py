"""Scores by the length of the source: where a model begins to lose the thread."""

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon import metrics

MOST = 5  # groups


@dataclass(frozen=True)
class LengthGroup:
    """The sources of `shortest` to `longest` units ("words" or "characters"), and the scores of their outputs."""

    unit: str
    shortest: int
    longest: int
    num_sources: int
    exact_match: float
    bleu: float
    per: float

    @property
    def span(self) -> str:
        """As "3" or "3-5"."""
        return f"{self.shortest}" if self.shortest == self.longest else f"{self.shortest}-{self.longest}"


def by_length(
    sources: Sequence[str], outputs: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[LengthGroup, ...]:
    """At most five groups of about equally many sources, the shortest first; sources of one length stay together.

    Lengths are whitespace-separated words; characters when most sources are single words.
    """
    counts = [len(source.split()) for source in sources]
    unit = "words" if 2 * sum(count > 1 for count in counts) >= len(counts) else "characters"
    lengths = counts if unit == "words" else [len(source) for source in sources]
    groups = []
    for rows in _grouped(lengths):
        said, wanted = [outputs[row] for row in rows], [references[row] for row in rows]
        groups.append(
            LengthGroup(
                unit=unit,
                shortest=lengths[rows[0]],
                longest=lengths[rows[-1]],
                num_sources=len(rows),
                exact_match=metrics.exact_match(said, wanted),
                bleu=metrics.bleu(said, wanted)[0],
                per=metrics.symbol_error_rate(said, wanted),
            )
        )
    return tuple(groups)


def _grouped(lengths: Sequence[int]) -> list[list[int]]:
    """Rows by rising length. A group ends where it is nearest to its part of the rows left, at a tenth or more."""
    rows_of: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        rows_of.setdefault(length, []).append(row)
    groups: list[list[int]] = []
    current: list[int] = []
    left = len(lengths)  # rows that are in no finished group
    for _, rows in sorted(rows_of.items()):
        part = left / (MOST - len(groups))
        too_many, too_few = len(current) + len(rows) - part, part - len(current)
        if 10 * len(current) >= len(lengths) and too_many > too_few:
            groups.append(current)
            left -= len(current)
            current = []
        current = current + rows
    if groups and 10 * len(current) < len(lengths):
        groups[-1] += current
    elif current:
        groups.append(current)
    return groups
