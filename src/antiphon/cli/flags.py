"""Flags that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `antiphon train` wrote.", show_default=False)]
Pairs = Annotated[
    str,
    typer.Argument(
        metavar="PAIRS",
        help="Pairs: a TSV file (source, tab, target), JSON lines, or two parallel text files as SOURCE,TARGET; "
        "any of them may be gzipped; - reads standard input.",
        show_default=False,
    ),
]
SourceKey = Annotated[str, typer.Option(help="JSON lines: the key of the source.")]
TargetKey = Annotated[str, typer.Option(help="JSON lines: the key of the target.")]
Beam = Annotated[int | None, typer.Option(help="Hypotheses kept at each step; 1 is greedy.", show_default="1")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto.")]
