"""The models of the tour: trained from the sentences that ship, each in two minutes.

    python docs/page/models.py [FOLDER]        # runs/tour

They are a transformer, a recurrent model with attention and one without, and a transformer that leads back.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from antiphon.config import Config, changed
from antiphon.data import corpora
from antiphon.data.pairs import Pair
from antiphon.training.train import train

HERE = Path(__file__).parent
NUM_PAIRS, NUM_DEV = 100_000, 500
MINUTES = 2.0
SEED = 1

SHAPES: dict[str, dict[str, Any]] = {
    "transformer-en-fr": {"d_model": 128, "d_ff": 512, "encoder_layers": 2, "decoder_layers": 2},
    "recurrent-en-fr": {"encoder": "gru", "decoder": "gru", "encoder_layers": 1, "decoder_layers": 1, "d_model": 256},
    "no-attention-en-fr": {
        "encoder": "gru",
        "decoder": "gru",
        "encoder_layers": 1,
        "decoder_layers": 1,
        "d_model": 256,
        "attention": "none",
    },
    "transformer-fr-en": {"d_model": 128, "d_ff": 512, "encoder_layers": 2, "decoder_layers": 2},
}


def train_all(folder: Path, minutes: float = MINUTES, pairs: int = NUM_PAIRS) -> dict[str, Path]:
    """The run folder of each; those that are there already stay as they are."""
    runs = {name: folder / name for name in SHAPES}
    if all((run / "model.safetensors").exists() for run in runs.values()):
        return runs
    corpus = corpora.build("english-french", SEED, pairs, NUM_DEV)
    for name, run in runs.items():
        if (run / "model.safetensors").exists():
            continue
        turn = turned if name.endswith("fr-en") else list
        print(f"training {name}", flush=True)
        train(turn(corpus.train), run, dev=turn(corpus.held_out), config=config_of(name, minutes))
    return runs


def config_of(name: str, minutes: float) -> Config:
    return changed(
        Config(),
        {
            "tokenizer": {"vocab_size": 4000},
            "model": {"dropout": 0.0} | SHAPES[name],
            "training": {"batch_tokens": 1024, "max_minutes": minutes, "max_steps": 0, "warmup_steps": 100}
            | {"learning_rate": 4e-3, "label_smoothing": 0.0, "metric": "exact_match", "eval_pairs": 200}
            | {"validations": 8, "seed": SEED},
        },
        "the tour's models",
    )


def turned(pairs: Iterable[Pair]) -> list[Pair]:
    """From the target to the source."""
    return [Pair(pair.target, pair.source) for pair in pairs]


if __name__ == "__main__":
    train_all(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/tour"))
