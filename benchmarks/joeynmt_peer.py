"""Joey NMT as a contender in training: its transformer, and its recurrent model with attention and input feeding.

Run by training.py with the interpreter that peers.py installed for it. Model, loss, optimiser and training step are
the package's own; batches come ready. On a processor Joey NMT itself trains in float32 only: its settings switch
mixed precision off. In bfloat16 its step is given an autocast that it does not offer.
"""

import logging
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import torch
from joeynmt.batch import Batch
from joeynmt.builders import build_gradient_clipper, build_optimizer
from joeynmt.model import Model, build_model
from joeynmt.training import TrainManager
from joeynmt.vocabulary import Vocabulary
from tasks import Ids, contend, num_tokens, padded, read_batches
from turns import Turns

UNK, PAD, BOS, EOS = range(4)  # its order: PAD and UNK are the other way round than Antiphon's
SPECIALS = {"unk": UNK, "pad": PAD, "bos": BOS, "eos": EOS}


def vocabulary(size: int) -> Vocabulary:
    symbols = {f"{name}_token": f"<{name}>" for name in SPECIALS} | {f"{name}_id": id for name, id in SPECIALS.items()}
    words = [str(number) for number in range(len(SPECIALS), size)]
    return Vocabulary(words, SimpleNamespace(**symbols, lang_tags=[], sep_token=None))


def settings(spec: dict[str, Any]) -> dict[str, Any]:
    """What stands under `model` in its configuration files."""
    width, dropout = spec["width"], spec["dropout"]
    embeddings = {"embedding_dim": width, "scale": spec["kind"] == "transformer", "dropout": dropout}
    if spec["kind"] == "transformer":
        shape = {
            "type": "transformer",
            "hidden_size": width,
            "ff_size": spec["inner_width"],
            "num_layers": spec["layers"],
            "num_heads": spec["attention_heads"],
            "layer_norm": "pre",
            "dropout": dropout,
            "embeddings": embeddings,
        }
        sides = {"encoder": shape, "decoder": shape}
    else:
        shape = {"type": "recurrent", "rnn_type": "gru", "num_layers": 1, "dropout": dropout, "embeddings": embeddings}
        looks = {"attention": "bahdanau", "input_feeding": True, "init_hidden": "bridge", "hidden_dropout": dropout}
        sides = {
            "encoder": {**shape, "hidden_size": width // 2, "bidirectional": True},
            "decoder": {**shape, "hidden_size": width, **looks},
        }
    return {"tied_embeddings": True, "tied_softmax": True, "initializer": "xavier_uniform", **sides}


def network(spec: dict[str, Any]) -> Model:
    torch.manual_seed(1)
    words = vocabulary(spec["vocabulary"])
    model = build_model(settings(spec), words, words)
    model.loss_function = ("crossentropy", spec["label_smoothing"])
    return model


def batch_of(source: Ids, target: Ids) -> Batch:
    return Batch(
        src=torch.tensor(padded(source, PAD)),
        src_length=torch.tensor([len(ids) for ids in source]),
        src_prompt_mask=None,
        trg=torch.tensor(padded([[BOS, *ids] for ids in target], PAD)),
        trg_prompt_mask=None,
        indices=torch.arange(len(source)),
        device=torch.device("cpu"),
        pad_index=PAD,
        eos_index=EOS,
    )


def train(spec: dict[str, Any], turns: Turns) -> None:
    logging.disable(logging.INFO)
    model = network(spec)
    chosen = {"optimizer": "adam", "adam_betas": (0.9, 0.98), "learning_rate": 1e-5}
    optimizer = build_optimizer(chosen, model.parameters())
    clip = build_gradient_clipper({"clip_grad_val": None, "clip_grad_norm": 1.0})
    assert clip is not None
    manager = SimpleNamespace(
        model=model,
        autocast={"device_type": "cpu", "dtype": torch.bfloat16, "enabled": spec["precision"] == "bfloat16"},
        args=SimpleNamespace(normalization="tokens", batch_multiplier=1),
        n_gpu=0,
        scaler=None,
    )
    batches = cycle(read_batches(spec["batches"]))
    while turns.wanted():
        source, target = next(batches)
        TrainManager._train_step(manager, batch_of(source, target))
        clip(parameters=model.parameters())
        optimizer.step()
        model.zero_grad()
        turns.count(tokens=num_tokens(target))


if __name__ == "__main__":
    contend({"train": train})
