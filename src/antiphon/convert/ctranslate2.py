"""A model as CTranslate2 runs it: model.bin, its config.json, the vocabularies as lists of token names, the tokenizers.

`Translator.translate_batch` takes the names of a source's tokens and adds their EOS itself; it starts from BOS and ends
at EOS. Weights are stored in float32; the runtime makes int8 of them when asked. Its search is not ours: it may choose
PAD, UNK and BOS unless told not to (`suppress_sequences`), forbids an empty output unless `min_decoding_length` is 0,
and ends a beam when as many hypotheses have ended as it is wide (`patience` times).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antiphon import files, tokenizer
from antiphon.config import ModelConfig
from antiphon.ids import BOS, EOS, UNK
from antiphon.run import Model
from antiphon.tokenizer import SPECIAL_TOKENS, Tokenizer

NORM_EPSILON = 1e-5  # that of torch's LayerNorm


def export(model: Model, out: Path) -> None:
    """Writes the folder that `ctranslate2.Translator` loads. Raises ValueError for a model that it cannot run."""
    _check(model.config.model)
    spec = _describe(model.config.model)
    parameters = model.network.named_parameters(remove_duplicate=False)
    tensors = {name: parameter.detach().float().cpu() for name, parameter in parameters}
    _fill_encoder(spec.encoder, tensors)
    _fill_decoder(spec.decoder, tensors)
    if model.config.model.positions == "relative":
        _fill_relative(spec.encoder, tensors["encoder.positions.table.weight"], model.network.encoder)
        _fill_relative(spec.decoder, tensors["decoder.positions.table.weight"], model.network.decoder)
    spec.register_source_vocabulary(_names(model.tokenizers.source))
    spec.register_target_vocabulary(_names(model.tokenizers.target))
    spec.config.unk_token = SPECIAL_TOKENS[UNK]
    spec.config.bos_token = spec.config.decoder_start_token = SPECIAL_TOKENS[BOS]
    spec.config.eos_token = SPECIAL_TOKENS[EOS]
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = NORM_EPSILON
    spec.validate()
    spec.optimize()
    with files.new_folder(out) as folder:
        spec.save(str(folder))
        tokenizer.save(model.tokenizers, folder)


def _check(config: ModelConfig) -> None:
    for side, found in (("encoder", config.encoder), ("decoder", config.decoder)):
        if found != "transformer":
            raise ValueError(
                f"model.{side} is {found}, but CTranslate2 runs transformers only; train with "
                f"--set model.{side}=transformer to export."
            )
    if config.copying:
        raise ValueError(
            "model.copying is true, but CTranslate2's decoders only generate; train with --set model.copying=false to "
            "export."
        )
    if config.positions == "sinusoidal" and (config.d_model % 2 or config.d_model < 4):
        raise ValueError(
            f"model.d_model is {config.d_model}, but the sinusoidal positions of CTranslate2 need an even one, 4 at "
            "least; train with such a one to export."
        )


def _names(side: Tokenizer) -> list[str]:
    """The names of all tokens, by id."""
    return sorted(side.vocabulary, key=side.vocabulary.__getitem__)


def _describe(config: ModelConfig) -> Any:
    """A TransformerSpec without weights. Sinusoidal positions need none: those of the runtime are ours."""
    try:
        from ctranslate2 import specs
    except ImportError:
        raise ValueError(
            'The package ctranslate2 is not installed, and its format needs it; pip install "antiphon[ctranslate2]".'
        ) from None
    shape: dict[str, Any] = {
        "num_heads": config.num_heads,
        "activation": specs.common_spec.Activation.GELU,
        "ffn_glu": config.feed_forward == "gated",
        "relative_attention_bias": config.positions == "relative",
    }
    if config.positions == "rotary":
        shape |= {"rotary_dim": config.d_model // config.num_heads, "rotary_interleave": False}
    return specs.TransformerSpec(
        specs.TransformerEncoderSpec(config.encoder_layers, **shape),
        specs.TransformerDecoderSpec(config.decoder_layers, **shape),
    )


def _fill_encoder(spec: Any, tensors: dict[str, Tensor]) -> None:
    spec.embeddings[0].weight = tensors["encoder.embedding.weight"]
    for number, layer in enumerate(spec.layer):
        _fill_layer(layer, tensors, f"encoder.layers.{number}")
    _fill_norm(spec.layer_norm, tensors, "encoder.norm")


def _fill_decoder(spec: Any, tensors: dict[str, Tensor]) -> None:
    spec.embeddings.weight = tensors["decoder.embedding.weight"]
    for number, layer in enumerate(spec.layer):
        name = f"decoder.layers.{number}"
        _fill_layer(layer, tensors, name)
        _fill_norm(layer.attention.layer_norm, tensors, f"{name}.cross_norm")
        for linear, part in zip(layer.attention.linear, ("query", "memory", "output"), strict=True):
            _fill_linear(linear, tensors, f"{name}.cross.{part}")
    _fill_norm(spec.layer_norm, tensors, "decoder.norm")
    spec.projection.weight = tensors["decoder.output"]


def _fill_layer(spec: Any, tensors: dict[str, Tensor], name: str) -> None:
    """What layers of encoders and decoders have both."""
    _fill_norm(spec.self_attention.layer_norm, tensors, f"{name}.attention_norm")
    for linear, part in zip(spec.self_attention.linear, ("project", "output"), strict=True):
        _fill_linear(linear, tensors, f"{name}.attention.{part}")
    _fill_norm(spec.ffn.layer_norm, tensors, f"{name}.feed_forward_norm")
    if hasattr(spec.ffn, "linear_0_noact"):
        for kind in ("weight", "bias"):
            gate, other = tensors[f"{name}.feed_forward.inner.{kind}"].chunk(2)
            setattr(spec.ffn.linear_0, kind, gate)
            setattr(spec.ffn.linear_0_noact, kind, other)
    else:
        _fill_linear(spec.ffn.linear_0, tensors, f"{name}.feed_forward.inner")
    _fill_linear(spec.ffn.linear_1, tensors, f"{name}.feed_forward.outer")


def _fill_linear(spec: Any, tensors: dict[str, Tensor], name: str) -> None:
    spec.weight, spec.bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _fill_norm(spec: Any, tensors: dict[str, Tensor], name: str) -> None:
    spec.gamma, spec.beta = tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _fill_relative(spec: Any, table: Tensor, side: Any) -> None:
    """One table (buckets, H) for all layers of a side."""
    for layer in spec.layer:
        layer.self_attention.relative_attention_bias = table
        distance = torch.tensor(side.positions.max_distance, dtype=torch.int32)
        layer.self_attention.relative_attention_max_distance = distance
