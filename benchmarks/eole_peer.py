"""Eole as a contender in training: its encoder-decoder, loss, optimiser and training step.

Run by training.py with the interpreter that peers.py installed for it; batches come ready. In bfloat16 it trains with
automatic mixed precision, its default. Its logging of attention entropies is off: it costs time.
"""

import warnings
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pyonmttok
import torch
from tasks import BOS, EOS, PAD, UNK, Ids, contend, num_tokens, padded, read_batches
from turns import Turns

warnings.filterwarnings("ignore")  # extensions for GPUs that are not there

from eole.config.run import TrainConfig  # noqa: E402
from eole.models.model import get_model_class  # noqa: E402
from eole.trainer import Trainer, TrainerConfig  # noqa: E402
from eole.utils import Statistics  # noqa: E402
from eole.utils.loss import LossCompute  # noqa: E402
from eole.utils.optimizers import Optimizer  # noqa: E402

SPECIALS = {"pad_token": "<blank>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def settings(spec: dict[str, Any]) -> TrainConfig:
    """What stands in its configuration files."""
    side = {"layers": spec["layers"], "heads": spec["attention_heads"], "transformer_ff": spec["inner_width"]}
    return TrainConfig(
        src_vocab="none",
        tgt_vocab="none",
        share_vocab=True,
        data={},
        model={
            "architecture": "transformer",
            "hidden_size": spec["width"],
            "share_embeddings": True,
            "share_decoder_embeddings": True,
            "embeddings": {"word_vec_size": spec["width"], "position_encoding_type": "SinusoidalInterleaved"},
            "encoder": {"encoder_type": "transformer", **side},
            "decoder": {"decoder_type": "transformer", **side},
        },
        training={
            "compute_dtype": "bf16" if spec["precision"] == "bfloat16" else "fp32",
            "optim": "adamw",
            "learning_rate": 1e-5,
            "adam_beta2": 0.98,
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "dropout": [spec["dropout"]],
            "attention_dropout": [0.0],
            "label_smoothing": spec["label_smoothing"],
            "normalization": "tokens",
            "param_init_method": "xavier_uniform",
            "log_attention_entropy": False,
            "self_attn_backend": "pytorch",
        },
    )


def vocabularies(size: int) -> dict[str, Any]:
    """Ids as Antiphon's."""
    words = pyonmttok.build_vocab_from_tokens(
        [str(number) for number in range(len(SPECIALS), size)], special_tokens=list(SPECIALS.values())
    )
    assert [words[token] for token in SPECIALS.values()] == [PAD, UNK, BOS, EOS]
    return {"src": words, "tgt": words, "specials": SPECIALS, "decoder_start_token": SPECIALS["bos_token"]}


def trainer_of(spec: dict[str, Any]) -> Trainer:
    torch.manual_seed(1)
    config, words = settings(spec), vocabularies(spec["vocabulary"])
    model = get_model_class(config.model).for_training(config.model, words, config.training, device_id=-1).train()
    loss, optimizer = LossCompute.from_config(config, model, words), Optimizer.from_config(model, config)
    shape = TrainerConfig(
        norm_method="tokens", n_gpu=0, gpu_rank=-1, dropout=[spec["dropout"]], attention_dropout=[0.0]
    )
    return Trainer(model, loss, None, None, None, optimizer, shape)


def batch_of(source: Ids, target: Ids) -> Mapping[str, Any]:
    return {
        "src": torch.tensor(padded(source)),
        "srclen": torch.tensor([len(ids) for ids in source]),
        "tgt": torch.tensor(padded([[BOS, *ids] for ids in target])),
        "images": None,
        "prefix_len": None,
        "cid": ["pairs"] * len(source),
        "cid_line_number": list(range(len(source))),
    }


def train(spec: dict[str, Any], turns: Turns) -> None:
    trainer = trainer_of(spec)
    batches = cycle(read_batches(spec["batches"]))
    while turns.wanted():
        source, target = next(batches)
        trainer._train_step([batch_of(source, target)], num_tokens(target), Statistics(), Statistics())
        turns.count(tokens=num_tokens(target))


if __name__ == "__main__":
    contend({"train": train})
