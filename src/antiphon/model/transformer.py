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
    attend,
    causal_bias,
    mask_bias,
    merge_heads,
)
from antiphon.model.dropout import Dropout
from antiphon.model.layers import FeedForward, Memory, TokenEmbedding, score_tokens
from antiphon.model.positions import Frame, Positions
from antiphon.model.state import DecodeState, pad_axis

CACHE_BLOCK = 16  # caches grow by so many tokens at a time


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
        hidden = mask_bias(mask)
        frame = Frame(frame.rotation, hidden if frame.bias is None else frame.bias + hidden)
        x = self.dropout(self.positions.embed(self.embedding(source), places))
        for layer in self.layers:
            x = layer(x, frame)
        values = self.norm(x)
        weights = mask.to(values.dtype).unsqueeze(-1)
        return Memory(values, mask, (values * weights).sum(1) / weights.sum(1))


class DecoderLayer(nn.Module):
    def __init__(self, d_model: int, num_heads: int, d_ff: int, feed_forward: str, dropout: Dropout) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = SelfAttention(d_model, num_heads)
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
        self, x: Tensor, frame: Frame, memory_bias: Tensor, state: DecodeState, index: int, length: int
    ) -> tuple[Tensor, Tensor]:
        """x (N, D), one new token a row -> x (N, D), cross-attention weights (B, H, W, S)."""
        query, key, value = self.attention.heads(self.attention_norm(x).unsqueeze(1), frame)
        keys = write_cache(state.past, f"key{index}", key, state.ages)[:, :, :length]
        values = write_cache(state.past, f"value{index}", value, state.ages)[:, :, :length]
        attended, _ = attend(query, keys, values, frame.bias)
        x = x + self.attention.output(merge_heads(attended).squeeze(1))
        folded = state.fold(self.cross_norm(x))
        crossed, weights = self.cross(
            folded, state.shared[f"memory_key{index}"], state.shared[f"memory_value{index}"], memory_bias
        )
        x = x + state.unfold(crossed)
        return x + self.feed_forward(self.feed_forward_norm(x)), weights


def write_cache(past: dict[str, Tensor], name: str, new: Tensor, ages: list[int]) -> Tensor:
    """Puts new (N, H, 1, K) at each row's age into the cache (N, H, C, K), which grows in blocks; returns the cache."""
    oldest = max(ages)
    cache = past[name]
    if cache.shape[2] <= oldest:
        cache = past[name] = pad_axis(cache, 2, (oldest // CACHE_BLOCK + 1) * CACHE_BLOCK)
    if min(ages) == oldest:
        cache[:, :, oldest] = new[:, :, 0]
    else:
        rows = torch.arange(len(ages), device=new.device)
        cache[rows, :, torch.tensor(ages, device=new.device)] = new[:, :, 0]
    return cache


class TransformerDecoder(nn.Module):
    """Predicts each next token from the memory and the tokens before it."""

    def __init__(
        self,
        embedding: TokenEmbedding,
        positions: Positions,
        layers: list[DecoderLayer],
        output: Tensor,
        dropout: Dropout,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.positions = positions
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(embedding.weight.shape[1])
        self.output = output
        self.head: nn.Module | None = None
        self.dropout = dropout

    def features(self, memory: Memory, target_in: Tensor) -> Tensor:
        """Teacher forcing: target_in (B, T) ids -> what the output weights will score, (B, T, D)."""
        length = target_in.shape[1]
        places = torch.arange(length, device=target_in.device)
        frame = self.positions.frame(places, length)
        causal = causal_bias(length, target_in.device)
        frame = Frame(frame.rotation, causal if frame.bias is None else frame.bias + causal)
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
        shared = {"mask": memory.mask}
        ragged = {"mask": 1}
        past: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            keys, values = layer.cross.project(memory.values)  # type: ignore[union-attr, operator]
            shared |= {f"memory_key{index}": keys.contiguous(), f"memory_value{index}": values.contiguous()}
            past |= {f"{name}{index}": keys[:, :, :0] for name in ("key", "value")}
            ragged |= {f"{name}{index}": 2 for name in ("memory_key", "memory_value", "key", "value")}
        return DecodeState(shared, past, memory.mask.sum(1).tolist(), ragged)

    def step(self, state: DecodeState, tokens: Tensor) -> Tensor:
        """tokens (N,), the last of each row -> logits (N, V); the rows of `state` grow older by one."""
        ages = torch.tensor(state.ages, device=tokens.device).unsqueeze(1)
        length = max(state.ages) + 1
        frame = self.positions.frame(ages, length)
        bias = frame.bias
        if min(state.ages) + 1 < length:
            unborn = torch.arange(length, device=tokens.device) > ages
            hidden = torch.zeros(unborn.shape, device=tokens.device).masked_fill_(unborn, HIDDEN)[:, None, None, :]
            bias = hidden if bias is None else bias + hidden
        x = self.positions.embed(self.embedding(tokens.unsqueeze(1)), ages).squeeze(1)
        frame, memory_bias = Frame(frame.rotation, bias), mask_bias(state.shared["mask"])
        weights = []
        for index, layer in enumerate(self.layers):
            x, seen = layer.step(x, frame, memory_bias, state, index, length)  # type: ignore[operator]
            weights.append(seen)
        state.attention = state.unfold(torch.stack(weights, dim=1).movedim(3, 1)) if state.keep_attention else None
        state.ages = [age + 1 for age in state.ages]
        return self.logits(self.norm(x))
