"""Trainings in a folder, as their files tell: found, read as they grow, and reduced to what a picture needs.

A run is a folder with config.json and metrics.jsonl, and its name is its path below the folder that is watched. Nothing
is read through a link, and nothing is written. Whoever asks does so from one thread at a time.
"""

import json
import math
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from antiphon import metrics
from antiphon.config import Config
from antiphon.serving.errors import RefusedError, shown
from antiphon.text_side import CHECKPOINTS, CONFIG, METRICS, read_config

DEPTH = 4  # folders below the one that is watched
POINTS = 400  # of a curve at most
LIVE_SECONDS = 60.0  # without a line, after which a training that has no end counts as stopped
LONGEST_LINE = 1 << 23  # bytes
TAIL = 256  # bytes, which tell whether a file is still the one that was read
DIGITS = 5  # significant ones, of what is told
SERIES = ("step", "seconds", "loss", "learning_rate", "tokens_per_second")  # of each update


@dataclass(frozen=True)
class Summary:
    """A run in a line. share: of the training that is over. seconds: that it took. loss: of the last update, nats a
    token. best: the best value of its dev metric, and best_step. kept: which weights an ended run keeps. live: it was
    heard of in the last minute, and has not ended. changed: when, in seconds since 1970. unreadable: lines of its
    metrics.jsonl that were left out."""

    name: str
    architecture: str
    step: int
    share: float
    seconds: float
    loss: float | None
    metric: str
    best: float | None
    best_step: int | None
    kept: str | None
    live: bool
    changed: float
    unreadable: int


@dataclass(frozen=True)
class DevCurve:
    """A dev metric at each validation. seconds: of training, when it was made."""

    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SampleOutput:
    """What a model said when it had learned for so many steps."""

    step: int
    output: str


@dataclass(frozen=True)
class Sample:
    """A dev source, and its outputs in the order of the validations."""

    source: str
    reference: str
    outputs: list[SampleOutput] = field(default_factory=list)


@dataclass(frozen=True)
class Curves:
    """How a run went: updates in at most 400 bins, each with its means and its last step; and each validation whole, by
    the name of the metric."""

    name: str
    steps: list[int]
    seconds: list[float]
    loss: list[float]
    learning_rate: list[float]
    tokens_per_second: list[float]
    dev: dict[str, DevCurve]
    samples: list[Sample]


class Watcher:
    """The runs in a folder. Raises ValueError when there is no such folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder to watch; give the one that trainings are written to.")
        self._folder = folder.resolve()
        self._runs: dict[str, _Run] = {}

    def summaries(self) -> list[Summary]:
        """Of all runs, those that changed last first."""
        self._look()
        found = [run.summary(name) for name, run in self._runs.items()]
        return sorted(found, key=lambda one: (-one.changed, one.name))

    def curves(self, names: Sequence[str]) -> list[Curves]:
        """Of some runs, in this order. Raises RefusedError for a name that is none."""
        self._look()
        for name in names:
            if name not in self._runs:
                told = f"run {shown(name)!r} is not in the folder that is watched; GET /v1/runs tells which are."
                raise RefusedError(404, "not_found", told, "name")
        return [self._runs[name].history.curves(name) for name in names]

    def _look(self) -> None:
        """Finds runs and reads what is new of them. One that cannot be read is not there."""
        known, self._runs = self._runs, {}
        for folder in _find(self._folder, DEPTH):
            name = _text(folder.relative_to(self._folder).as_posix())
            run = known.get(name) or _Run(folder)
            try:
                run.read()
            except OSError:
                continue
            self._runs[name] = run


def _find(folder: Path, depth: int) -> Iterator[Path]:
    """Folders with a run in them: this one, and those below it."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.is_symlink()]
    except OSError:
        return
    if {CONFIG, METRICS} <= {entry.name for entry in found if entry.is_file()}:
        yield folder
    for entry in found:
        if depth and entry.is_dir() and entry.name != CHECKPOINTS and not entry.name.startswith("."):
            yield from _find(folder / entry.name, depth - 1)


class _Run:
    """A run folder, of which only what is new is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config: Config | None = None
        self._forget()

    def _forget(self) -> None:
        self.history = History()
        self._offset, self._tail = 0, b""  # what was read of the file, and its last bytes
        self._inode, self._size, self._changed = 0, -1, 0

    def read(self) -> None:
        """Reads the lines that are new; all of them when the file is another one now. A last line that is not whole
        yet waits. Raises OSError when there is no such file any more."""
        stat = (self._folder / METRICS).stat(follow_symlinks=False)
        if self._config is not None and (stat.st_size, stat.st_mtime_ns) == (self._size, self._changed):
            return
        with (self._folder / METRICS).open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode or not self._goes_on(file):
                self._forget()
            file.seek(self._offset)
            while (line := file.readline(LONGEST_LINE)).endswith(b"\n"):
                self._offset += len(line)
                self._tail = (self._tail + line)[-TAIL:]
                self.history.take(line)
        self._inode, self._size, self._changed = inode, stat.st_size, stat.st_mtime_ns
        self._config = _config(self._folder)

    def _goes_on(self, file: BufferedReader) -> bool:
        """Whether the end of what was read is still there: a resumed run drops its last lines, and writes others."""
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def summary(self, name: str) -> Summary:
        history, changed = self.history, self._changed / 1e9
        metric = self._config.training.metric if self._config else "loss"
        best, step = history.best(metric)
        return Summary(
            name=name,
            architecture=architecture(self._config) if self._config else "settings that cannot be read",
            step=round(history.last("step") or 0),
            share=min(1.0, history.share),
            seconds=history.last("seconds") or 0.0,
            loss=history.last("loss"),
            metric=metric,
            best=best,
            best_step=step,
            kept=history.kept,
            live=history.kept is None and time.time() - changed < LIVE_SECONDS,
            changed=changed,
            unreadable=history.unreadable,
        )


def _config(folder: Path) -> Config | None:
    try:
        return read_config(folder)
    except ValueError:
        return None


def architecture(config: Config) -> str:
    """The model of a run in a few words: "transformer 2+2, width 128"."""
    model = config.model
    if model.encoder == model.decoder:
        layers = f"{model.encoder} {model.encoder_layers}+{model.decoder_layers}"
    else:
        layers = f"{model.encoder} {model.encoder_layers} + {model.decoder} {model.decoder_layers}"
    if model.decoder in ("transformer", "ssru"):
        return f"{layers}, width {model.d_model}"
    attention = "no attention" if model.attention == "none" else f"{model.attention} attention"
    return f"{layers}, {attention}, width {model.d_model}"


class History:
    """What the lines of a metrics.jsonl tell."""

    def __init__(self) -> None:
        self._updates = {name: array("d") for name in SERIES}
        self._dev: dict[str, DevCurve] = {}
        self._samples: dict[str, Sample] = {}
        self.share = 0.0
        self.kept: str | None = None
        self.unreadable = 0

    def take(self, line: bytes) -> None:
        """Another line; one that is not what training writes is counted, and no more."""
        try:
            self._take(json.loads(line))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            self.unreadable += 1

    def _take(self, entry: dict[str, Any]) -> None:
        if "loss" in entry:
            row = [_number(entry[name]) for name in SERIES]
            self.share = _number(entry["share"])
            for column, value in zip(self._updates.values(), row, strict=True):
                column.append(value)
        elif "dev_loss" in entry:
            step, seconds = round(_number(entry["step"])), _number(entry["seconds"])
            values = {name[4:]: _number(value) for name, value in entry.items() if name.startswith("dev_")}
            for name, value in values.items():
                curve = self._dev.setdefault(name, DevCurve())
                curve.steps.append(step)
                curve.seconds.append(seconds)
                curve.values.append(value)
        elif "samples" in entry:
            step = round(_number(entry["step"]))
            for one in entry["samples"]:
                source, reference, output = (_text(one[name]) for name in ("source", "reference", "output"))
                sample = self._samples.setdefault(source, Sample(source, reference))
                sample.outputs.append(SampleOutput(step, output))
        elif "kept" in entry:
            self.kept = _text(entry["kept"])
        else:
            raise ValueError

    def last(self, name: str) -> float | None:
        """Of the updates."""
        values = self._updates[name]
        return values[-1] if values else None

    def best(self, metric: str) -> tuple[float, int] | tuple[None, None]:
        """The best value of a dev metric, and its step."""
        curve = self._dev.get(metric)
        if curve is None:
            return None, None
        choose = max if metrics.HIGHER_IS_BETTER.get(metric, True) else min
        best = choose(curve.values)
        return best, curve.steps[curve.values.index(best)]

    def curves(self, name: str) -> Curves:
        """Reduced to what a picture needs."""
        updates = {key: np.array(values) for key, values in self._updates.items()}
        count = len(updates["step"])
        edges = np.linspace(0, count, min(count, POINTS) + 1).astype(int)
        ends = edges[1:] - 1
        means = {
            key: _rounded(np.add.reduceat(updates[key], edges[:-1]) / np.diff(edges)) if count else []
            for key in ("loss", "learning_rate", "tokens_per_second")
        }
        return Curves(
            name=name,
            steps=[round(step) for step in updates["step"][ends]],
            seconds=_rounded(updates["seconds"][ends]),
            **means,
            dev=self._dev,
            samples=list(self._samples.values()),
        )


def _number(value: Any) -> float:
    """Raises ValueError for what is no finite number, and TypeError for what is none at all."""
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def _text(value: str) -> str:
    """Fit to be sent: a name of a file may hold bytes that are no character. Raises TypeError for what is no text."""
    if not isinstance(value, str):
        raise TypeError
    return value.encode("utf-8", "replace").decode("utf-8")


def _rounded(values: "np.ndarray[Any, np.dtype[np.float64]]") -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
