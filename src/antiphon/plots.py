"""Pictures of a training run, drawn from what it wrote down; and what all our pictures share.

`loss_curve` reads `metrics.jsonl`: records with "step" and either "loss" (training), or "dev_loss" and other "dev_..."
numbers (validation), or what is no number and not drawn. Steps that a resumed run did again count once, with what was
written last. This file knows nothing of models, needs no display and leaves matplotlib's global state alone.
"""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.history import read_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = dict[int, float]  # step -> value

COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # told apart by colour-blind eyes, too
NAMES = {
    "loss": "training loss",
    "dev_loss": "dev loss",
    "dev_bleu": "dev BLEU",
    "dev_chrf": "dev chrF",
    "dev_exact_match": "dev exact match (%)",
    "dev_wer": "dev WER (%)",
    "dev_per": "dev PER (%)",
    "dev_char_bleu": "dev character BLEU",
    "dev_ter": "dev TER (%)",
}


def loss_curve(metrics_file: Path, png: Path) -> None:
    """Draws the losses, and the dev metrics on a second axis, into `png`: all of it or nothing. Raises ValueError, with
    the line, for one that is no record."""
    save(draw(read_curves(metrics_file)), png)


def save(figure: "Figure", png: Path) -> None:
    """Writes a figure into `png`: all of it or nothing. A sign that the font lacks is drawn as a box, in silence."""
    # One name a process: two that draw the same run must not write into one file.
    aside = png.with_name(f".{png.name}.{os.getpid()}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph ")
            warnings.filterwarnings("ignore", message="Matplotlib currently does not support")  # such a script
            figure.savefig(aside, format="png")
        aside.replace(png)
    finally:
        aside.unlink(missing_ok=True)


def read_curves(metrics_file: Path) -> dict[str, Curve]:
    """The "loss" and all "dev_..." numbers of a `metrics.jsonl`, by name, each by rising step."""
    curves: dict[str, Curve] = {}
    for record in read_records(metrics_file):
        for name, value in record.items():
            if (name == "loss" or name.startswith("dev_")) and isinstance(value, int | float):
                curves.setdefault(name, {})[record["step"]] = float(value)
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def draw(curves: dict[str, Curve]) -> "Figure":
    """One figure: "loss" and "dev_loss" on the left axis, every other curve on the right one."""
    figure = blank(width=8)
    left = figure.add_subplot()
    left.set_xlabel("step")
    left.set_ylabel("loss")
    left.grid(alpha=0.25)
    left.spines["top"].set_visible(False)
    losses = [name for name in ("loss", "dev_loss") if name in curves]
    metrics = [name for name in curves if name not in losses]
    lines = [_line(left, curves[name], name, color) for name, color in zip(losses, COLORS, strict=False)]
    if metrics:
        right = left.twinx()
        right.spines["top"].set_visible(False)
        right.set_ylabel(", ".join(NAMES.get(name, name) for name in metrics))
        for index, name in enumerate(metrics):
            lines.append(_line(right, curves[name], name, COLORS[(2 + index) % len(COLORS)]))
    if lines:
        figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False)
    else:
        left.text(0.5, 0.5, "nothing measured yet", ha="center", va="center", transform=left.transAxes)
    return figure


def blank(width: float) -> "Figure":
    """An empty figure, `width` inches wide, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _line(axes: "Axes", curve: Curve, name: str, color: str) -> Any:
    # A dot where a value was measured, unless there are so many that they would hide the line.
    marker = "o" if len(curve) <= 40 else None
    (line,) = axes.plot(
        list(curve),
        list(curve.values()),
        label=NAMES.get(name, name),
        color=color,
        marker=marker,
        markersize=3,
        linewidth=1.4,
    )
    return line
