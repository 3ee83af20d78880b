"""Networks for inference in int8: weights brought once into the form that the processor multiplies fastest.

Every row of an input is scaled by its own largest element and every output channel by its own, and the sums of their
products are exact; so a row comes out the same to the last bit, whoever its neighbours are. The product is a kernel of
ours where the processor has VNNI, else one of torch's private operators over oneDNN, and is tried before it is used.
"""

import sys
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
from antiphon.model.layers import FeedForward
from antiphon.model.positions import Frame
from antiphon.model.seq2seq import Seq2Seq
from antiphon.model.state import DecodeState
from antiphon.model.transformer import TransformerDecoder

Precision = Literal["float32", "int8"]

NARROWEST = 64  # layers with fewer inputs or outputs stay as they are
LEVELS = 127  # of an int8, on each side of zero
TINY = 1e-30
TIMED_ROWS = 32
WORTH = 1.3  # int8 must be so much faster than float32 to be chosen
TOLERANCE = 0.02  # relative error of a product of normal numbers, in the self-test


class Int8Linear(nn.Module):
    """x @ weight.T + bias with both factors in int8; input and output in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.width = len(weight)
        self.tiny = torch.tensor(TINY)
        bits, self.scales = self._quantized(weight.detach().contiguous())
        self.offsets = torch.zeros(len(weight), dtype=torch.int64)
        rounded = bits.bitwise_xor_(128).view(torch.int8)
        self.most_rows = kernels.most_rows() if weight.shape[1] % 4 == 0 else 0
        self.arranged = kernels.arrange(rounded) if self.most_rows else None
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None) if self.most_rows < sys.maxsize else None
        self.bias = None if bias is None else bias.detach().contiguous()
        self.pointers = None if self.arranged is None else kernels.pointers(self.arranged, self.scales, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        if self.pointers is not None and len(rows) <= self.most_rows:
            y = kernels.linear(rows, self.width, self.pointers)
        else:
            y = self.scaled(*self._quantized(rows))
        return y.view(*x.shape[:-1], -1)

    def scaled(self, bits: Tensor, scales: Tensor) -> Tensor:
        """bits (N, D_in), uint8 with 128 for zero, scales (N,) -> (N, D_out)."""
        y = self.multiply(bits)
        if kernels.library() is not None:
            kernels.scale_rows(y, scales, self.bias)
            return y
        scales = scales.unsqueeze(1)
        return y.mul_(scales) if self.bias is None else torch.addcmul(self.bias, y, scales, out=y)

    def multiply(self, bits: Tensor) -> Tensor:
        """bits (N, D_in), uint8 with 128 for zero -> exact sums in units of the weights' scales, (N, D_out)."""
        scales = (self.weight, self.scales, self.offsets)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            bits, 1.0, 128, *scales, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y

    def _quantized(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """As kernels.quantize_rows, in torch's operators where there are no kernels."""
        if kernels.library() is not None:
            return kernels.quantize_rows(rows)
        scales = torch.add(self.tiny, rows.abs().amax(1), alpha=1 / LEVELS)
        # Flipping the sign bit adds 128.
        bits = (rows * scales.reciprocal().unsqueeze(1)).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(128)
        return bits, scales


class Int8FeedForward(nn.Module):
    """Two int8 layers with a GELU between them; what lies between is never written in float32 but once."""

    def __init__(self, inner: Int8Linear, outer: Int8Linear) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer
        both = inner.pointers, outer.pointers
        self.pointers = None if both[0] is None or both[1] is None else (*both[0], *both[1])

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        if self.pointers is not None and len(rows) <= self.inner.most_rows:
            return kernels.feed_forward(rows, self.inner.width, self.pointers).view(x.shape)
        if self.inner.weight is None or self.outer.weight is None:
            y: Tensor = self.outer(F.gelu(self.inner(x)))
            return y
        assert self.inner.bias is not None
        bits, scales = kernels.quantize_rows(rows)
        bits, scales = kernels.gelu_quantize_rows(self.inner.multiply(bits), scales, self.inner.bias)
        return self.outer.scaled(bits, scales).view(x.shape)


class PackedSelfAttention(nn.Module):
    """A self-attention whose linear layers are packed, and whose scores are computed where they are needed only."""

    def __init__(self, plain: SelfAttention) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor, frame: Frame) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        if frame.lengths is None:
            y: Tensor = self.plain(x, frame)
            return y
        qkv, bias = self.plain.project(x), None if frame.bias is None else frame.bias.contiguous()
        y = self.plain.output(kernels.attend_among(qkv, self.plain.num_heads, frame.lengths, frame.rotation, bias))
        return y

    def start(self, index: int, memory: Tensor) -> dict[str, Tensor]:
        """Keys and values lie in the state's slots."""
        return {}

    def step(self, x: Tensor, frame: Frame, state: DecodeState, index: int) -> Tensor:
        """x (N, D), a new token a row -> (N, D); its key and value are put into the state's slots."""
        assert frame.ages is not None
        assert state.slots is not None
        qkv, bias = self.plain.project(x), None if frame.bias is None else frame.bias.contiguous()
        past = (state.slots.past.paths, state.slots.past.slots.layer(index))
        y: Tensor = self.plain.output(
            kernels.attend_past(qkv, self.plain.num_heads, frame.ages, *past, frame.rotation, bias)
        )
        return y


class PackedCrossAttention(nn.Module):
    """A cross-attention whose linear layers are packed, and that reads no padding."""

    def __init__(self, plain: CrossAttention) -> None:
        super().__init__()
        self.plain = plain
        self.project = plain.project

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> output (B, T, D), weights (B, H, T, S)."""
        found: tuple[Tensor, Tensor] = self.plain(x, keys, values, bias)
        return found

    def step(self, x: Tensor, state: DecodeState, index: int, bias: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (N, D) -> output (N, D), weights (N, H, S) if the state keeps them."""
        assert state.slots is not None
        memory = state.slots.memory
        keys, values = memory.slots.layer(index)
        if state.keep_attention:
            there = torch.tensor(memory.places)
            padding = ~state.shared["mask"][:, None, :, None]  # what lies there was never written
            keys, values = (
                part[there, : bias.shape[-1]].transpose(1, 2).float().masked_fill_(padding, 0)
                for part in (keys, values)
            )
            return self.plain.attend_folded(x, state, keys, values, bias)
        queries = self.plain.query(x)
        attended = kernels.attend_memory(queries, self.plain.num_heads, *state.memory_of_rows, keys, values)
        return self.plain.output(attended), None


@torch.no_grad()
def pack(network: Seq2Seq) -> None:
    """Replaces the network's wide linear layers by int8 ones, once. It can decode then, and no longer be trained or
    saved. Raises ValueError where it has none, or this build of torch, or the device, does not have the operators."""
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
    if kernels.library() is not None:
        _fuse(network)


def _fuse(network: Seq2Seq) -> None:
    """Puts the kernels between the packed layers."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SelfAttention) and child.head_width <= kernels.WIDEST_HEAD:
                setattr(module, name, PackedSelfAttention(child))
            elif isinstance(child, CrossAttention) and child.head_width <= kernels.WIDEST_HEAD:
                setattr(module, name, PackedCrossAttention(child))
                cast(TransformerDecoder, network.decoder).in_slots = True
            elif isinstance(child, FeedForward) and not child.gated and isinstance(child.inner, Int8Linear):
                setattr(module, name, Int8FeedForward(child.inner, child.outer))


@torch.no_grad()
def gain(network: Seq2Seq) -> float:
    """How many times faster than in float32 the network's most frequent wide linear layer is in int8 on this processor,
    for 32 rows; 0 where int8 cannot be had."""
    wide = _wide(network)
    if not wide or not _suits(network):
        return 0.0
    counts = Counter(layer.weight.shape for layer in wide)
    plain = max(wide, key=lambda layer: counts[layer.weight.shape])
    quick = Int8Linear(plain.weight, plain.bias)
    x = torch.randn(TIMED_ROWS, plain.weight.shape[1])
    return _seconds(partial(plain, x)) / _seconds(partial(quick, x))


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
