"""Which of several outputs to one source is most like all of them: minimum Bayes risk (Kumar and Byrne 2004).

Outputs that a model draws vote for one another: the best is the one with the highest chrF, on average, against all.
Unlike the most probable output it is neither too short nor far from the others (Eikema and Aziz 2020). Pure functions
of strings.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ORDER, BETA = 6, 2  # chrF's: the longest n-grams of characters; how much recall counts


def by_consensus(texts: Sequence[str]) -> list[int]:
    """Places of the distinct texts, that with the highest expected chrF first; of equal ones the first."""
    places = {text: place for place, text in reversed(list(enumerate(texts)))}
    distinct = sorted(places, key=places.__getitem__)
    votes = Counter(texts)
    expected = pairwise_chrf(distinct) @ [float(votes[text]) for text in distinct]
    return [places[distinct[index]] for index in (-expected).argsort(kind="stable")]


def pairwise_chrf(texts: Sequence[str]) -> "Floats":
    """(N, N): the sentence-level chrF2 (Popović 2015, as sacreBLEU computes it) of each text against each as its
    reference, from 0 to 100."""
    import numpy as np

    squeezed = ["".join(text.split()) for text in texts]
    precision, recall, orders = np.zeros((3, len(texts), len(texts)))
    for order in range(1, ORDER + 1):
        counts = _counts(squeezed, order)
        totals = counts.sum(1)
        present = [row.nonzero()[0] for row in counts]
        common = np.array(
            [np.minimum(row[own], counts[:, own]).sum(1) for row, own in zip(counts, present, strict=True)]
        )
        both = (totals[:, None] > 0) & (totals > 0)
        floor = np.maximum(totals, 1)
        precision += both * common / floor[:, None]
        recall += both * common / floor
        orders += both
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    below = np.maximum(BETA**2 * precision + recall, np.finfo(float).tiny)
    found: Floats = 100 * (1 + BETA**2) * precision * recall / below
    return found


def _counts(texts: Sequence[str], order: int) -> "NDArray[np.int32]":
    """(N, n-grams): how often each text has each n-gram of characters."""
    import numpy as np

    columns: dict[str, int] = {}
    found = [
        [columns.setdefault(text[start : start + order], len(columns)) for start in range(len(text) - order + 1)]
        for text in texts
    ]
    return np.array([np.bincount(np.array(row, dtype=np.int64), minlength=len(columns)) for row in found], np.int32)
