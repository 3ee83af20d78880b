"""Encoder-decoder models from a file of pairs: trained, measured, served.

    import antiphon

    model = antiphon.train("pairs.tsv", "runs/mine")
    model = antiphon.load("runs/mine")
    model.generate(["The cat ate the mouse."], beam_size=5)

Names are imported when they are first used, so that `import antiphon` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.config import (
        Config,
        GenerationConfig,
        ModelConfig,
        TokenizerConfig,
        TrainingConfig,
        load_config,
    )
    from antiphon.data.pairs import DataError, Pair, read_pairs
    from antiphon.pipelines import pipeline
    from antiphon.run import Model, load
    from antiphon.text_side import Output
    from antiphon.training.distill import distill
    from antiphon.training.train import train

__version__ = "0.1.0"

_HOMES = {
    "Config": "antiphon.config",
    "GenerationConfig": "antiphon.config",
    "ModelConfig": "antiphon.config",
    "TokenizerConfig": "antiphon.config",
    "TrainingConfig": "antiphon.config",
    "load_config": "antiphon.config",
    "DataError": "antiphon.data.pairs",
    "Pair": "antiphon.data.pairs",
    "read_pairs": "antiphon.data.pairs",
    "pipeline": "antiphon.pipelines",
    "Model": "antiphon.run",
    "Output": "antiphon.text_side",
    "load": "antiphon.run",
    "distill": "antiphon.training.distill",
    "train": "antiphon.training.train",
}

__all__ = [
    "Config",
    "DataError",
    "GenerationConfig",
    "Model",
    "ModelConfig",
    "Output",
    "Pair",
    "TokenizerConfig",
    "TrainingConfig",
    "__version__",
    "distill",
    "load",
    "load_config",
    "pipeline",
    "read_pairs",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'antiphon' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
