"""`antiphon distill`."""

from pathlib import Path
from typing import Annotated

import typer

from antiphon.cli.flags import Device, Pairs, SourceKey, TargetKey, command_again
from antiphon.cli.train import (
    ConfigFile,
    Dev,
    From,
    Interrupted,
    Minutes,
    Resume,
    Settings,
    new_settings,
    refuse_other_settings,
    setting_words,
)

BEAM = 5


def distill(
    teacher: Annotated[
        str,
        typer.Argument(metavar="TEACHER", help="The run to learn from; RUN+RUN: an ensemble.", show_default=False),
    ],
    pairs: Pairs,
    out: Annotated[Path, typer.Option(help="Folder to write the student to.", show_default=False)],
    dev: Dev = None,
    beam: Annotated[int, typer.Option(help="Hypotheses that the teacher keeps at each step.")] = BEAM,
    keep_true: Annotated[
        bool, typer.Option("--keep-true", help="Learn from the true targets too, not only from the teacher's.")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(help="The student's: tiny, small, base, fast or recurrent.", show_default="fast"),
    ] = None,
    config: ConfigFile = None,
    set_: Settings = None,
    minutes: Minutes = None,
    from_: From = None,
    resume: Resume = False,
    device: Device = "cpu",
    source_key: SourceKey = "source",
    target_key: TargetKey = "target",
) -> None:
    """Train a student on what a teacher answers to the sources of PAIRS: smaller, and often nearly as good.

    Writes a run folder as `antiphon train` does, and the teacher's outputs into its distilled.jsonl. Ctrl-C saves,
    while decoding or training, and says how to go on; after a kill, --resume goes on too. --device is where the teacher
    decodes; where the student learns, --set training.device tells. With --from TEACHER the student begins with those of
    the teacher's weights that fit.
    """
    from antiphon.cli.progress import DistillationDisplay
    from antiphon.config import with_overrides
    from antiphon.data.pairs import read_pairs
    from antiphon.training import distill as distillation

    words = setting_words(set_, minutes)
    refuse_other_settings(preset, config, from_, resume)
    if resume:
        settings = with_overrides(distillation.settings_of(out), words)
    else:
        distillation.refuse_existing(out)
        settings = new_settings(preset or distillation.PRESET, config, words, from_)
    true_pairs = read_pairs(pairs, source_key=source_key, target_key=target_key)
    dev_pairs = None if dev is None else read_pairs(dev, source_key=source_key, target_key=target_key)
    interrupted = Interrupted()
    with DistillationDisplay() as display:
        distillation.distill(
            teacher,
            true_pairs,
            out,
            dev=dev_pairs,
            config=settings,
            beam_size=beam,
            keep_true=keep_true,
            begin_from=from_,
            resume=resume,
            listener=display,
            wanted=interrupted.wanted,
            device=device,
        )
    if interrupted.caught and not display.training.has_ended:
        words = ["distill", teacher, pairs, "--out", str(out), *["--keep-true"] * keep_true]
        again = command_again(
            *words,
            dev=(dev, None),
            beam=(beam, BEAM),
            device=(device, "cpu"),
            source_key=(source_key, "source"),
            target_key=(target_key, "target"),
        )
        typer.echo(f"Stopped and saved. Go on with: {again}")
        raise typer.Exit(130)
    typer.echo(f"The model is in {out}. Use it: antiphon generate {out}, or antiphon serve {out}")
