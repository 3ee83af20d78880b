"""`antiphon distill`."""

import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from antiphon.cli.flags import Device, Pairs, SourceKey, TargetKey, command_again
from antiphon.cli.train import (
    ConfigFile,
    Dev,
    Interrupted,
    Minutes,
    Resume,
    Settings,
    refuse_other_settings,
    setting_words,
)

if TYPE_CHECKING:
    from antiphon.run import Model

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
    resume: Resume = False,
    device: Device = "cpu",
    source_key: SourceKey = "source",
    target_key: TargetKey = "target",
) -> None:
    """Train a student on what a teacher answers to the sources of PAIRS: smaller, and often nearly as good.

    Writes a run folder as `antiphon train` does, and the teacher's outputs into its distilled.jsonl. Ctrl-C saves,
    while decoding or training, and says how to go on; after a kill, --resume goes on too. --device is where the teacher
    decodes; where the student learns, --set training.device tells.
    """
    from antiphon.config import load_config, with_overrides
    from antiphon.data.pairs import read_pairs
    from antiphon.training import distill as distillation

    words = setting_words(set_, minutes)
    if resume:
        refuse_other_settings(preset, config)
        settings = with_overrides(distillation.settings_of(out), words)
    else:
        distillation.refuse_existing(out)
        settings = load_config(preset or distillation.PRESET, config, words)
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
            resume=resume,
            listener=display,
            wanted=interrupted.wanted,
            device=device,
        )
    if interrupted.caught:
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


class DistillationDisplay:
    """Listens to a distillation, and prints: the sources that are decoded, then what a training shows."""

    def __init__(self) -> None:
        from rich.progress import Progress, TextColumn

        from antiphon.cli.progress import PLAIN_SECONDS, TrainingDisplay

        self.training = TrainingDisplay()
        self.stepped, self.validated = self.training.stepped, self.training.validated
        self.finished = self.training.finished
        self.console, self.live = self.training.console, self.training.live
        self.begun: tuple[float, int] | None = None  # when, and with how many sources decoded already
        self.printed, self.pause = 0.0, PLAIN_SECONDS
        self.bar = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("decoding", total=1.0, numbers="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        self.training.__exit__(kind, error, trace)

    def decoded(self, done: int, total: int, empty: int) -> None:
        now = time.monotonic()
        if self.begun is None:
            self.begun, self.printed = (now, done), now
            self.console.print(f"{total:,} sources for the teacher" + (f", {done:,} decoded already" if done else ""))
            self.bar.start()
        begun, before = self.begun
        speed = (done - before) / max(now - begun, 1e-9)
        left = str(timedelta(seconds=int((total - done) / speed))) if speed else "-:--:--"
        numbers = f"{done:,} sources  {speed:,.1f} sources/s  {left} left"
        self.bar.update(self.task, completed=done / total, numbers=numbers)
        if not self.live and now - self.printed > self.pause:
            self.printed = now
            self.console.print(f"decoding: {done / total:.0%}  {numbers}")
        if done == total:
            self.bar.stop()
            if empty:
                self.console.print(f"{empty:,} outputs are empty: they are left out")

    def started(self, model: "Model", resumed: bool) -> None:
        self.training.__enter__()
        self.training.started(model, resumed)
