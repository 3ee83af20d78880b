"""In which precision to train: the one that is faster on this processor, with this model; found out by timing both."""

import time

import torch

from antiphon.data.batches import Batch
from antiphon.model.seq2seq import Seq2Seq
from antiphon.training.loss import batch_loss

WORTH = 1.1  # bfloat16 must be so much faster to be chosen


def fastest_precision(model: Seq2Seq, batch: Batch) -> torch.dtype:
    """Times a forward and backward pass in both; leaves weights, gradients and random numbers as they were."""
    if model.device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
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
