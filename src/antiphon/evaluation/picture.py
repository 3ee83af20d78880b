"""The picture of a report: quality by length of the source, and the most frequent errors."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.evaluation.errors import Error
from antiphon.evaluation.report import Report
from antiphon.plots import COLORS, blank, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 16  # signs of a symbol in a label
SCORES = {"exact_match": "exact match (%)", "bleu": "BLEU", "per": "PER (%)"}


def report_picture(report: Report, png: Path) -> None:
    """Draws the report into `png`: all of it or nothing."""
    save(draw(report), png)


def draw(report: Report) -> "Figure":
    """One figure: scores by length on the left, errors as bars on the right."""
    figure = blank(width=11)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.06})
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    _draw_lengths(left, report)
    _draw_errors(right, report)
    return figure


def _draw_lengths(axes: "Axes", report: Report) -> None:
    groups = report.by_length
    places = range(len(groups))
    for (field, label), color in zip(SCORES.items(), COLORS, strict=False):
        values = [getattr(group, field) for group in groups]
        axes.plot(places, values, label=label, color=color, marker="o", markersize=4, linewidth=1.4)
    axes.set_xticks(places, [f"{group.span}\n({group.num_sources:,})" for group in groups])
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, max(103.0, axes.get_ylim()[1]))
    axes.set_xlabel(f"length of the source in {groups[0].unit} (number of sources)")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(SCORES), frameon=False)


def _draw_errors(axes: "Axes", report: Report) -> None:
    from matplotlib.ticker import MaxNLocator

    errors = report.errors
    if not errors:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no errors", ha="center", va="center", transform=axes.transAxes)
        return
    places = range(len(errors))
    bars = axes.barh(places, [error.count for error in errors], color=COLORS[0], height=0.7)
    axes.bar_label(bars, [f" {error.count:,} ({error.share:.0%})" for error in errors], fontsize=8)
    # A dollar is a dollar: no formula begins with it.
    axes.set_yticks(places, [_label(error) for error in errors], parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel(f"most frequent of {report.num_edits:,} edits, wanted \u2192 said")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)


def _label(error: Error) -> str:
    short = replace(error, wanted=_short(error.wanted), said=_short(error.said))
    return str(short).replace(" -> ", " \u2192 ")


def _short(symbol: str | None) -> str | None:
    return symbol if symbol is None or len(symbol) <= LONGEST else f"{symbol[: LONGEST - 1]}\u2026"
