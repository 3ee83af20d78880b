"""A model as Hugging Face's transformers loads it: an M2M100 (pre-norm, as ours), with its tokenizer.

Plain files, written without that library: config.json, generation_config.json, model.safetensors, tokenizer.json and
tokenizer_config.json. `AutoTokenizer` ends sources with EOS; `generate` starts from BOS and never chooses PAD, UNK or
BOS. M2M100 knows one vocabulary, sinusoidal positions and plain feed-forward layers; any other model is refused.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from antiphon import files
from antiphon.decoding.rules import NEVER
from antiphon.ids import BOS, EOS, PAD, UNK
from antiphon.model.seq2seq import Seq2Seq
from antiphon.run import Model
from antiphon.tokenizer import SPECIAL_TOKENS, Tokenizer

NEEDED = {"encoder": "transformer", "decoder": "transformer", "positions": "sinusoidal", "feed_forward": "gelu"}

# The name of a part of a layer, and those of its equal shares there.
PARTS = {
    "attention_norm": ["self_attn_layer_norm"],
    "attention.project": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attention.output": ["self_attn.out_proj"],
    "cross_norm": ["encoder_attn_layer_norm"],
    "cross.query": ["encoder_attn.q_proj"],
    "cross.memory": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
    "cross.output": ["encoder_attn.out_proj"],
    "feed_forward_norm": ["final_layer_norm"],
    "feed_forward.inner": ["fc1"],
    "feed_forward.outer": ["fc2"],
}


def export(model: Model, out: Path) -> None:
    """Writes the folder that `from_pretrained` loads. Raises ValueError for a model that M2M100 cannot compute."""
    _check(model)
    backend = _ending_with_eos(model.tokenizers.source)
    tensors = _tensors(model.network, model.config.model.tie_embeddings)
    with files.new_folder(out) as folder:
        files.write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
        files.write_text(folder / "tokenizer.json", backend.to_str(pretty=True) + "\n")
        for name, settings in (
            ("config.json", _model_settings(model)),
            ("generation_config.json", _generation_settings(model)),
            ("tokenizer_config.json", _tokenizer_settings()),
        ):
            files.write_text(folder / name, json.dumps(settings, indent=2) + "\n")


def _check(model: Model) -> None:
    config = model.config.model
    for name, needed in NEEDED.items():
        found = getattr(config, name)
        if found != needed:
            raise _refusal(f"model.{name}", found, needed, elsewhere=found not in ("gru", "lstm"))
    if config.copying:
        raise _refusal("model.copying", "true", "false", elsewhere=False)
    if config.d_model % 2 or config.d_model < 4:
        raise _refusal("model.d_model", config.d_model, "an even one, 4 at least", elsewhere=False)
    if not model.tokenizers.joint:
        raise _refusal("tokenizer.joint", "false", "true")
    if model.tokenizers.target.normalization == "NFD":  # nothing there composes the outputs again
        raise _refusal("tokenizer.target_normalization", "NFD", "NFC")


def _refusal(name: str, found: object, needed: str, elsewhere: bool = True) -> ValueError:
    """elsewhere: the other format takes such a model."""
    choice = ", or take the format ctranslate2" if elsewhere else ""
    return ValueError(f"{name} is {found}, but the M2M100 of Hugging Face needs {needed}; train with that{choice}.")


def _tensors(network: Seq2Seq, tied: bool) -> dict[str, Tensor]:
    """All weights by their names there. Where tables are not tied, the shared one must be there and takes no part."""
    ours = {name: parameter.detach().float().cpu() for name, parameter in network.named_parameters()}
    target = network.decoder.output.detach().float().cpu()
    theirs = {"model.shared.weight": target}
    if not tied:
        theirs |= {
            "model.encoder.embed_tokens.weight": ours["encoder.embedding.weight"],
            "model.decoder.embed_tokens.weight": ours["decoder.embedding.weight"],
            "lm_head.weight": target.clone(),
        }
    for name, tensor in ours.items():
        side, _, part = name.partition(".")
        if part.startswith("norm."):
            theirs[f"model.{side}.layer_{part}"] = tensor
        elif part.startswith("layers."):
            _, number, part = part.split(".", 2)
            part, _, kind = part.rpartition(".")
            shares = tensor.chunk(len(PARTS[part]))
            for share, place in zip(shares, PARTS[part], strict=True):
                theirs[f"model.{side}.layers.{number}.{place}.{kind}"] = share.clone()
    return theirs


def _model_settings(model: Model) -> dict[str, Any]:
    config = model.config.model
    sides = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    settings: dict[str, Any] = {
        "architectures": ["M2M100ForConditionalGeneration"],
        "model_type": "m2m_100",
        "is_encoder_decoder": True,
        "vocab_size": model.tokenizers.source.vocab_size,
        "d_model": config.d_model,
        "activation_function": "gelu",
        "scale_embedding": True,
        "tie_word_embeddings": config.tie_embeddings,
        "dropout": config.dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        **_special_ids(),
    }
    for side, layers in sides.items():
        settings |= {
            f"{side}_layers": layers,
            f"{side}_ffn_dim": config.d_ff,
            f"{side}_attention_heads": config.num_heads,
            f"{side}_layerdrop": 0.0,
        }
    return settings


def _special_ids() -> dict[str, int]:
    return {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "decoder_start_token_id": BOS}


def _generation_settings(model: Model) -> dict[str, Any]:
    """How `generate` searches when it is not told: as `antiphon generate` does."""
    wanted = model.config.generation
    longest = model.max_length(model.facts.longest_source + 1, wanted)
    settings: dict[str, Any] = {
        **_special_ids(),
        "suppress_tokens": NEVER,
        "max_new_tokens": longest,
        "num_beams": 1 if wanted.sample else wanted.beam_size,
        "num_return_sequences": wanted.n_best,
        "length_penalty": wanted.length_penalty,
        "min_new_tokens": wanted.min_length,
        "no_repeat_ngram_size": wanted.no_repeat_ngram,
    }
    if wanted.sample:
        settings |= {
            "do_sample": True,
            "temperature": wanted.temperature,
            "top_k": wanted.top_k,
            "top_p": wanted.top_p,
        }
    return settings


def _ending_with_eos(side: Tokenizer) -> tokenizers.Tokenizer:
    """A copy of a side's tokenizer that puts EOS after each text."""
    backend = tokenizers.Tokenizer.from_str(side.backend.to_str())
    end = SPECIAL_TOKENS[EOS]
    backend.post_processor = TemplateProcessing(
        single=["$A", end], pair=["$A", end, "$B", end], special_tokens=[(end, EOS)]
    )
    return backend


def _tokenizer_settings() -> dict[str, Any]:
    """Texts that hold the name of a special token stay texts (`split_special_tokens`)."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": SPECIAL_TOKENS[PAD],
        "unk_token": SPECIAL_TOKENS[UNK],
        "bos_token": SPECIAL_TOKENS[BOS],
        "eos_token": SPECIAL_TOKENS[EOS],
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
