"""What several rounds come to: medians, spread and ratios, printed in columns."""

from collections.abc import Sequence
from statistics import median


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words, the heading first -> text in columns, all but the first to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int = 0) -> list[str]:
    """Median, and lowest to highest."""
    return [f"{median(values):,.{digits}f}", f"{min(values):,.{digits}f}-{max(values):,.{digits}f}"]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """How many times higher ours are: of the medians, then round by round."""
    rounds = " ".join(f"{a / b:.2f}" for a, b in zip(ours, theirs, strict=True))
    return f"{median(ours) / median(theirs):.2f} (round by round: {rounds})"
