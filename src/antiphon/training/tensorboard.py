"""A listener that writes TensorBoard events; needs the extra `tensorboard`."""

from pathlib import Path

from antiphon.run import Model
from antiphon.training.loop import StepReport, Validation
from antiphon.training.train import Kept


class TensorBoard:
    """Writes loss, learning rate, speed and dev metrics into `folder`. Raises ValueError without the extra."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(
                'TensorBoard is not installed; install it with: pip install "antiphon[tensorboard]"'
            ) from None
        self._folder = str(folder)
        self._make = SummaryWriter

    def started(self, model: Model, resumed: bool) -> None:
        self._writer = self._make(self._folder)

    def finished(self, kept: Kept) -> None:
        self._writer.close()

    def stepped(self, report: StepReport) -> None:
        for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second"):
            self._writer.add_scalar(f"train/{name}", getattr(report, name), report.step)

    def validated(self, step: int, validation: Validation, best: bool) -> None:
        self._writer.add_scalar("dev/loss", validation.loss, step)
        self._writer.add_scalar(f"dev/{validation.metric}", validation.value, step)
        self._writer.flush()
