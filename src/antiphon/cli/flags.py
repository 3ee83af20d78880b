"""Flags that several verbs share."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Precision(StrEnum):
    auto = "auto"
    float32 = "float32"
    int8 = "int8"


Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="The folder that `antiphon train` wrote; RUN+RUN decide together, as an ensemble.",
        show_default=False,
    ),
]
Pairs = Annotated[
    str,
    typer.Argument(
        metavar="PAIRS",
        help="Pairs: a TSV file (source, tab, target), JSON lines, or two parallel text files as SOURCE,TARGET; "
        "any of them may be gzipped; - reads standard input. FILE+FILE is both; with TAG=FILE*3 each source begins "
        "with the TAG, and each pair is seen 3 times.",
        show_default=False,
    ),
]
SourceKey = Annotated[str, typer.Option(help="JSON lines: the key of the source.")]
TargetKey = Annotated[str, typer.Option(help="JSON lines: the key of the target.")]
Beam = Annotated[int | None, typer.Option(help="Hypotheses kept at each step; 1 is greedy.", show_default="1")]
LengthPenalty = Annotated[
    float | None, typer.Option(help="Beam: score is divided by length to this.", show_default="1")
]
NoRepeatNgram = Annotated[int | None, typer.Option(help="No run of so many tokens twice.", show_default="no limit")]
Mbr = Annotated[
    int | None,
    typer.Option(
        help="Minimum Bayes risk: draw so many outputs (temperature 0.7) and take the one that is most like all.",
        show_default="off",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="Beam: prefer the hypothesis that says most of what this finds in the source; \\d+ for its numbers.",
        show_default="off",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto.")]
PrecisionFlag = Annotated[
    Precision,
    typer.Option("--precision", help="Of the linear layers; auto: int8 where it is faster here, by a short timing."),
]


def command_again(*words: object, **options: tuple[object, object]) -> str:
    """The command that goes on with what was stopped. options: (value, default) by name; those that are not the default
    are told."""
    told = [(name, value) for name, (value, usual) in options.items() if value != usual]
    flags = [word for name, value in told for word in ("--" + name.replace("_", "-"), str(value))]
    return shlex.join(["antiphon", *map(str, words), *flags, "--resume"])
