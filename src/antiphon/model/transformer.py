"""The transformer encoder and decoder, pre-norm (Vaswani et al. 2017; Xiong et al. 2020).

The decoder reads a whole target at once in training (`features`) and one token a row in decoding (`step`), where each
row has its own age: keys and values of past tokens lie in caches whose place 0 is the first token.
"""

import torch
from torch import Tensor, nn

from antiphon.model.attention import (
    HIDDEN,
    CrossAttention,
    SelfAttention,
    causal_bias,
    mask_bias,
)
from antiphon.model.copying import Copying
from antiphon.model.dropout import Dropout
from antiphon.model.layers import FeedForward, Memory, TokenEmbedding, score_tokens
from antiphon.model.monotone import MonotoneAttention
from antiphon.model.positions import Frame, Positions
from antiphon.model.slots import KeyValues, MemorySlots, PastSlots, Slots
from antiphon.model.state import DecodeState


class EncoderLayer(nn.Module):
    def __init__(self, d_model: int, num_heads: int, d_ff: int, feed_forward: str, dropout: Dropout) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = SelfAttention(d_model, num_heads)
        self.feed_forward_norm = nn.LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, feed_forward)
        self.dropout = dropout

    def forward(self, x: Tensor, frame: Frame) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), frame))
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x


class TransformerEncoder(nn.Module):
    """Each token's vector, informed by all others."""

    def __init__(
        self, embedding: TokenEmbedding, positions: Positions, layers: list[EncoderLayer], dropout: Dropout
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.positions = positions
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(embedding.weight.shape[1])
        self.dropout = dropout

    def forward(self, source: Tensor, mask: Tensor) -> Memory:
        """source (B, S) ids, mask (B, S) -> Memory; its summary is the mean over real tokens."""
        places = torch.arange(source.shape[1], device=source.device)
        frame = self.positions.frame(places, source.shape[1])
        frame = frame._replace(hidden=mask_bias(mask), lengths=mask.sum(1))
        x = self.dropout(self.positions.embed(self.embedding(source), places))
        for layer in self.layers:
            x = layer(x, frame)
        values = self.norm(x)
        weights = mask.to(values.dtype).unsqueeze(-1)
        return Memory(values, mask, (values * weights).sum(1) / weights.sum(1), source)


class DecoderLayer(nn.Module):
    """attention: how a token sees those before it, by self-attention or a recurrence (SSRU)."""

    def __init__(
        self, attention: nn.Module, d_model: int, num_heads: int, d_ff: int, feed_forward: str, dropout: Dropout
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = attention
        self.cross_norm = nn.LayerNorm(d_model)
        self.cross = CrossAttention(d_model, num_heads)
        self.feed_forward_norm = nn.LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff, feed_forward)
        self.dropout = dropout

    def forward(self, x: Tensor, frame: Frame, keys: Tensor, values: Tensor, memory_bias: Tensor) -> Tensor:
        """x (B, T, D), keys and values (B, H, S, K) of the memory -> (B, T, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), frame))
        x = x + self.dropout(self.cross(self.cross_norm(x), keys, values, memory_bias)[0])
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x

    def step(
        self, x: Tensor, frame: Frame, memory_bias: Tensor, state: DecodeState, index: int
    ) -> tuple[Tensor, Tensor | None]:
        """x (N, D), one new token a row -> x (N, D), cross-attention weights (N, H, S) if the state keeps them."""
        x = x + self.attention.step(self.attention_norm(x), frame, state, index)  # type: ignore[operator]
        crossed, weights = self.cross.step(self.cross_norm(x), state, index, memory_bias)
        x = x + crossed
        return x + self.feed_forward(self.feed_forward_norm(x)), weights


class TransformerDecoder(nn.Module):
    """Predicts each next token from the memory and the tokens before it."""

    def __init__(
        self,
        embedding: TokenEmbedding,
        positions: Positions,
        layers: list[DecoderLayer],
        output: Tensor,
        copying: Copying | None,
        dropout: Dropout,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.positions = positions
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(embedding.weight.shape[1])
        self.output = output
        self.head: nn.Module | None = None
        self.copying = copying
        self.monotone: MonotoneAttention | None = None
        self.in_slots = False  # keys and values of past tokens lie in Slots
        self.dropout = dropout

    def features(self, memory: Memory, target_in: Tensor) -> Tensor:
        """Teacher forcing: target_in (B, T) ids -> what the output weights will score, (B, T, D)."""
        length = target_in.shape[1]
        places = torch.arange(length, device=target_in.device)
        frame = self.positions.frame(places, length)
        frame = frame._replace(hidden=causal_bias(length, target_in.device))
        memory_bias = mask_bias(memory.mask)
        x = self.dropout(self.positions.embed(self.embedding(target_in), places))
        for layer in self.layers:
            keys, values = layer.cross.project(memory.values)  # type: ignore[union-attr, operator]
            x = layer(x, frame, keys, values, memory_bias)
        out: Tensor = self.norm(x)
        return out

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return score_tokens(features, self.output, self.head)

    def start(self, memory: Memory) -> DecodeState:
        """One row for each source; the memory's keys and values are projected here, once."""
        state = self.empty(memory)
        for index, layer in enumerate(self.layers):
            keys, values = layer.cross.project(memory.values)  # type: ignore[union-attr, operator]
            if state.slots is not None:
                state.slots.memory.write(index, keys, values)
            else:
                state.shared |= {f"memory_key{index}": keys.contiguous(), f"memory_value{index}": values.contiguous()}
        return state

    def empty(self, memory: Memory) -> DecodeState:
        """One row for each source, and no keys or values of the memory yet."""
        lengths = memory.mask.sum(1).tolist()
        shared = {"mask": memory.mask}
        if self.copying is not None:
            shared |= self.copying.kept(memory)
        ragged = dict.fromkeys(shared, 1)
        past: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            past |= layer.attention.start(index, memory.values)  # type: ignore[union-attr, operator]
            ragged |= {f"{name}{index}": 2 for name in ("memory_key", "memory_value", "key", "value")}
        if not self.in_slots:
            return DecodeState(shared, past, lengths, ragged)
        cross = self.layers[0].cross
        kinds = (Slots(len(self.layers), cross.num_heads, cross.head_width) for _ in range(2))  # type: ignore[union-attr, arg-type]
        slots = KeyValues(
            PastSlots(next(kinds), len(lengths)), MemorySlots(next(kinds), len(lengths), memory.mask.shape[1])
        )
        return DecodeState(shared, past, lengths, ragged, slots=slots)

    def step(self, state: DecodeState, tokens: Tensor) -> Tensor:
        """tokens (N,), the last of each row -> logits (N, V); the rows of `state` grow older by one."""
        ages = torch.tensor(state.ages, device=tokens.device)
        places, length = ages.unsqueeze(1), max(state.ages) + 1
        if state.slots is not None:
            state.slots.past.advance(state.ages)
        frame = self.positions.frame(places, length)._replace(ages=ages)
        if min(state.ages) + 1 < length:
            unborn = torch.arange(length, device=tokens.device) > places
            hidden = torch.zeros(unborn.shape, device=tokens.device).masked_fill_(unborn, HIDDEN)[:, None, None, :]
            frame = frame._replace(hidden=hidden)
        x = self.positions.embed(self.embedding(tokens.unsqueeze(1)), places).squeeze(1)
        memory_bias = mask_bias(state.shared["mask"])
        weights = []
        for index, layer in enumerate(self.layers):
            x, seen = layer.step(x, frame, memory_bias, state, index)  # type: ignore[operator]
            weights.append(seen)
        state.attention = torch.stack(weights, dim=1) if state.keep_attention else None
        state.ages = [age + 1 for age in state.ages]
        x = self.norm(x)
        return self.logits(x) if self.copying is None else self.copying.step(self.logits(x), x, state)
