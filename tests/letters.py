"""A run that is trained in a second, for tests of what is done with runs: "ab 01" to "AB 01", hardly learned."""

from pathlib import Path

from antiphon.config import load_config
from antiphon.data.pairs import Pair
from antiphon.training.train import train

PAIRS = [Pair(f"ab {i:02d}", f"AB {i:02d}") for i in range(40)]
SMALL = ("model.d_model=16", "model.d_ff=16", "model.num_heads=2", "training.max_steps=4", "training.max_length=20")


def train_letters(folder: Path, *words: str, preset: str = "tiny") -> Path:
    """words: settings over the small ones. Returns the folder."""
    train(PAIRS, folder, config=load_config(preset, None, [*SMALL, *words]))
    return folder
