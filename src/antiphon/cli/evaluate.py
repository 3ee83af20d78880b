"""`antiphon evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from antiphon.cli.flags import (
    Beam,
    Device,
    Keep,
    LengthPenalty,
    Mbr,
    NoRepeatNgram,
    Pairs,
    Precision,
    PrecisionFlag,
    Run,
    SourceKey,
    TargetKey,
)
from antiphon.cli.generate import one_line


def evaluate(
    run: Run,
    pairs: Pairs,
    beam: Beam = None,
    length_penalty: LengthPenalty = None,
    no_repeat_ngram: NoRepeatNgram = None,
    mbr: Mbr = None,
    keep: Keep = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    worst: Annotated[int, typer.Option(help="How many of the worst outputs to show.", min=0)] = 10,
    ter: Annotated[bool, typer.Option("--ter", help="TER, too: slow when sentences are long.")] = False,
    against: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="Another run, to tell whether the difference is chance.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the report into this file.")] = None,
    outputs: Annotated[Path | None, typer.Option(help="Write the outputs to this file, a line a source.")] = None,
    source_key: SourceKey = "source",
    target_key: TargetKey = "target",
    device: Device = "cpu",
    precision: PrecisionFlag = Precision.auto,
) -> None:
    """Measure a model on PAIRS: BLEU, character BLEU, chrF and TER with their signatures, exact match, WER and PER.

    Then scores by length of the source, the most frequent errors, the worst outputs. Pairs with the same source are
    several references for it: an output is right if it equals any of them. Sources are in the order first seen.
    """
    from antiphon import files
    from antiphon.data.pairs import read_pairs
    from antiphon.evaluation.evaluate import answer, measure
    from antiphon.evaluation.picture import report_picture
    from antiphon.run import Model

    for file in (png, outputs):
        if file is not None and _cannot_be_written(file):
            raise ValueError(f"{file}: cannot be written; give the path of a file in a folder that is there.")
    model = Model.load(run, device, precision.value)
    other = None if against is None else Model.load(against, device, precision.value)
    wanted = read_pairs(pairs, source_key=source_key, target_key=target_key)
    search: dict[str, Any] = {"beam_size": beam, "length_penalty": length_penalty, "no_repeat_ngram": no_repeat_ngram}
    search |= {"mbr": mbr, "keep": keep}
    if beam is not None and mbr is None:
        search["sample"] = False  # whatever the run does by itself
    for one in (model, other):
        if one is not None:
            one.outputs([], **{"n_best": 1} | search)  # what cannot be is told before anything is decoded
    answers = answer(model, wanted, **search)
    if outputs is not None:
        files.write_text(outputs, "".join(f"{one_line(output)}\n" for output in answers.outputs))
    others = None if other is None else answer(other, wanted, **search)
    report = measure(answers, worst, ter, others, str(against))
    typer.echo(report.to_json() if as_json else report.to_text())
    if png is not None:
        report_picture(report, png)


def _cannot_be_written(file: Path) -> bool:
    """Files are replaced as a whole, which a link or a device must not be."""
    return not file.parent.is_dir() or file.is_symlink() or (file.exists() and not file.is_file())
