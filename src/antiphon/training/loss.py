"""The training loss: label-smoothed cross-entropy, computed together with the output weights.

The logits of all tokens, (M, V), would be the largest tensor of a training step by far, and be read and written many
times. Here they exist a few rows at a time: loss and gradients of those rows are made while they are in the cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from antiphon.data.batches import Batch
from antiphon.model.seq2seq import Seq2Seq

CHUNK = 1 << 22  # elements of a chunk of logits


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        smoothing: float,
        agreement: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        x, w = features.to(dtype), weight.to(dtype)
        grad_x = torch.empty_like(features) if wanted else None
        grad_w = torch.zeros_like(weight) if wanted else None
        loss = torch.zeros((), dtype=torch.float64, device=x.device)
        nll = torch.zeros_like(loss)
        for rows in _chunks(len(x), max(1, CHUNK // len(w)), in_pairs=agreement > 0, device=x.device):
            part, wished = x[rows], targets[rows].unsqueeze(1)
            logits = _at_least_float32(part @ w.T)
            right, mean, top = logits.gather(1, wished), logits.mean(1, keepdim=True), logits.amax(1, keepdim=True)
            probabilities = logits.sub_(top).exp_()
            total = probabilities.sum(1, keepdim=True)
            log_z = top + total.log()
            nll += (log_z - right).sum()
            loss += (log_z - (1 - smoothing) * right - smoothing * mean).sum()
            grad = probabilities.div_(total)
            apart = _disagreement(grad) if agreement else None
            grad.sub_(smoothing / len(w)).scatter_add_(1, wished, grad.new_full(wished.shape, smoothing - 1))
            if apart is not None:
                loss += agreement * apart[0]
                grad.add_(apart[1], alpha=agreement)
            if grad_x is not None and grad_w is not None:
                grad = grad.to(dtype)
                grad_x[rows] = grad @ w
                grad_w += grad.T @ part
        if wanted:
            ctx.save_for_backward(grad_x, grad_w)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_w = ctx.saved_tensors
        scale = grads[0].to(grad_x.dtype)
        return grad_x * scale, grad_w * scale, None, None, None, None


def _chunks(count: int, size: int, in_pairs: bool, device: torch.device) -> Iterator[slice | Tensor]:
    """Rows that are looked at together, at most `size` (or 2); in_pairs: row i with row i + count / 2."""
    if not in_pairs:
        yield from (slice(start, start + size) for start in range(0, count, size))
        return
    half, size = count // 2, max(1, size // 2)
    for start in range(0, half, size):
        first = torch.arange(start, min(start + size, half), device=device)
        yield torch.cat([first, first + half])


def _disagreement(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """probabilities (2R, V): the two KL divergences between rows i and R + i, in sum over all, in nats; and the
    gradient by the logits (2R, V)."""
    one, other = probabilities.chunk(2)
    tiny = torch.finfo(probabilities.dtype).tiny
    ratio = one.clamp_min(tiny).log_().sub_(other.clamp_min(tiny).log_())
    apart = one - other
    total = (apart * ratio).sum()
    grad_one = one * (ratio - (one * ratio).sum(1, keepdim=True)) + apart
    grad_other = other * ((other * ratio).sum(1, keepdim=True) - ratio) - apart
    return total, torch.cat([grad_one, grad_other])


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def cross_entropy(
    features: Tensor,
    weight: Tensor,
    targets: Tensor,
    smoothing: float,
    dtype: torch.dtype = torch.float32,
    agreement: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """features (M, D), weight (V, D), targets (M,) ids -> (loss, negative log-likelihood), sums over M, in nats.

    The loss is the cross-entropy with a share of `smoothing` spread over all V tokens (Szegedy et al. 2016). The second
    is without smoothing, and carries no gradient. dtype: in which the products are computed. agreement: rows i and
    M / 2 + i are the same token predicted twice, and so many times the sum of the Kullback-Leibler divergences between
    them, both ways, is added to the loss.
    """
    if features.dtype == torch.float64:
        dtype = torch.float64
    with torch.autocast(features.device.type, enabled=False):
        loss, nll = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            features, weight, targets, smoothing, agreement, dtype
        )
    return loss, nll.detach()


def batch_loss(
    model: Seq2Seq, batch: Batch, smoothing: float, dtype: torch.dtype, r_drop: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Teacher forcing: `cross_entropy` of a batch, over its real target tokens. dtype: bfloat16 is autocast.

    r_drop: the batch is read twice, with dropout of its own each time, and the two must agree: half of the loss of
    R-Drop (Liang et al. 2021), with this for its alpha.
    """
    if r_drop:
        batch = Batch(*(torch.cat([part, part]) for part in batch))
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        features = model.features(batch.source, batch.source_mask, batch.target_in)
    real = batch.target_out.flatten().nonzero().squeeze(1)
    features = features.flatten(0, 1).index_select(0, real)
    targets = batch.target_out.flatten()[real]
    loss, nll = cross_entropy(features, model.output, targets, smoothing, dtype, r_drop / 2)
    return (loss / 2, nll / 2) if r_drop else (loss, nll)
