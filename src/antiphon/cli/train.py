"""`antiphon train`."""

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli.flags import Pairs, SourceKey, TargetKey, command_again

if TYPE_CHECKING:
    from antiphon.config import Config
    from antiphon.training.train import Listener

# What every verb that trains is told with.
Dev = Annotated[str | None, typer.Option(help="Pairs to measure on, never learned from; else some are set aside.")]
ConfigFile = Annotated[Path | None, typer.Option(help="A TOML file of settings, over the preset.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting, as table.key=value; may be repeated.")]
Minutes = Annotated[float | None, typer.Option(help="Train for so many minutes; replaces the preset's limit.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="RUN",
        help="Begin from this run (fine-tuning): its tokenizers, its settings, and of its weights those that fit.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")]


def train(
    pairs: Pairs,
    dev: Dev = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the model to; else runs/ and the name of PAIRS.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="tiny, small, base, fast or recurrent; else chosen by the number of pairs, and without --config by "
            "--minutes too."
        ),
    ] = None,
    config: ConfigFile = None,
    set_: Settings = None,
    minutes: Minutes = None,
    from_: From = None,
    resume: Resume = False,
    source_key: SourceKey = "source",
    target_key: TargetKey = "target",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write RUN/tensorboard (extra: tensorboard).")
    ] = False,
) -> None:
    """Train a model that imitates PAIRS.

    Writes a run folder: settings, tokenizer, the best weights, metrics.jsonl, loss.png and checkpoints. Ctrl-C finishes
    the step, saves, and says how to go on; a run that was killed goes on too, with --resume.
    """
    from antiphon import text_side
    from antiphon.cli.progress import TrainingDisplay
    from antiphon.config import preset_for, with_overrides
    from antiphon.data.mixture import tags_of
    from antiphon.data.pairs import read_pairs
    from antiphon.training import train as training

    out = out or Path("runs") / _stem(pairs)
    words = setting_words(set_, minutes)
    quick = 0 if config else minutes or 0  # a file of settings may be of another kind of model than few minutes ask for
    refuse_other_settings(preset, config, from_, resume)
    if resume:
        settings = with_overrides(text_side.read_config(out), words)
    else:
        training.refuse_existing(out)  # this, and wrong settings, are told before a large file is read
        settings = new_settings(preset or preset_for(1, quick), config, words, from_)
    train_pairs = read_pairs(pairs, source_key=source_key, target_key=target_key)
    dev_pairs = None if dev is None else read_pairs(dev, source_key=source_key, target_key=target_key)
    if not resume:
        settings = new_settings(preset or preset_for(len(train_pairs), quick), config, words, from_)
    interrupted = Interrupted()
    with TrainingDisplay() as display:
        listeners: list[Listener] = [display]
        if tensorboard:
            from antiphon.training.tensorboard import TensorBoard

            listeners.append(TensorBoard(out / "tensorboard"))
        listener = training.Listeners(listeners)
        training.train(
            train_pairs,
            out,
            dev=dev_pairs,
            tags=tags_of(pairs),
            config=settings,
            begin_from=from_,
            resume=resume,
            listener=listener,
            wanted=interrupted.wanted,
        )
    if interrupted.caught and not display.has_ended:
        keys = {"source_key": (source_key, "source"), "target_key": (target_key, "target")}
        again = command_again("train", pairs, "--out", out, *["--tensorboard"] * tensorboard, dev=(dev, None), **keys)
        typer.echo(f"Stopped and saved. Go on with: {again}")
        raise typer.Exit(130)
    typer.echo(f"The model is in {out}. Use it: antiphon generate {out}, or antiphon serve {out}")


def setting_words(set_: list[str] | None, minutes: float | None) -> list[str]:
    """`table.key=value` words. Minutes take the place of the other limits, but for those that are said."""
    limits = ("max_steps=0", "max_epochs=0", f"max_minutes={minutes}")
    return [*(f"training.{limit}" for limit in limits if minutes is not None), *(set_ or [])]


def refuse_other_settings(preset: str | None, config: Path | None, begin_from: str | None, resume: bool) -> None:
    """Raises ValueError for what cannot go with --resume, or with --from."""
    if resume and (preset or config or begin_from):
        raise ValueError("--resume goes on with the run's own settings; leave --preset, --config and --from away.")
    if begin_from and preset:
        raise ValueError(
            "--from begins with that run's settings; leave --preset away, and change some with --config or --set."
        )


def new_settings(preset: str, config: Path | None, words: list[str], begin_from: str | None) -> "Config":
    """Those of the run that a training begins from, else of the preset, with what is said over them."""
    if begin_from is None:
        from antiphon.config import load_config

        return load_config(preset, config, words)
    from antiphon.training.finetune import Origin

    return Origin.read(begin_from).settings(config, words)


class Interrupted:
    """The first Ctrl-C asks the training to stop after this step; the second one stops at once."""

    def __init__(self) -> None:
        self.caught = False
        signal.signal(signal.SIGINT, self._catch)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def wanted(self) -> bool:
        return not self.caught


def _stem(pairs: str) -> str:
    """The name of a run, from that of its first file: `data/train.tsv.gz` -> `train`."""
    from antiphon.data.mixture import parts

    name = Path(parts(pairs)[0].name.split(",")[0]).name.split(".")[0]
    return name if name not in ("", "-") else "pairs"
