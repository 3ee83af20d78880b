"""Layers in int8: weights brought once into the form that the processor multiplies fastest.

Every row of an input is scaled by its own largest element and every output channel by its own, and the sums of their
products are exact; so a row comes out the same to the last bit, whoever its neighbours are. The product is a kernel of
ours where the processor has VNNI, else one of torch's private operators over oneDNN.
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon import kernels
from antiphon.model.attention import CrossAttention, SelfAttention
from antiphon.model.positions import Frame
from antiphon.model.recurrent import SSRU
from antiphon.model.state import DecodeState

LEVELS = 127  # of an int8, on each side of zero
TINY = 1e-30


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
        self.bias = None if bias is None else bias.detach().clone(memory_format=torch.contiguous_format)
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


class Int8GatedFeedForward(nn.Module):
    """Two int8 layers; half of what the first one says lets the other half through, by its GELU."""

    def __init__(self, inner: Int8Linear, outer: Int8Linear) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        rows: Tensor = self.inner(x.reshape(-1, x.shape[-1]))
        y: Tensor = self.outer(kernels.gate_rows(rows))
        return y.view(x.shape)


class PackedNorm(nn.Module):
    """A layer norm by a kernel."""

    def __init__(self, plain: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = plain.weight, plain.bias, plain.eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        return kernels.normalize_rows(rows, self.weight, self.bias, self.eps).view(x.shape)


class PackedSSRU(nn.Module):
    """An SSRU whose linear layer is packed, and whose cells are brought up to date where they lie."""

    def __init__(self, plain: SSRU) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor, frame: Frame) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        y: Tensor = self.plain(x, frame)
        return y

    def start(self, index: int, memory: Tensor) -> dict[str, Tensor]:
        """The cell of layer `index`; memory (B, S, D)."""
        return {f"cell{index}": torch.zeros(len(memory), memory.shape[-1])}

    def step(self, x: Tensor, frame: Frame, state: DecodeState, index: int) -> Tensor:
        """x (N, D), a new token a row -> (N, D)."""
        return kernels.recur_rows(self.plain.project(x), state.past[f"cell{index}"])


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
        self.num_heads, self.head_width = plain.num_heads, plain.head_width
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
