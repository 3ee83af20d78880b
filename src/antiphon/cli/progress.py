"""How a training, or a distillation, shows itself: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from antiphon.run import Model
    from antiphon.training.loop import StepReport, Validation
    from antiphon.training.train import Kept

PLAIN_SECONDS = 10  # a plain line at most so often
SMOOTHING = 0.95
WIDE = 110  # columns of a terminal that has room for a bar


class TrainingDisplay:
    """Listens to a training, and prints."""

    def __init__(self, title: str = "training") -> None:
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal
        self.title = title
        self.has_ended = False
        self.loss = self.speed = 0.0
        self.dev = ""
        self.printed = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            *([BarColumn(bar_width=20)] if self.console.width >= WIDE else []),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bar.add_task(title, total=1.0, numbers="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def started(self, model: "Model", resumed: bool) -> None:
        facts, config = model.facts, model.config
        self.console.print(
            f"{facts.train_pairs:,} pairs to learn from, {facts.dev_pairs:,} to measure on{_left_out(model)}; "
            f"padding {facts.padding_share:.0%}"
        )
        if facts.begun_from and not resumed:
            unknown = f"; {facts.unknown_tokens:,} tokens are unknown to it" if facts.unknown_tokens else ""
            self.console.print(
                f"begins from {facts.begun_from}, with {facts.begun_parameters:,} of its weights{unknown}"
            )
        shape = config.model
        self.console.print(
            f"{shape.encoder} encoder ({shape.encoder_layers}), {shape.decoder} decoder ({shape.decoder_layers}), "
            f"width {shape.d_model}: {model.network.num_parameters:,} parameters, {config.training.precision}; "
            f"{model.tokenizers.source.kind} tokens ({model.tokenizers.source.vocab_size:,}) to "
            f"{model.tokenizers.target.kind} ({model.tokenizers.target.vocab_size:,})"
            + (", resumed" if resumed else "")
        )

    def finished(self, kept: "Kept") -> None:
        from antiphon.training.loop import LIMIT

        self.has_ended = True
        score = "" if kept.value is None else f" (dev {kept.metric} {kept.value:.2f})"
        self.console.print(f"kept {kept.kept}{score}" + (f"; ended: {kept.ended}" if kept.ended != LIMIT else ""))
        if kept.ended != LIMIT:
            self.console.print("to go on: --resume, with a higher training.patience (0: no end of that kind)")

    def stepped(self, report: "StepReport") -> None:
        first = self.loss == 0.0
        self.loss = report.loss if first else SMOOTHING * self.loss + (1 - SMOOTHING) * report.loss
        speed = report.tokens_per_second
        self.speed = speed if first else SMOOTHING * self.speed + (1 - SMOOTHING) * speed
        numbers = f"step {report.step:,}  loss {self.loss:.3f}  {self.speed:,.0f} tokens/s{self.dev}"
        self.bar.update(self.task, completed=min(report.share, 1.0), numbers=numbers)
        if not self.live and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            left = report.seconds * (1 - report.share) / max(report.share, 1e-9)
            self.console.print(f"{self.title}: {min(report.share, 1):.0%}  {numbers}  {_duration(left)} left")

    def validated(self, step: int, validation: "Validation", best: bool) -> None:
        self.dev = f"  dev {validation.metric} {validation.value:.2f}"
        if not self.live:
            mark = " (best)" if best else ""
            self.console.print(
                f"{self.title}: step {step:,}  dev loss {validation.loss:.3f}  "
                f"{validation.metric} {validation.value:.2f}{mark}"
            )


def _left_out(model: "Model") -> str:
    facts, limit = model.facts, model.config.training.max_length
    parts = []
    if facts.empty_pairs:
        parts.append(f"{facts.empty_pairs:,} with an empty side")
    if facts.too_long_pairs:
        parts.append(f"{facts.too_long_pairs:,} with more than {limit} tokens on a side")
    return f" (left out: {', '.join(parts)})" if parts else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


class DistillationDisplay:
    """Listens to a distillation, and prints: the sources that are decoded, then what a training shows."""

    def __init__(self) -> None:
        self.training = TrainingDisplay()
        self.stepped, self.validated = self.training.stepped, self.training.validated
        self.finished = self.training.finished
        self.console, self.live = self.training.console, self.training.live
        self.begun: tuple[float, int] | None = None  # when, and with how many sources decoded already
        self.printed = 0.0
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
        if not self.live and now - self.printed > PLAIN_SECONDS:
            self.printed = now
            self.console.print(f"decoding: {done / total:.0%}  {numbers}")
        if done == total:
            self.bar.stop()
            if empty:
                self.console.print(f"left out: {empty:,} sources with an empty output, or too long for the teacher")

    def started(self, model: "Model", resumed: bool) -> None:
        self.training.__enter__()
        self.training.started(model, resumed)
