"""The training loss: label-smoothed cross-entropy, computed together with the output weights.

The logits of all tokens, (M, V), would be the largest tensor of a training step by far, and be read and written many
times. Here they exist a few rows at a time: loss and gradients of those rows are made while they are in the cache.
"""

from typing import Any

import torch
from torch import Tensor

from antiphon.data.batches import Batch
from antiphon.ids import PAD
from antiphon.model.layers import at_least_float32
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
        dtype: torch.dtype,
        ways: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad)
        grad_ways = None if ways is None else torch.empty_like(ways)
        x, w = features.to(dtype), weight.to(dtype)
        grad_x = torch.empty_like(features) if wanted else None
        grad_w = torch.zeros_like(weight) if wanted else None
        loss = torch.zeros((), dtype=torch.float64, device=x.device)
        nll = torch.zeros_like(loss)
        rows = max(1, CHUNK // len(w))
        for start in range(0, len(x), rows):
            part, wished = x[start : start + rows], targets[start : start + rows].unsqueeze(1)
            logits = at_least_float32(part @ w.T)
            right, mean, top = logits.gather(1, wished), logits.mean(1, keepdim=True), logits.amax(1, keepdim=True)
            total = logits.sub_(top).exp_().sum(1, keepdim=True)
            log_z = top + total.log()
            log_prob, share = right - log_z, torch.ones_like(right)
            if ways is not None and grad_ways is not None:
                log_prob = log_prob + ways[start : start + rows, :1]
                both = torch.logaddexp(log_prob, ways[start : start + rows, 1:])
                share, log_prob = (log_prob - both).exp(), both
                grad_ways[start : start + rows] = (smoothing - 1) * torch.cat([share, 1 - share], dim=1)
            nll -= log_prob.sum()
            loss += (smoothing * (log_z - mean) - (1 - smoothing) * log_prob).sum()
            if grad_x is not None and grad_w is not None:
                right_share = (1 - smoothing) * share
                grad = logits.mul_((right_share + smoothing) / total).sub_(smoothing / len(w))
                grad = grad.scatter_add_(1, wished, -right_share).to(dtype)
                grad_x[start : start + rows] = grad @ w
                grad_w += grad.T @ part
        if wanted:
            ctx.save_for_backward(grad_x, grad_w, grad_ways)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_w, grad_ways = ctx.saved_tensors
        scale = grads[0].to(grad_x.dtype)
        return grad_x * scale, grad_w * scale, None, None, None, None if grad_ways is None else grad_ways * scale


def cross_entropy(
    features: Tensor,
    weight: Tensor,
    targets: Tensor,
    smoothing: float,
    dtype: torch.dtype = torch.float32,
    ways: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """features (M, D), weight (V, D), targets (M,) ids -> (loss, negative log-likelihood), sums over M, in nats.

    The loss is the cross-entropy with a share of `smoothing` spread over all V tokens (Szegedy et al. 2016). The second
    is without smoothing, and carries no gradient. dtype: in which the products are computed. ways (M, 2), where there
    is another way than these logits to each right token: the logarithms of their share, and of its probability by the
    other way.
    """
    if features.dtype == torch.float64:
        dtype = torch.float64
    with torch.autocast(features.device.type, enabled=False):
        loss, nll = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            features, weight, targets, smoothing, dtype, ways
        )
    return loss, nll.detach()


def batch_loss(model: Seq2Seq, batch: Batch, smoothing: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Teacher forcing: `cross_entropy` of a batch, over its real target tokens. dtype: bfloat16 is autocast."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        memory = model.encoder(batch.source, batch.source_mask)
        if model.decoder.monotone is not None:
            return _of_log_probs(model.predict(memory, batch.target_in), batch.target_out, smoothing)
        features = model.decoder.features(memory, batch.target_in)
        copying = model.decoder.copying
        ways = None if copying is None else copying.of_targets(features, memory, batch.target_out)
    real = batch.target_out.flatten().nonzero().squeeze(1)
    if ways is not None:
        ways = ways.flatten(0, 1).index_select(0, real)
    features = features.flatten(0, 1).index_select(0, real)
    return cross_entropy(features, model.output, batch.target_out.flatten()[real], smoothing, dtype, ways)


def _of_log_probs(log_probs: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """As `cross_entropy`, of log-probabilities (B, T, V) and targets (B, T), where 0 is padding."""
    real = targets != PAD
    nll = -log_probs.gather(2, targets.unsqueeze(2)).squeeze(2)[real].sum(dtype=torch.float64)
    spread = -log_probs.mean(2)[real].sum(dtype=torch.float64)
    return (1 - smoothing) * nll + smoothing * spread, nll.detach()
