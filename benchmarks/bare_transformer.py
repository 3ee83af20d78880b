"""What people write when they have torch and an afternoon: `nn.Transformer` as it comes, in a plain loop.

Post-norm, ReLU, dropout also on attention weights (nn.Transformer's defaults), sinusoidal positions, one
table for both embeddings and the output, full logits, `F.cross_entropy`, fused AdamW, autocast for bfloat16.
Decoding reads the whole prefix again for each new token: nn.Transformer has no cache.
"""

import math
import warnings
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.config import ModelConfig
from antiphon.data.batches import Batch
from antiphon.ids import BOS, EOS, PAD

LONGEST = 512
warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")  # nn.Transformer's own doing


class BareTransformer(nn.Module):
    def __init__(self, shape: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, shape.d_model, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=shape.d_model**-0.5)
        rates = torch.exp(torch.arange(0, shape.d_model, 2) * (-math.log(10000.0) / shape.d_model))
        angles = torch.arange(LONGEST).unsqueeze(1) * rates
        self.register_buffer("waves", torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1))
        self.dropout = nn.Dropout(shape.dropout)
        self.layers = nn.Transformer(
            shape.d_model,
            shape.num_heads,
            shape.encoder_layers,
            shape.decoder_layers,
            shape.d_ff,
            shape.dropout,
            batch_first=True,
        )

    def embed(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * self.embedding.weight.shape[1] ** 0.5
        return self.dropout(x + self.waves[: ids.shape[1]])

    def forward(self, source: Tensor, target_in: Tensor) -> Tensor:
        """source (B, S), target_in (B, T) -> logits (B, T, V)."""
        padding = source == PAD
        out = self.layers(
            self.embed(source),
            self.embed(target_in),
            tgt_mask=later(target_in.shape[1]),
            src_key_padding_mask=padding,
            tgt_key_padding_mask=target_in == PAD,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return F.linear(out, self.embedding.weight)


def later(length: int) -> Tensor:
    """(T, T), True = comes later."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def train_steps(
    model: BareTransformer, batches: Iterator[Batch], precision: str, rate: float, clip: float
) -> Iterator[int]:
    """One update for each batch; yields its target tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    model.train()
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(batch.source, batch.target_in)
            loss = F.cross_entropy(
                logits.flatten(0, 1), batch.target_out.flatten(), ignore_index=PAD, label_smoothing=0.1
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        loss.item()
        yield batch.num_target_tokens


def learn_as_published(model: BareTransformer, batches: Iterator[Batch]) -> Iterator[int]:
    """As fairseq's transformer_tiny was trained on Multi30k (Wu et al. 2021): one update for each batch; yields its
    target tokens. Dropout is between layers alone."""
    for part in model.layers.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
        elif isinstance(part, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            part.dropout = nn.Identity()
    warmup, highest = 2000, 5e-3
    optimizer = torch.optim.Adam(model.parameters(), lr=highest, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (warmup / (step + 1)) ** 0.5)
    )
    for batch in batches:
        model.train()
        logits = model(batch.source, batch.target_in)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.target_out.flatten(), ignore_index=PAD, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield batch.num_target_tokens


def translate(model: BareTransformer, sources: Sequence[Sequence[int]], together: int = 128) -> list[list[int]]:
    """The greedy outputs of sources of ids, in their order; cut at twice their length and ten more."""
    model.eval()
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    found: dict[int, list[int]] = {}
    for start in range(0, len(order), together):
        chosen = order[start : start + together]
        longest = 2 * max(len(sources[index]) for index in chosen) + 10
        for index, tokens in zip(
            chosen, greedy(model, [sources[i] for i in chosen], longest, True).tolist(), strict=True
        ):
            found[index] = tokens[: tokens.index(EOS)] if EOS in tokens else tokens
    return [found[index] for index in range(len(sources))]


@torch.inference_mode()
def greedy(model: BareTransformer, sources: Sequence[Sequence[int]], length: int, ends: bool = False) -> Tensor:
    """Sources of ids -> (B, length) tokens; no output ends before, or with `ends` when all have."""
    padded = nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in sources], batch_first=True, padding_value=PAD)
    padding = padded == PAD
    memory = model.layers.encoder(model.embed(padded), src_key_padding_mask=padding)
    tokens = torch.full((len(sources), 1), BOS)
    for _ in range(length):
        out = model.layers.decoder(
            model.embed(tokens), memory, tgt_mask=later(tokens.shape[1]), memory_key_padding_mask=padding
        )
        logits = F.linear(out[:, -1], model.embedding.weight)
        if not ends:
            logits[:, EOS] = -torch.inf
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
        if ends and bool((tokens == EOS).any(1).all()):
            break
    return tokens[:, 1:]
