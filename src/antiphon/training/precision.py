"""In which precision to train: the one that is faster on this processor, with this model; found out by timing both."""

import time

import torch

from antiphon.config import TrainingPrecision
from antiphon.data.batches import Batch
from antiphon.model.seq2seq import Seq2Seq
from antiphon.training.loss import batch_loss

ROUNDS = 4  # in turns, so that what else the machine does meets both
WORTH = 1.1  # bfloat16 must be so much faster to be chosen
HOPELESS = 4  # times slower in a small product: there is only a reference implementation of bfloat16


class PrecisionError(ValueError):
    """This machine cannot compute in it."""


def choose_precision(wanted: TrainingPrecision, model: Seq2Seq, batch: Batch) -> torch.dtype:
    """What to compute in: the faster for "auto", else what is wanted; all of the model stays as it was.

    Raises PrecisionError where bfloat16 is wanted and this machine cannot do it.
    """
    if wanted == "float32":
        return torch.float32
    noise = model.noise.state()
    try:
        return _fastest(model, batch) if wanted == "auto" else _tried(model, batch)
    finally:
        model.zero_grad(set_to_none=True)
        model.noise.restore(noise)


def _tried(model: Seq2Seq, batch: Batch) -> torch.dtype:
    try:
        _pass(model, batch, torch.bfloat16)
    except RuntimeError as error:
        raise PrecisionError(
            "training.precision is bfloat16, in which this machine cannot train this model; set it to float32, or to "
            f"auto. (Found: {str(error).splitlines()[0]})"
        ) from None
    return torch.bfloat16


def _fastest(model: Seq2Seq, batch: Batch) -> torch.dtype:
    if model.device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if _product_seconds(torch.bfloat16) > HOPELESS * _product_seconds(torch.float32):
        return torch.float32
    kinds = (torch.bfloat16, torch.float32)
    try:
        rounds = [[_pass(model, batch, dtype) for dtype in kinds] for _ in range(ROUNDS)]
    except RuntimeError:  # there are products, and no recurrent layers
        return torch.float32
    half, single = map(min, zip(*rounds, strict=True))
    return torch.bfloat16 if half * WORTH < single else torch.float32


def _pass(model: Seq2Seq, batch: Batch, dtype: torch.dtype) -> float:
    """The seconds of a forward and backward pass."""
    start = time.perf_counter()
    batch_loss(model, batch, 0.1, dtype)[0].backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def _product_seconds(dtype: torch.dtype) -> float:
    """The time of a product of 4 million multiplications."""
    factor = torch.ones(160, 160, dtype=dtype)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        factor @ factor
        times.append(time.perf_counter() - start)
    return min(times)
