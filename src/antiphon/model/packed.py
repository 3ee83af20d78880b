"""Networks for inference in int8: packed layers in the place of wide ones, whole stacks of them in one call where that
can be done. Whether int8 works here, and whether it pays, is tried before it is used.
"""

import time
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon import kernels
from antiphon.model.attention import CrossAttention, SelfAttention
from antiphon.model.int8 import (
    Int8FeedForward,
    Int8GatedFeedForward,
    Int8Linear,
    PackedCrossAttention,
    PackedNorm,
    PackedSelfAttention,
    PackedSSRU,
)
from antiphon.model.layers import FeedForward
from antiphon.model.recurrent import SSRU
from antiphon.model.seq2seq import Seq2Seq
from antiphon.model.stack import PackedDecoder, PackedEncoder, encodes_in_one_call, steps_in_one_call
from antiphon.model.transformer import TransformerDecoder, TransformerEncoder

Precision = Literal["float32", "int8"]

NARROWEST = 64  # layers with fewer inputs or outputs stay as they are
TIMED_ROWS = 32
WORTH = 1.3  # int8 must be so much faster than float32 to be chosen
TOLERANCE = 0.02  # relative error of a product of normal numbers, in the self-test


@torch.no_grad()
def pack(network: Seq2Seq) -> None:
    """Replaces the network's wide linear layers by int8 ones, and copies its other weights, once. It can decode then,
    and no longer be trained or saved. Raises ValueError where it has none, or this build of torch, or the device, does
    not have the operators."""
    if not _wide(network) or not _suits(network):
        raise ValueError(
            f"precision 'int8' cannot be had here: it needs a processor, operators of torch that pass their test, and "
            f"a model at least {NARROWEST} wide; take float32, or auto."
        )
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and min(child.weight.shape) >= NARROWEST:
                setattr(module, name, Int8Linear(child.weight, child.bias))
    if min(network.output.shape) >= NARROWEST:
        network.decoder.head = Int8Linear(network.output, None)
    copy_weights(network)  # now: those that were wide are not copied, and the kernels are told where the others stay
    if kernels.library() is not None:
        _fuse(network)


@torch.no_grad()
def copy_weights(network: Seq2Seq) -> None:
    """Puts the weights into memory of their own. A file's memory becomes another's when that is written over it; and
    products of float32 round by where in the file their factors lie."""
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()


def _fuse(network: Seq2Seq) -> None:
    """Puts the kernels between the packed layers."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SelfAttention) and child.head_width <= kernels.WIDEST_HEAD:
                setattr(module, name, PackedSelfAttention(child))
            elif isinstance(child, CrossAttention) and child.head_width <= kernels.WIDEST_HEAD:
                setattr(module, name, PackedCrossAttention(child))
                cast(TransformerDecoder, network.decoder).in_slots = True
            elif isinstance(child, FeedForward) and isinstance(child.inner, Int8Linear):
                kind = Int8GatedFeedForward if child.gated else Int8FeedForward
                setattr(module, name, kind(child.inner, child.outer))
            elif isinstance(child, nn.LayerNorm):
                setattr(module, name, PackedNorm(child))
            elif isinstance(child, SSRU):
                setattr(module, name, PackedSSRU(child))
    encoder, decoder = network.encoder, network.decoder
    if isinstance(encoder, TransformerEncoder) and encodes_in_one_call(encoder):
        network.encoder = PackedEncoder(encoder)
    if isinstance(decoder, TransformerDecoder) and steps_in_one_call(decoder):
        network.decoder = PackedDecoder(decoder)


@torch.no_grad()
def gain(network: Seq2Seq) -> float:
    """How many times faster than in float32 the network's most frequent wide linear layer is in int8 on this processor,
    for 32 rows on one thread, as running batches side by side decode; 0 where int8 cannot be had."""
    wide = _wide(network)
    if not wide or not _suits(network):
        return 0.0
    counts = Counter(layer.weight.shape for layer in wide)
    plain = max(wide, key=lambda layer: counts[layer.weight.shape])
    quick = Int8Linear(plain.weight, plain.bias)
    x = torch.randn(TIMED_ROWS, plain.weight.shape[1])
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        return _seconds(partial(plain, x)) / _seconds(partial(quick, x))
    finally:
        torch.set_num_threads(num_threads)


def _wide(network: Seq2Seq) -> list[nn.Linear]:
    return [m for m in network.modules() if isinstance(m, nn.Linear) and min(m.weight.shape) >= NARROWEST]


def _suits(network: Seq2Seq) -> bool:
    return network.device.type == "cpu" and network.output.dtype == torch.float32 and works()


def _seconds(work: Callable[[], Tensor]) -> float:
    """The least of three."""
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@cache
def works() -> bool:
    """The operators are there, right, and give a row alone what they give it beside a loud one."""
    x = torch.linspace(-3, 3, 8 * NARROWEST).sin_().view(8, NARROWEST)
    x[3] *= 1000
    weight = torch.linspace(-50, 50, 2 * NARROWEST * NARROWEST).cos_().view(-1, NARROWEST)
    try:
        layer = Int8Linear(weight, weight[:, 0])
        found = layer(x)
        alone = torch.cat([layer(row.unsqueeze(0)) for row in x])
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    right = F.linear(x, weight, weight[:, 0])
    errors = (found - right).norm(dim=1) / right.norm(dim=1)
    return bool(torch.equal(found, alone) and errors.max() < TOLERANCE)
