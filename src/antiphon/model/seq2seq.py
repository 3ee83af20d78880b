"""The encoder-decoder: one encoder, one decoder, and `build`, the only place that asks which architecture."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from antiphon.config import ModelConfig
from antiphon.ids import PAD
from antiphon.model.attention import RecurrentAttention, SelfAttention
from antiphon.model.copying import Copying
from antiphon.model.dropout import Dropout, Noise
from antiphon.model.layers import Memory, TokenEmbedding
from antiphon.model.monotone import MonotoneAttention
from antiphon.model.positions import Positions, RelativePositions, RotaryPositions, SinusoidalPositions
from antiphon.model.recurrent import SSRU, RecurrentDecoder, RecurrentEncoder
from antiphon.model.state import DecodeState
from antiphon.model.transformer import DecoderLayer, EncoderLayer, TransformerDecoder, TransformerEncoder


class Encoder(Protocol):
    """Turns a source into a memory."""

    def __call__(self, source: Tensor, mask: Tensor) -> Memory:
        """source (B, S) ids, mask (B, S) -> Memory."""


class Decoder(Protocol):
    """Predicts a target from a memory: all of it with teacher forcing, or word by word.

    output: the weights (V, D) that turn features into logits. head: a layer that does so in their place, or None.
    copying: None, or what makes log-probabilities of logits by adding those of copied tokens. monotone: None, or what
    makes log-probabilities of features, by a sum over the places of the source.
    """

    output: Tensor
    head: nn.Module | None
    copying: Copying | None
    monotone: MonotoneAttention | None

    def features(self, memory: Memory, target_in: Tensor) -> Tensor:
        """target_in (B, T) -> (B, T, D)."""

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""

    def start(self, memory: Memory) -> DecodeState:
        """One row for each source."""

    def step(self, state: DecodeState, tokens: Tensor) -> Tensor:
        """tokens (N,) -> logits (N, V)."""


class Seq2Seq(nn.Module):
    """An encoder and a decoder. Sources end with EOS; padding is told by a mask, or by lengths."""

    encoder: Encoder
    decoder: Decoder

    def __init__(self, encoder: nn.Module, decoder: nn.Module, noise: Noise) -> None:
        super().__init__()
        self.add_module("encoder", encoder)
        self.add_module("decoder", decoder)
        self.noise = noise

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def output(self) -> Tensor:
        """The output weights (V, D)."""
        return self.decoder.output

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, source: Tensor, source_mask: Tensor, target_in: Tensor) -> Tensor:
        """Teacher forcing: source (B, S), source_mask (B, S), target_in (B, T) -> logits (B, T, V)."""
        return self.predict(self.encoder(source, source_mask), target_in)

    def predict(self, memory: Memory, target_in: Tensor) -> Tensor:
        """Teacher forcing after a memory: target_in (B, T) -> logits (B, T, V); log-probabilities, if it copies or is
        monotone."""
        features = self.decoder.features(memory, target_in)
        if self.decoder.monotone is not None:
            log_probs: Tensor = self.decoder.monotone(features, memory, target_in, self.decoder.logits)
            return log_probs
        logits, copying = self.decoder.logits(features), self.decoder.copying
        return logits if copying is None else copying.mix(logits, features, copying.kept(memory))

    def teacher_forced(self, sources: Sequence[Sequence[int]], target_in: Tensor) -> Tensor:
        """Token ids, each source ending with EOS, and target_in (B, T) -> logits (B, T, V)."""
        return self.predict(self.encode(sources), target_in)

    def start(self, sources: Sequence[Sequence[int]]) -> DecodeState:
        """Encodes sources of token ids, each ending with EOS, and starts a row for each."""
        return self.decoder.start(self.encode(sources))

    def encode(self, sources: Sequence[Sequence[int]]) -> Memory:
        """Token ids, each source ending with EOS -> Memory."""
        longest = max(len(source) for source in sources)
        padded = torch.tensor([[*source, *[PAD] * (longest - len(source))] for source in sources], device=self.device)
        lengths = torch.tensor([len(source) for source in sources], device=self.device)
        return self.encoder(padded, torch.arange(longest, device=self.device) < lengths.unsqueeze(1))

    def step(self, state: DecodeState, tokens: Sequence[int]) -> Tensor:
        """The last token of each row -> logits (N, V)."""
        return self.decoder.step(state, torch.tensor(tokens, device=self.device))


def build(config: ModelConfig, source_vocab: int, target_vocab: int, joint: bool, seed: int = 0) -> Seq2Seq:
    """A new model with random weights.

    joint: the two sides share one vocabulary, so with tied embeddings they share one table too.
    """
    torch.manual_seed(seed)
    noise = Noise(seed)
    dropout = Dropout(config.dropout, noise)
    target = TokenEmbedding(target_vocab, config.d_model)
    source = target if joint and config.tie_embeddings else TokenEmbedding(source_vocab, config.d_model)
    output = target.weight
    if not config.tie_embeddings:
        output = nn.Parameter(torch.empty_like(target.weight).normal_(std=config.d_model**-0.5))
    model = Seq2Seq(_encoder(config, source, dropout), _decoder(config, target, output, dropout), noise)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
        elif parameter.dim() == 2 and not any(parameter is table for table in (source.weight, target.weight, output)):
            nn.init.xavier_uniform_(parameter)
    return model


def _encoder(config: ModelConfig, embedding: TokenEmbedding, dropout: Dropout) -> nn.Module:
    if config.encoder != "transformer":
        return RecurrentEncoder(embedding, config.encoder, config.encoder_layers, config.bidirectional, dropout)
    layers = [
        EncoderLayer(config.d_model, config.num_heads, config.d_ff, config.feed_forward, dropout)
        for _ in range(config.encoder_layers)
    ]
    return TransformerEncoder(embedding, _positions(config, causal=False), layers, dropout)


def _decoder(config: ModelConfig, embedding: TokenEmbedding, output: Tensor, dropout: Dropout) -> nn.Module:
    copying = Copying(config.d_model) if config.copying else None
    if config.decoder not in ("transformer", "ssru"):
        soft = config.attention in ("additive", "dot")
        attention = RecurrentAttention(config.d_model, config.attention) if soft else None
        monotone = MonotoneAttention(config.d_model, dropout) if config.attention == "monotone" else None
        return RecurrentDecoder(
            embedding,
            config.decoder,
            config.decoder_layers,
            attention,
            config.input_feeding,
            output,
            copying,
            monotone,
            dropout,
        )
    shape = (config.d_model, config.num_heads, config.d_ff, config.feed_forward)
    layers = [
        DecoderLayer(SSRU(shape[0]) if config.decoder == "ssru" else SelfAttention(*shape[:2]), *shape, dropout)
        for _ in range(config.decoder_layers)
    ]
    return TransformerDecoder(embedding, _positions(config, causal=True), layers, output, copying, dropout)


def _positions(config: ModelConfig, causal: bool) -> Positions:
    if config.positions == "sinusoidal":
        return SinusoidalPositions(config.d_model)
    if config.positions == "rotary" or (causal and config.decoder == "ssru"):  # which knows the order by itself
        return RotaryPositions(config.d_model // config.num_heads)
    return RelativePositions(config.num_heads, causal)
