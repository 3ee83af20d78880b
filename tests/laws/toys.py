"""Models small enough to be checked in milliseconds: all architectures with random weights, and a mock."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from antiphon.config import Config, ModelConfig
from antiphon.data.pairs import Pair
from antiphon.ids import BOS, EOS
from antiphon.model.ensemble import Ensemble
from antiphon.model.seq2seq import Seq2Seq, build
from antiphon.run import Model
from antiphon.text_side import Facts, TextSide
from antiphon.tokenizer import train_tokenizers

VOCAB = 11
POSITIONS = ("rotary", "relative", "sinusoidal")
RECURRENT = ("gru", "lstm")


def tiny(**settings: Any) -> ModelConfig:
    """A model of two layers, 16 wide."""
    small = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2}
    return ModelConfig.model_validate(small | settings)


def _architectures() -> dict[str, ModelConfig]:
    """Every encoder with every decoder, its attention, its input feeding, and the positions where needed."""
    decoders: dict[str, dict[str, Any]] = {name: {"decoder": name} for name in ("transformer", "ssru")}
    for kind in RECURRENT:
        decoders[f"{kind}-monotone"] = {"decoder": kind, "attention": "monotone"}
        for attention in ("additive", "dot"):
            for feeding in (True, False):
                name = f"{kind}-{attention}{'-feeding' if feeding else ''}"
                decoders[name] = {"decoder": kind, "attention": attention, "input_feeding": feeding}
        decoders[f"{kind}-none"] = {"decoder": kind, "attention": "none"}
    found = {}
    for encoder in ("transformer", *RECURRENT):
        for name, settings in decoders.items():
            for positions in POSITIONS if "transformer" in (encoder, name) else ("rotary",):
                told = f"-{positions}" if "transformer" in (encoder, name) else ""
                found[f"{encoder}>{name}{told}"] = tiny(encoder=encoder, positions=positions, **settings)
    found["lstm-one-way>gru-additive-feeding"] = tiny(encoder="lstm", decoder="gru", bidirectional=False)
    found["transformer>transformer-gated-untied"] = tiny(feed_forward="gated", tie_embeddings=False)
    found["transformer>ssru-copying"] = tiny(decoder="ssru", copying=True)
    found["transformer>transformer-copying"] = tiny(copying=True)
    found["gru>lstm-copying"] = tiny(encoder="gru", decoder="lstm", copying=True)
    found["lstm>gru-none-copying"] = tiny(encoder="lstm", decoder="gru", attention="none", copying=True)
    return found


ARCHITECTURES = _architectures()
# One of each family, for what depends on the search and not on the architecture.
FAMILIES = (
    "transformer>transformer-rotary",
    "transformer>transformer-relative",
    "gru>lstm-additive-feeding",
    "lstm>gru-dot",
    "transformer>ssru-rotary",
    "transformer>ssru-copying",
    "gru>lstm-monotone",
    "lstm>gru-none",
)


@contextmanager
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@cache
def random_model(name: str, vocab: int = VOCAB, seed: int = 0) -> Seq2Seq:
    """An architecture in float64 with all weights random, biases and norms too."""
    with float64():
        model = build(ARCHITECTURES[name], vocab, vocab, ARCHITECTURES[name].copying, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.eval()


@cache
def random_ensemble(vocab: int = VOCAB) -> Ensemble:
    """A transformer, a recurrent model, and one without attention."""
    return Ensemble([random_model(name, vocab) for name in (FAMILIES[0], FAMILIES[2], FAMILIES[-1])])


def random_source(dice: random.Random, longest: int = 9, vocab: int = VOCAB) -> tuple[int, ...]:
    """1 to `longest` ids, the last of them EOS."""
    return (*(dice.randrange(4, vocab) for _ in range(dice.randrange(longest))), EOS)


class TableState:
    """Rows of a mock: each is its source and the tokens it has consumed."""

    keep_attention = False
    attention: Tensor | None = None

    def __init__(self, rows: list[tuple[int, ...]]) -> None:
        self.rows = rows
        self.lengths: list[int] = []  # asked for only where there is attention

    def select(self, rows: Sequence[int]) -> "TableState":
        return TableState([self.rows[row] for row in rows])

    def join(self, others: Sequence["TableState"]) -> "TableState":
        return TableState(self.rows + [row for other in others for row in other.rows])


class TableModel:
    """A model without weights: for every history of tokens, random logits of its own."""

    def __init__(self, vocab: int, seed: int = 0, spread: float = 1.5) -> None:
        self.vocab, self.seed, self.spread = vocab, seed, spread

    def start(self, sources: Sequence[Sequence[int]]) -> TableState:
        return TableState([tuple(source) for source in sources])

    def step(self, state: TableState, tokens: Sequence[int]) -> Tensor:
        state.rows = [(*row, token) for row, token in zip(state.rows, tokens, strict=True)]
        return torch.stack([self.logits(row) for row in state.rows])

    def logits(self, row: tuple[int, ...]) -> Tensor:
        dice = random.Random(f"{self.seed}/{row}")
        return torch.tensor([self.spread * dice.gauss() for _ in range(self.vocab)], dtype=torch.float64)


def forced_logits(model: Any, source: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """(T + 1, V): the logits before each of `tokens` and after the last, by teacher forcing, alone."""
    if isinstance(model, Ensemble):
        members = [forced_logits(member, source, tokens).softmax(-1) for member in model.members]
        return (sum(members[1:], members[0]) / len(members)).log()
    if isinstance(model, Seq2Seq):
        ids = torch.tensor([source])
        return model(ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor([[BOS, *tokens]]))[0]
    row, found = tuple(source), []
    for token in (BOS, *tokens):
        row = (*row, token)
        found.append(model.logits(row))
    return torch.stack(found)


def forced_log_probs(model: Any, source: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """(T,): the log-probability of each of `tokens`."""
    logits = forced_logits(model, source, tokens)[:-1]
    return logits.log_softmax(1).gather(1, torch.tensor(tokens).unsqueeze(1)).squeeze(1)


LETTERS = "a b c d e f g"


def facts(**values: Any) -> Facts:
    known = {
        "train_pairs": 10,
        "dev_pairs": 1,
        "empty_pairs": 0,
        "too_long_pairs": 0,
        "longest_source": 8,
        "longest_target": 8,
        "length_ratio": 1.0,
        "padding_share": 0.0,
        "fingerprint": "",
    }
    return Facts(**(known | values))


def word_model(name: str = FAMILIES[0], seed: int = 0) -> Model:
    """A random float64 model whose words are single letters, source and target."""
    config = Config.model_validate(
        {
            "tokenizer": {"source": "words", "target": "words", "joint": ARCHITECTURES[name].copying},
            "model": ARCHITECTURES[name].model_dump(),
        }
    )
    tokenizers = train_tokenizers([Pair(LETTERS, LETTERS)], config.tokenizer)
    assert tokenizers.source.vocab_size == VOCAB
    return Model([random_model(name, seed=seed)], TextSide(tokenizers, config, facts()))
