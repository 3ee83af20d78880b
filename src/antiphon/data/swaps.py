"""Words put in one another's places: what is known as a pair by itself only is seen where other words stand.

The smallest case of recombining data (Andreas 2020, "Good-Enough Compositional Data Augmentation"): of a token that is
a whole source, and a whole target, every occurrence in a pair becomes another such token, on both sides.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from antiphon.data.batches import Batch, EncodedPairs
from antiphon.ids import UNK


class Swaps:
    """The tokens of some data that are pairs by themselves, always the same ones, and whose target no other has.

    Raises ValueError where there are no two of them.
    """

    def __init__(self, data: EncodedPairs) -> None:
        alone = np.flatnonzero((data.sources.lengths == 2) & (data.targets.lengths == 2)).tolist()
        told: dict[int, set[int]] = {}
        for source, target in ((data.sources[index][0], data.targets[index][0]) for index in alone):
            if UNK not in (source, target):
                told.setdefault(source, set()).add(target)
        shared = Counter(target for targets in told.values() for target in targets)
        self.target_of = {
            source: target for source, (target, *more) in told.items() if not more and shared[target] == 1
        }
        if len(self.target_of) < 2:
            raise ValueError(
                f"training data: {len(self.target_of)} of its pairs are a token each side, and training.swap_words "
                "needs two that are always the same, of targets that no other has; set it to 0, or add such pairs."
            )

    def swapped(self, batch: Batch, share: float, seed: Sequence[int]) -> Batch:
        """The batch with a token swapped in that share of its pairs, where they have one. The same seed, the same."""
        generator = np.random.Generator(np.random.PCG64(list(seed)))
        source, target_in, target_out = (part.clone() for part in batch)
        known = list(self.target_of)
        for row in np.flatnonzero(generator.random(len(source)) < share).tolist():
            here = [token for token in dict.fromkeys(source[row].tolist()) if token in self.target_of]
            if not here:
                continue
            old, new = here[generator.integers(len(here))], known[generator.integers(len(known))]
            if not bool((target_out[row] == self.target_of[old]).any()):
                continue
            source[row][source[row] == old] = new
            for target in (target_in, target_out):
                target[row][target[row] == self.target_of[old]] = self.target_of[new]
        return Batch(source, target_in, target_out)
