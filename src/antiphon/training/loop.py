"""The training loop: teacher forcing, the error, a corrected weight; again, until a limit.

It knows ids and no text. What a validation is, it is told; what it reports goes to a listener, and to metrics.jsonl.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch

from antiphon import files
from antiphon.config import TrainingConfig
from antiphon.data.batches import Batch, EncodedPairs
from antiphon.data.swaps import Swaps
from antiphon.history import read_records
from antiphon.model.seq2seq import Seq2Seq
from antiphon.model.transformer import TransformerDecoder
from antiphon.training import checkpoint
from antiphon.training.checkpoint import Progress
from antiphon.training.loss import batch_loss
from antiphon.training.optim import clip_gradients, learning_rate, make_optimizer

LIMIT = "the limit"
SAVE_SECONDS = 300  # a checkpoint at least so often
VALIDATING = 0.1  # the share of its time that a training which ends by the clock gives to validations, about
AT_ONCE = 2048  # tokens of a batch that a processor has in a transformer together: half the memory of 4096, as fast


@dataclass(frozen=True)
class StepReport:
    """One update. loss: nats a target token, before it. share: of the training that is over, 0 to 1."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    target_tokens: int
    tokens_per_second: float
    seconds: float
    share: float


@dataclass(frozen=True)
class Validation:
    """How good the model is on the dev set. score: higher is better, whatever the metric. samples: plain records to
    look at, which metrics.jsonl keeps."""

    loss: float
    metric: str
    value: float
    score: float
    samples: Sequence[dict[str, Any]] = ()


class Listener(Protocol):
    """What wants to know how a training goes."""

    def stepped(self, report: StepReport) -> None: ...

    def validated(self, step: int, validation: Validation, best: bool) -> None: ...


@dataclass
class Trainer:
    """A run in progress."""

    model: Seq2Seq
    data: EncodedPairs
    config: TrainingConfig
    checkpoints: Path
    metrics: Path
    validate: Callable[[], Validation]
    keep_best: Callable[[], None]
    listener: Listener
    wanted: Callable[[], bool] = lambda: True  # False: finish the step, save, and stop

    def fit(self) -> Progress:
        """Trains until a limit, from the newest checkpoint if there is one; `finished` says which limit."""
        self.optimizer = make_optimizer(self.model, self.config)
        self.dtype = getattr(torch, self.config.precision)
        self.progress = checkpoint.restore(self.checkpoints, self.model, self.optimizer) or Progress()
        self._follow_limits()
        self.saved = time.monotonic()
        _forget_after(self.metrics, self.progress.step)
        with self.metrics.open("a", encoding="utf-8", buffering=1) as log:
            batches = self._batches()
            while not self.progress.finished and self.wanted():
                self._update(batches, log)
                self._validate_if_due(log)
                if time.monotonic() - self.saved > SAVE_SECONDS:
                    self._save(passing=True)
        if not self.progress.finished:
            self._save(passing=True)
        return self.progress

    def share(self) -> float:
        """How much of the training is over, by the limit that is nearest."""
        progress, config = self.progress, self.config
        shares = [0.0]
        if config.max_steps:
            shares.append(progress.step / config.max_steps)
        if config.max_epochs:
            shares.append((progress.epoch + progress.pairs / len(self.data)) / config.max_epochs)
        if config.max_minutes:
            shares.append(progress.seconds / 60 / config.max_minutes)
        return max(shares)

    def _follow_limits(self) -> None:
        """A run may be resumed with later limits, or more patience, than it was stopped at, and then goes on."""
        progress, patience = self.progress, self.config.patience
        has_patience = not patience or progress.stale < patience
        if self.share() < 1 and (progress.finished == LIMIT or has_patience):
            progress.finished = ""
        progress.validations = min(progress.validations, int(self.share() * self.config.validations))

    def _batches(self) -> Iterator[Batch]:
        """The batches from where the run stands, epoch after epoch."""
        progress, config = self.progress, self.config
        swaps = Swaps(self.data) if config.swap_words else None
        while True:
            for batch in self.data.batches(config.batch_tokens, config.seed, progress.epoch, progress.batches):
                progress.batches += 1
                progress.pairs += len(batch.source)
                if swaps is not None:
                    batch = swaps.swapped(batch, config.swap_words, [config.seed, progress.epoch, progress.batches])
                yield batch.to(self.model.device)
            progress.epoch += 1
            progress.batches = progress.pairs = 0

    def _update(self, batches: Iterator[Batch], log: TextIO) -> None:
        """One corrected step: the gradient of the mean loss a target token, over `accumulate` batches."""
        start = time.perf_counter()
        progress, config = self.progress, self.config
        chosen = [next(batches) for _ in range(config.accumulate)]
        num_tokens = sum(batch.num_target_tokens for batch in chosen)
        rate = learning_rate(config, progress.step, self.share())
        self.model.train()
        nll = 0.0
        in_parts = self.model.device.type == "cpu" and isinstance(self.model.decoder, TransformerDecoder)
        at_once = AT_ONCE if in_parts else config.batch_tokens
        for part in (part for batch in chosen for part in batch.parts(at_once)):
            loss, own = batch_loss(self.model, part, config.label_smoothing, self.dtype)
            (loss / num_tokens).backward()  # type: ignore[no-untyped-call]
            nll += own.item()
        norm = clip_gradients(self.model, config.clip_norm).item()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.target_tokens += num_tokens
        seconds = time.perf_counter() - start
        progress.seconds += seconds
        report = StepReport(
            progress.step,
            nll / num_tokens,
            rate,
            norm,
            num_tokens,
            num_tokens / seconds,
            progress.seconds,
            self.share(),
        )
        if not math.isfinite(report.loss):
            raise ValueError(
                f"training, step {progress.step}: the loss is {report.loss}; train again, into another folder, with a "
                f"lower training.learning_rate (it is {config.learning_rate})."
            )
        log.write(json.dumps(asdict(report)) + "\n")
        self.listener.stepped(report)

    def _validate_if_due(self, log: TextIO) -> None:
        """Validates when another part of the training is over; keeps the best weights; decides whether to go on."""
        progress, config = self.progress, self.config
        over = self.share() >= 1
        if not over and not self._validation_is_due():
            return
        start = time.perf_counter()
        self.model.eval()
        with torch.inference_mode():
            found = self.validate()
        progress.validations = int(self.share() * config.validations)
        best = progress.best_score is None or found.score > progress.best_score
        if best:
            progress.best_score, progress.best_value = found.score, found.value
            progress.best, progress.stale = f"the weights of step {progress.step:,}", 0
            self.keep_best()
        else:
            progress.stale += 1
        if over:
            progress.finished = LIMIT
        elif config.patience and progress.stale >= config.patience:
            progress.finished = f"no gain in {progress.stale} validations"
        seconds = time.perf_counter() - start
        progress.seconds += seconds
        progress.validating += seconds
        line = {
            "step": progress.step,
            "dev_loss": found.loss,
            f"dev_{found.metric}": found.value,
            "seconds": progress.seconds,
        }
        log.write(json.dumps(line) + "\n")
        if found.samples:
            log.write(json.dumps({"step": progress.step, "samples": found.samples}) + "\n")
        self._save()
        self.listener.validated(progress.step, found, best)

    def _validation_is_due(self) -> bool:
        """Another part of the training is over; where it ends by the clock, there is time for it too, and the last
        validation is not the next thing."""
        share, count = self.share(), self.config.validations
        if int(share * count) <= self.progress.validations:
            return False
        affordable = self.progress.validating <= VALIDATING * self.progress.seconds
        return not self.config.max_minutes or (affordable and share * count < count - 0.5)

    def _save(self, passing: bool = False) -> None:
        checkpoint.save(self.checkpoints, self.model, self.optimizer, self.progress, self.config.average, passing)
        self.saved = time.monotonic()


def _forget_after(metrics: Path, step: int) -> None:
    """Drops what a stopped run logged after its last checkpoint, and which weights a finished one kept.

    Raises ValueError, with the line, for one that is not what training writes.
    """
    if not metrics.exists():
        return
    kept = []
    for record in read_records(metrics):
        if record["step"] > step:
            break
        if "kept" not in record:
            kept.append(json.dumps(record) + "\n")
    files.write_text(metrics, "".join(kept))
