"""In which precision to train: the one that is faster on this processor, with this model; found out by timing both."""

import time

import torch

from antiphon.data.batches import Batch
from antiphon.model.seq2seq import Seq2Seq
from antiphon.training.loss import batch_loss

WORTH = 1.1  # bfloat16 must be so much faster to be chosen
HOPELESS = 4  # times slower in a small product: there is only a reference implementation of bfloat16


def fastest_precision(model: Seq2Seq, batch: Batch) -> torch.dtype:
    """Times a forward and backward pass in both; leaves weights, gradients and random numbers as they were."""
    if model.device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if _product_seconds(torch.bfloat16) > HOPELESS * _product_seconds(torch.float32):
        return torch.float32
    noise = model.noise.state()
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            batch_loss(model, batch, 0.1, dtype)[0].backward()  # type: ignore[no-untyped-call]
            times.append(time.perf_counter() - start)
            model.zero_grad(set_to_none=True)
        seconds[dtype] = min(times)
    model.noise.restore(noise)
    return torch.bfloat16 if seconds[torch.bfloat16] * WORTH < seconds[torch.float32] else torch.float32


def _product_seconds(dtype: torch.dtype) -> float:
    """The time of a product of 4 million multiplications."""
    factor = torch.ones(160, 160, dtype=dtype)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        factor @ factor
        times.append(time.perf_counter() - start)
    return min(times)
