"""A packed encoder that is one call, and a packed decoder whose step is: all layers, without Python's lock.

The layers one by one are the slow path, which takes over where there are more rows than the kernels multiply best, or
attention weights are asked for. Both give the same bits.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from antiphon import kernels
from antiphon.kernels import stack
from antiphon.model.copying import Copying
from antiphon.model.int8 import Int8GatedFeedForward, Int8Linear, PackedNorm, PackedSelfAttention, PackedSSRU
from antiphon.model.layers import Memory, TokenEmbedding
from antiphon.model.monotone import MonotoneAttention
from antiphon.model.positions import Positions
from antiphon.model.state import DecodeState
from antiphon.model.transformer import TransformerDecoder, TransformerEncoder

FEWEST_POSITIONS = 128  # that are made at once


def encodes_in_one_call(encoder: TransformerEncoder) -> bool:
    """All its linear layers are packed for our own kernels, and so are its attentions."""
    packed = all(isinstance(cast(Any, layer).attention, PackedSelfAttention) for layer in encoder.layers)
    return packed and _multiplied(encoder)


def steps_in_one_call(decoder: TransformerDecoder) -> bool:
    """All its linear layers are packed for our own kernels, and so are its attentions; and it does not copy."""
    return decoder.in_slots and decoder.head is not None and decoder.copying is None and _multiplied(decoder)


def _multiplied(module: nn.Module) -> bool:
    """Our own kernels multiply in all linear layers."""
    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear | Int8Linear)]
    return all(isinstance(layer, Int8Linear) and layer.pointers is not None for layer in linears)


class PackedEncoder(nn.Module):
    """A transformer encoder, packed, in one call that reads no padding."""

    def __init__(self, plain: TransformerEncoder) -> None:
        super().__init__()
        self.plain = plain
        self.places = Places(plain.positions, plain.embedding.weight.shape[1])
        self.layers = (stack.Layer * len(plain.layers))(*(_encoder_layer(layer) for layer in plain.layers))
        self.stack = _stack(self.layers, plain, cast(Any, plain.layers[0]).attention.plain.num_heads)
        self.most_rows = kernels.most_rows()

    def forward(self, source: Tensor, mask: Tensor) -> Memory:
        """source (B, S) ids, mask (B, S) -> Memory."""
        lengths = mask.sum(1)
        if int(lengths.sum()) > self.most_rows:
            memory: Memory = self.plain(source, mask)
            return memory
        table, longest = self.places.until(source.shape[1]), source.shape[1]
        bias = None
        if table.pointers.bias:
            bias = self.plain.positions.frame(torch.arange(longest), longest).bias
        values = stack.encode(
            self.stack, table.pointers, source.contiguous(), lengths, None if bias is None else bias.contiguous()
        )
        return Memory(values, mask, values.sum(1) / lengths.unsqueeze(1), source)


class PackedDecoder(nn.Module):
    """A transformer decoder, packed, with a step of one call."""

    def __init__(self, plain: TransformerDecoder) -> None:
        super().__init__()
        self.plain = plain
        self.output, self.head = plain.output, plain.head
        self.copying: Copying | None = None
        self.monotone: MonotoneAttention | None = None
        self.recurrent = isinstance(plain.layers[0].attention, PackedSSRU)
        self.places = Places(plain.positions, plain.output.shape[1])
        self.layers = (stack.Layer * len(plain.layers))(*(_decoder_layer(layer) for layer in plain.layers))
        self.stack = _stack(self.layers, plain, cast(Any, plain.layers[0]).cross.plain.num_heads)
        self.stack.head = _linear(plain.head)
        self.most_rows = kernels.most_rows()

    def features(self, memory: Memory, target_in: Tensor) -> Tensor:
        """Teacher forcing: target_in (B, T) -> (B, T, D)."""
        return self.plain.features(memory, target_in)

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.plain.logits(features)

    def start(self, memory: Memory) -> DecodeState:
        """One row for each source; the memory's keys and values are projected into their slots."""
        lengths = memory.mask.sum(1)
        if int(lengths.sum()) > self.most_rows:
            return self.plain.start(memory)
        state = self.plain.empty(memory)
        assert state.slots is not None
        kept = state.slots.memory
        stack.keep_memory(self.stack, memory.values.contiguous(), lengths, torch.tensor(kept.places), kept.slots.cache)
        return state

    def step(self, state: DecodeState, tokens: Tensor) -> Tensor:
        """tokens (N,), the last of each row -> logits (N, V); the rows of `state` grow older by one."""
        if state.keep_attention or state.num_rows > self.most_rows:
            return self.plain.step(state, tokens)
        assert state.slots is not None
        past, memory, length = state.slots.past, state.slots.memory, max(state.ages) + 1
        past.reserve(length)
        table = self.places.until(length)
        logits = stack.step_decoder(
            self.stack,
            table.pointers,
            (tokens, torch.tensor(state.ages), torch.tensor(past.held)),
            past.paths,
            (past.slots.cache, memory.slots.cache),
            state.memory_of_rows,
            [state.past[f"cell{index}"] for index in range(len(self.layers))] if self.recurrent else (),
        )
        state.attention = None
        state.ages = [age + 1 for age in state.ages]
        return logits


class Table(NamedTuple):
    """Of positions 0 ... L - 1: what the kernels read, and the tensors that it lies in."""

    pointers: stack.Positions
    tensors: tuple[Tensor | None, ...]


class Places:
    """What a kind of positions does at each, made once for many, and again when there are more. Threads may share it:
    a table never changes."""

    def __init__(self, positions: Positions, width: int) -> None:
        self.positions, self.width = positions, width
        self.table: Table | None = None

    def until(self, length: int) -> Table:
        """At least so many."""
        table = self.table
        if table is None or table.pointers.length < length:
            table = self.table = self._made(max(2 * length, FEWEST_POSITIONS))
        return table

    @torch.inference_mode()
    def _made(self, length: int) -> Table:
        every, nothing = torch.arange(length), torch.zeros(length, self.width)
        waves = self.positions.embed(nothing, every)
        bias = self.positions.frame(every[-1:], length).bias
        cos, sin = self.positions.frame(every, 1).rotation or (None, None)
        parts = (None if waves is nothing else waves, cos, sin, bias)
        tensors = tuple(None if part is None else part.contiguous() for part in parts)
        pointers = [None if part is None else part.data_ptr() for part in tensors]
        return Table(stack.Positions(*pointers, length), tensors)


def _stack(layers: Any, plain: TransformerEncoder | TransformerDecoder, heads: int) -> stack.Stack:
    """layers: an array of stack.Layer."""
    embedding: TokenEmbedding = plain.embedding
    width = embedding.weight.shape[1]
    return stack.Stack(
        *(width, heads, len(layers), layers, _norm(plain.norm)),
        *(embedding.weight.data_ptr(), float(width**0.5)),
    )


def _encoder_layer(layer: Any) -> stack.Layer:
    attention = layer.attention.plain
    return stack.Layer(
        attention_norm=_norm(layer.attention_norm),
        project=_linear(attention.project),
        output=_linear(attention.output),
        **_feed_forward(layer),
    )


def _decoder_layer(layer: Any) -> stack.Layer:
    attention, cross = layer.attention.plain, layer.cross.plain
    return stack.Layer(
        attention_norm=_norm(layer.attention_norm),
        project=_linear(attention.project),
        output=stack.Linear() if isinstance(layer.attention, PackedSSRU) else _linear(attention.output),
        cross_norm=_norm(layer.cross_norm),
        query=_linear(cross.query),
        memory=_linear(cross.memory),
        cross_output=_linear(cross.output),
        **_feed_forward(layer),
    )


def _feed_forward(layer: Any) -> dict[str, Any]:
    return {
        "feed_forward_norm": _norm(layer.feed_forward_norm),
        "inner": _linear(layer.feed_forward.inner),
        "outer": _linear(layer.feed_forward.outer),
        "gated": isinstance(layer.feed_forward, Int8GatedFeedForward),
    }


def _norm(norm: Any) -> stack.Norm:
    assert isinstance(norm, PackedNorm)
    return stack.Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)


def _linear(layer: Any) -> stack.Linear:
    assert isinstance(layer, Int8Linear)
    assert layer.pointers is not None
    return stack.Linear(*layer.pointers, layer.width)
