"""Every setting, as frozen records that check themselves.

A `Config` is made of tables (`[tokenizer]`, `[model]`, `[training]`, `[generation]`). It comes from a preset, a TOML
file over it, and `table.key=value` words over both. A value of "auto" is decided from the data when training begins;
what was decided is stored with the model. This file knows no tensors and opens no data.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

TokenizerKind = Literal["auto", "bpe", "unigram", "bytes", "chars", "words"]
Normalization = Literal["none", "NFC", "NFD", "NFKC"]
TrainingPrecision = Literal["auto", "float32", "bfloat16"]
Architecture = Literal["transformer", "gru", "lstm"]
MetricName = Literal["auto", "loss", "bleu", "chrf", "exact_match", "wer", "per", "char_bleu", "ter"]

Layer = tuple[str, Mapping[str, Any]]  # where settings come from, and what they are, table by table


class Table(BaseModel):
    """A group of settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TokenizerConfig(Table):
    """How text becomes token ids."""

    source: TokenizerKind = Field("auto", description="how the source is cut into tokens")
    target: TokenizerKind = Field("auto", description="how the target is cut into tokens")
    joint: bool | Literal["auto"] = Field("auto", description="one vocabulary for both sides")
    vocab_size: int = Field(8000, ge=8, description="size of a bpe or unigram vocabulary, at most")
    source_normalization: Normalization = Field("none", description="Unicode form the source is brought to")
    target_normalization: Normalization = Field("none", description="Unicode form the target is learned in")


class ModelConfig(Table):
    """The shape of the encoder-decoder."""

    encoder: Architecture = Field("transformer", description="kind of encoder")
    decoder: Architecture | Literal["ssru"] = Field(
        "transformer", description="kind of decoder; ssru: a transformer with a recurrence for its self-attention"
    )
    attention: Literal["additive", "dot", "monotone", "none"] = Field(
        "additive",
        description="how a recurrent decoder looks at the source; monotone: at places that only move forward, for "
        "spellings and sounds; none: through one vector",
    )
    input_feeding: bool = Field(
        True, description="tell a recurrent decoder what it attended to one step before; not where that is monotone"
    )
    bidirectional: bool = Field(True, description="a recurrent encoder reads in both directions")
    d_model: int = Field(256, ge=2, description="width of embeddings and layers")
    d_ff: int = Field(1024, ge=1, description="width inside a feed-forward layer")
    num_heads: int = Field(4, ge=1, description="attention heads of a transformer layer")
    encoder_layers: int = Field(3, ge=1, description="depth of the encoder")
    decoder_layers: int = Field(3, ge=1, description="depth of the decoder")
    positions: Literal["sinusoidal", "rotary", "relative"] = Field(
        "rotary", description="how a transformer knows the order of tokens"
    )
    feed_forward: Literal["gelu", "gated"] = Field("gelu", description="kind of feed-forward layer")
    tie_embeddings: bool = Field(
        True, description="output weights are the target embeddings; a joint vocabulary shares all"
    )
    copying: bool = Field(False, description="tokens of the source may be copied; needs tokenizer.joint")
    dropout: float = Field(0.1, ge=0.0, le=0.99, description="share of activations dropped while training")

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        if self.attention == "monotone" and self.decoder not in ("gru", "lstm"):
            raise ValueError(
                f"attention 'monotone' is for decoders of gru or lstm, not {self.decoder}; set decoder, or another "
                "attention"
            )
        if self.attention == "monotone" and self.copying:
            raise ValueError("a decoder with monotone attention cannot copy; set copying to false, or attention to dot")
        if self.encoder != "transformer" and self.bidirectional and self.d_model % 2:
            raise ValueError(
                f"d_model ({self.d_model}) must be even for an encoder that reads in both directions, half of it each; "
                "change it, or set bidirectional to false"
            )
        if {"transformer", "ssru"} & {self.encoder, self.decoder}:
            if self.d_model % self.num_heads:
                raise ValueError(
                    f"d_model ({self.d_model}) must be a multiple of num_heads ({self.num_heads}); change one of them"
                )
            if self.positions == "rotary" and (self.d_model // self.num_heads) % 2:
                raise ValueError(
                    f"rotary positions need an even head width, but d_model / num_heads is "
                    f"{self.d_model // self.num_heads}; change one of them, or set positions to another kind"
                )
        return self


class TrainingConfig(Table):
    """How the weights are learned, and for how long."""

    batch_tokens: int = Field(4096, ge=1, description="tokens of a batch on its longer side, padding included")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are summed for one update")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate")
    schedule: Literal["cosine", "inverse_sqrt", "constant"] = Field("cosine", description="learning rate after warm-up")
    warmup_steps: int = Field(400, ge=0, description="updates over which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay, on matrices")
    beta2: float = Field(0.98, gt=0, lt=1, description="AdamW's memory of squared gradients")
    clip_norm: float = Field(1.0, ge=0, description="longest gradient; 0: no limit")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability spread over all tokens")
    max_steps: int = Field(10000, ge=0, description="stop after so many updates; 0: no limit")
    max_epochs: float = Field(0, ge=0, description="stop after so many passes over the data; 0: no limit")
    max_minutes: float = Field(0, ge=0, description="stop after so many minutes of training; 0: no limit")
    validations: int = Field(
        20,
        ge=1,
        description="validations over the whole training, evenly spaced; fewer where they would take over a tenth of "
        "max_minutes",
    )
    eval_pairs: int = Field(500, ge=1, description="dev sources decoded for the metric at a validation, at most")
    metric: MetricName = Field("auto", description="what decides which checkpoint is best")
    patience: int = Field(10, ge=0, description="validations without a gain before stopping; 0: never")
    average: int = Field(5, ge=1, description="last checkpoints averaged at the end; 1: none")
    max_length: int = Field(256, ge=1, description="pairs with more tokens on a side are left out, and counted")
    swap_words: float = Field(
        0.0, ge=0, le=1, description="share of pairs in which a word becomes another; both are pairs by themselves"
    )
    own_tokens: bool = Field(
        False,
        description="beginning from another run: take the tokens of its own pairs, not that run's; of those that "
        "both have, what was learned stays",
    )
    dev_pairs: int = Field(
        1000, ge=1, description="pairs set aside when no dev set is given, at most; never over a tenth"
    )
    precision: TrainingPrecision = Field("auto", description="auto: the faster one, timed at the start")
    device: str = Field("auto", description="auto: a GPU where there is one, else the processor")
    seed: int = Field(1, ge=0, lt=2**64, description="seed of the weights, the order of the data and dropout")

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if not (self.max_steps or self.max_epochs or self.max_minutes):
            raise ValueError("training has no limit; set max_steps, max_epochs or max_minutes")
        return self


class GenerationConfig(Table):
    """How outputs are searched for; each request may set its own."""

    beam_size: int = Field(1, ge=1, description="hypotheses kept at each step; 1: greedy")
    n_best: int = Field(1, ge=1, description="outputs for each source")
    length_penalty: float = Field(1.0, ge=0, le=10, description="scores are divided by length to this power")
    min_length: int = Field(0, ge=0, description="tokens before an output may end")
    max_length: int = Field(0, ge=0, description="tokens after which an output is cut; 0: from the source's length")
    no_repeat_ngram: int = Field(0, ge=0, description="no run of so many tokens twice in an output; 0: no limit")
    sample: bool = Field(False, description="draw tokens at random instead of searching")
    temperature: float = Field(1.0, ge=0.01, description="sampling: below 1 sharpens, above 1 flattens")
    top_k: int = Field(0, ge=0, description="sampling: only the k most probable tokens; 0: all")
    top_p: float = Field(
        1.0, gt=0, le=1, description="sampling: only the most probable tokens with this probability in sum"
    )
    seed: int = Field(0, ge=0, description="sampling: the same seed gives the same output")

    @model_validator(mode="after")
    def _check_n_best(self) -> Self:
        if not self.sample and self.n_best > self.beam_size:
            raise ValueError(
                f"n_best ({self.n_best}) is larger than beam_size ({self.beam_size}): a beam of {self.beam_size} finds "
                f"{self.beam_size} at most; raise beam_size, or sample"
            )
        if self.max_length and self.min_length > self.max_length:
            raise ValueError(f"min_length ({self.min_length}) is larger than max_length ({self.max_length})")
        return self


class Config(Table):
    """All settings of a run. Raises ValueError, in a sentence, for a value that cannot be."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    generation: GenerationConfig = GenerationConfig()

    @model_validator(mode="after")
    def _check_copying(self) -> Self:
        if self.model.copying and self.tokenizer.joint is not True:
            raise ValueError("model.copying needs one vocabulary for both sides; set tokenizer.joint to true")
        return self


QUICK_MINUTES = 30  # up to which a training gets the preset `recurrent`

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "tokenizer": {"vocab_size": 2000},
        "model": {"d_model": 256, "d_ff": 512, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.3},
        "training": {"batch_tokens": 1024, "max_steps": 4000, "warmup_steps": 200},
    },
    "small": {
        "model": {"d_model": 256, "d_ff": 1024, "encoder_layers": 3, "decoder_layers": 3, "dropout": 0.1},
        "training": {"batch_tokens": 2048, "max_steps": 12000},
    },
    "base": {
        "model": {"d_model": 512, "d_ff": 2048, "num_heads": 8, "encoder_layers": 6, "decoder_layers": 6},
        "training": {"learning_rate": 5e-4, "max_steps": 50000, "warmup_steps": 4000},
    },
    "fast": {
        "model": {
            "d_model": 512,
            "d_ff": 2048,
            "num_heads": 8,
            "encoder_layers": 3,
            "decoder": "ssru",
            "decoder_layers": 1,
        },
        "training": {"learning_rate": 5e-4, "max_steps": 50000, "warmup_steps": 4000},
    },
    "recurrent": {
        "model": {
            "encoder": "gru",
            "decoder": "gru",
            "attention": "dot",
            "input_feeding": False,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "dropout": 0.1,
        },
        "training": {"batch_tokens": 640, "learning_rate": 1.5e-3, "max_steps": 20000, "warmup_steps": 200},
    },
}


def preset_for(num_pairs: int, minutes: float = 0) -> str:
    """The name of the preset that suits a training set of `num_pairs` pairs, and a training of so many minutes (0: as
    long as it takes). A recurrent model is the better one until a transformer has had the time to catch up."""
    if 0 < minutes <= QUICK_MINUTES:
        return "recurrent"
    if num_pairs < 30_000:
        return "tiny"
    return "small" if num_pairs < 1_000_000 else "base"


def load_config(preset: str | None, file: Path | None, overrides: Iterable[str] = ()) -> Config:
    """Settings of a preset (None: defaults), with a TOML file over it and `table.key=value` words over both.

    Raises ValueError with a sentence that names the file or word at fault and the nearest known key.
    """
    layers: list[Layer] = []
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(
                f"preset {preset!r} is not known{_nearest(preset, PRESETS)}; there are {', '.join(PRESETS)}."
            )
        layers.append((f"preset {preset}", PRESETS[preset]))
    if file is not None:
        layers.append((str(file), _read_toml(file)))
    return _layered({}, [*layers, *(_override(word) for word in overrides)])


def with_overrides(config: Config, words: Iterable[str], file: Path | None = None) -> Config:
    """`config` with a TOML file over it and `table.key=value` words over both.

    Raises ValueError with a sentence that names the file or word at fault.
    """
    layers: list[Layer] = [] if file is None else [(str(file), _read_toml(file))]
    return _layered(config.model_dump(), [*layers, *(_override(word) for word in words)])


def changed(config: Config, overrides: Mapping[str, Any], place: str = "settings") -> Config:
    """`config` with some values replaced, checked again. Raises ValueError, with the `place` they come from."""
    return _checked(_merge(config.model_dump(), overrides), place)


def generation_settings(base: GenerationConfig, **settings: Any) -> GenerationConfig:
    """`base` with the settings that are not None replaced, checked again. Raises ValueError."""
    values = base.model_dump() | {key: value for key, value in settings.items() if value is not None}
    try:
        return GenerationConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(_explain(error, "generation settings", GenerationConfig)) from None


def _layered(tables: Mapping[str, Any], layers: Sequence[Layer]) -> Config:
    """`tables` with the layers over them. It is the whole that must be right; if it is not, the error names the first
    layer that made it so."""
    whole = tables
    for _, layer in layers:
        whole = _merge(whole, layer)
    wrong = _errors(whole)
    if wrong is None:
        return Config.model_validate(whole)
    for place, layer in layers:
        tables = _merge(tables, layer)
        found = _errors(tables)
        if found and _signature(wrong)[0] in _signature(found):
            raise ValueError(_explain(wrong, place, Config))
    raise AssertionError("the last layer makes the whole")


def _errors(tables: Mapping[str, Any]) -> ValidationError | None:
    try:
        Config.model_validate(tables)
    except ValidationError as error:
        return error
    return None


def _signature(error: ValidationError) -> list[tuple[Any, str]]:
    """What is wrong, and where, of each."""
    return [(one["loc"], one["msg"]) for one in error.errors()]


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of both, the second over the first; what should have been a table stays, to be refused."""
    merged = dict(under)
    for name, table in over.items():
        old = merged.get(name, {})
        if isinstance(table, Mapping) and isinstance(old, Mapping):
            merged[name] = {**old, **table}
        elif not isinstance(table, Mapping):
            merged[name] = table
    return merged


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{file}: there is no such file; give the path of a TOML file of settings.") from None
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 (byte {error.start}); save the file as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: not valid TOML: {error}.") from None


def _override(word: str) -> Layer:
    name, equals, text = word.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and table and key):
        raise ValueError(f"--set {word}: expected table.key=value, for example --set model.d_model=128.")
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = text.strip()
    return f"--set {word}", {table: {key: value}}


def _checked(tables: Mapping[str, Any], place: str) -> Config:
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        raise ValueError(_explain(error, place, Config)) from None


def _explain(error: ValidationError, place: str, record: type[Table]) -> str:
    """The first thing that is wrong, as a sentence with its place and what to do."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path[: 1 if record is not Config else 2])  # what follows is a choice within a union
    if first["type"] == "extra_forbidden":
        owner: Any = record
        for part in path[:-1]:
            owner = owner.model_fields[part].annotation
        known = list(owner.model_fields)
        return f"{place}: setting {name!r} is not known{_nearest(path[-1], known)}; there are {', '.join(known)}."
    what = first["msg"].removeprefix("Value error, ")
    what = what[0].lower() + what[1:]
    if first["type"] == "value_error":
        return f"{place}: {what}."
    return f"{place}: setting {name!r} is {first['input']!r}: {what}."


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
