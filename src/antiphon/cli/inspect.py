"""`antiphon inspect`."""

import json
from typing import Annotated

import typer

from antiphon.cli.flags import Run


def inspect(
    run: Run, as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False
) -> None:
    """Show what a run is: its size, its data, its best score, and every setting that was used."""
    from antiphon.evaluation.summary import summarize

    summary = summarize(run)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    for title, values in summary.items():
        typer.echo(title)
        for name, value in values.items():
            typer.echo(f"  {name:<24}{value}")
