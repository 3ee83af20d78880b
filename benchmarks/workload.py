"""What is measured: the sizes of the models, and pairs of token ids to feed them.

Pairs are real (multi30k English-German, one vocabulary of 8,000 pieces) where the data lies at hand; else
they are made up: random ids, with lengths like theirs. They travel to the contenders in a file of ids.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from antiphon.config import Config, ModelConfig, TokenizerConfig, load_config
from antiphon.data.batches import EncodedPairs
from antiphon.data.pairs import read_pairs
from antiphon.model.seq2seq import Seq2Seq, build
from antiphon.tokenizer import TokenizerPair, train_tokenizers

VOCABULARY = 8000
MADE_UP_PAIRS = 20_000
MAX_LENGTH = 256
SIZES = {
    "small": ("d_model=256", "d_ff=1024", "num_heads=4", "encoder_layers=3", "decoder_layers=3"),
    "base": ("d_model=512", "d_ff=2048", "num_heads=8", "encoder_layers=6", "decoder_layers=6"),
}
RECURRENT = ("encoder=gru", "decoder=gru", "encoder_layers=1", "decoder_layers=1")


def config(size: str, kind: str, batch_tokens: int, precision: str) -> Config:
    """A contender's settings: Antiphon's defaults but for what is named. kind: transformer or recurrent."""
    shape = [*SIZES[size], *(RECURRENT if kind == "recurrent" else ())]
    words = [f"model.{word}" for word in (*shape, "dropout=0.1")]
    words += [f"training.batch_tokens={batch_tokens}", f"training.precision={precision}"]
    return load_config(None, None, words)


def network(model: ModelConfig) -> Seq2Seq:
    return build(model, VOCABULARY, VOCABULARY, joint=True, seed=1)


def write_ids(folder: Path, file: Path) -> str:
    """Writes the pairs as ids; says in words which pairs they are."""
    if (folder / "train.en.gz").exists():
        pairs = read_pairs([folder / "train.en.gz", folder / "train.de.gz"])
        tokenizers = train_tokenizers(pairs, TokenizerConfig(source="bpe", target="bpe", vocab_size=VOCABULARY))
        sources, targets = (
            list(side.encode_batch(pair[index] for pair in pairs))
            for index, side in enumerate((tokenizers.source, tokenizers.target))
        )
        told = f"multi30k en-de from {folder}, joint byte-level BPE of {VOCABULARY}"
    else:
        sources, targets = _made_up()
        told = f"MADE UP: random ids, lengths like multi30k's (nothing found in {folder})"
    lines = [f"{_words(source)}\t{_words(target)}\n" for source, target in zip(sources, targets, strict=True)]
    file.write_text("".join(lines), encoding="utf-8")
    lengths = [float(np.mean([len(ids) for ids in side])) for side in (sources, targets)]
    return f"{told}; {len(lines):,} pairs of {lengths[0]:.1f} and {lengths[1]:.1f} tokens"


def read_ids(file: Path) -> EncodedPairs:
    return EncodedPairs(read_pairs(file), TokenizerPair(_Ids(), _Ids()), MAX_LENGTH)  # type: ignore[arg-type]


def flops_per_target_token(model: Seq2Seq, shape: ModelConfig, data: EncodedPairs) -> float:
    """Floating-point operations that training needs a target token, padding not counted, mean over the data.

    6 for each weight of a matrix and token it is applied to (2 forward, 4 backward): the encoder's and the
    projections of the memory to source tokens, the others and the output weights to target tokens.
    Attention of transformers: 12 x width for each query and key (two products, forward and twice
    backward), the whole square also where it is causal.
    """
    weights = {"source": 0, "target": model.output.numel()}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embedding" not in name and parameter is not model.output:
            of_source = name.startswith("encoder.") or ".cross.memory." in name or ".attention.key." in name
            weights["source" if of_source else "target"] += parameter.numel()
    source, target = (side.lengths.astype(float) for side in (data.sources, data.targets))
    total = 6 * (weights["source"] * source.sum() + weights["target"] * target.sum())
    if shape.encoder == "transformer":
        total += 12 * shape.d_model * shape.encoder_layers * (source**2).sum()
    if shape.decoder == "transformer":
        total += 12 * shape.d_model * shape.decoder_layers * (target**2 + source * target).sum()
    return float(total / target.sum())


class _Ids:
    """Stands in for a tokenizer: its text is ids already."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[int(word) for word in text.split()] for text in texts]


def _words(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def _made_up() -> tuple[list[list[int]], list[list[int]]]:
    generator = np.random.default_rng(1)
    lengths = np.clip(generator.lognormal(2.6, 0.35, MADE_UP_PAIRS), 3, 60).astype(int)
    others = np.clip(lengths * generator.normal(1.05, 0.15, MADE_UP_PAIRS), 3, 80).astype(int)
    sides = [[generator.integers(4, VOCABULARY, n).tolist() for n in side] for side in (lengths, others)]
    return sides[0], sides[1]
