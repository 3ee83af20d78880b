"""`antiphon evaluate`."""

from typing import Annotated

import typer

from antiphon.cli.flags import Beam, Device, Pairs, Precision, PrecisionFlag, Run, SourceKey, TargetKey


def evaluate(
    run: Run,
    pairs: Pairs,
    beam: Beam = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    worst: Annotated[int, typer.Option(help="How many of the worst outputs to show.", min=0)] = 10,
    source_key: SourceKey = "source",
    target_key: TargetKey = "target",
    device: Device = "cpu",
    precision: PrecisionFlag = Precision.auto,
) -> None:
    """Measure a model on PAIRS: BLEU and chrF with their signatures, exact match, WER and PER, the worst outputs.

    Pairs with the same source are several references for it: an output is right if it equals any of them.
    """
    from antiphon.data.pairs import read_pairs
    from antiphon.evaluation.evaluate import evaluate as measure
    from antiphon.run import Model

    model = Model.load(run, device, precision.value)
    report = measure(model, read_pairs(pairs, source_key=source_key, target_key=target_key), worst, beam_size=beam)
    typer.echo(report.to_json() if as_json else report.to_text())
