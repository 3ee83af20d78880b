"""The unigram trainer: many pieces are thinned out by their worth to a unigram language model.

The library's own trainer is not used because it gives another vocabulary on every run. Pieces and words are byte-level:
a character is a byte, and all 256 are among the pieces. This file knows words and how often each occurs, but no texts.
"""

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models

from antiphon.ids import UNK
from antiphon.tokenizer.kinds import BATCH, SPECIAL_TOKENS


def train_unigram(
    pieces: Sequence[str], words: Sequence[str], counts: NDArray[np.int64], vocab_size: int
) -> models.Unigram:
    """The model that is left of `pieces`: `vocab_size` tokens at most, the special ones included."""
    scores = _substring_scores(pieces, words, counts)
    size = vocab_size - len(SPECIAL_TOKENS)
    while True:
        for _ in range(2):
            scores = _reestimate(scores, words, counts)
        if len(scores) <= size:
            break
        scores = _prune(scores, max(size, int(0.75 * len(scores))))
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    # Short decimals survive being written and read again.
    vocab = [(name, 0.0) for name in SPECIAL_TOKENS] + [(name, round(score, 6)) for name, score in ranked]
    return models.Unigram(vocab, unk_id=UNK, byte_fallback=False)


def _substring_scores(pieces: Sequence[str], words: Sequence[str], counts: NDArray[np.int64]) -> dict[str, float]:
    """Log-probability of each piece by how often it stands anywhere in the words."""
    found = dict.fromkeys(pieces, 0)
    longest = max(map(len, pieces))
    for word, count in zip(words, counts.tolist(), strict=True):
        for start in range(len(word)):
            for end in range(start + 1, min(start + longest, len(word)) + 1):
                piece = word[start:end]
                if piece in found:
                    found[piece] += count
    return _log_shares(found)


def _reestimate(scores: dict[str, float], words: Sequence[str], counts: NDArray[np.int64]) -> dict[str, float]:
    """One step of hard EM: cut each word in its most probable way, and count the pieces."""
    backend = tokenizers.Tokenizer(models.Unigram(list(scores.items()), unk_id=None, byte_fallback=False))
    found = np.zeros(len(scores))
    for start in range(0, len(words), BATCH):
        cuts = [encoding.ids for encoding in backend.encode_batch_fast(list(words[start : start + BATCH]))]
        ids = np.fromiter(chain.from_iterable(cuts), dtype=np.int64)
        weights = np.repeat(counts[start : start + BATCH], [len(cut) for cut in cuts])
        found += np.bincount(ids, weights=weights, minlength=len(scores))
    return _log_shares(dict(zip(scores, found.tolist(), strict=True)))


def _log_shares(found: dict[str, float] | dict[str, int]) -> dict[str, float]:
    # A byte that was never seen must stay possible: it counts as half a time.
    total = sum(max(count, 0.5) for count in found.values())
    return {piece: math.log(max(count, 0.5) / total) for piece, count in found.items()}


def _prune(scores: dict[str, float], size: int) -> dict[str, float]:
    """`size` pieces: all single bytes, and those without which the texts would lose the most probability."""
    single = [piece for piece in scores if len(piece) == 1]
    longer = [piece for piece in scores if len(piece) > 1]
    loss = {piece: math.exp(scores[piece]) * (scores[piece] - _score_without(piece, scores)) for piece in longer}
    longer.sort(key=lambda piece: (-loss[piece], piece))
    return {piece: scores[piece] for piece in chain(single, longer[: size - len(single)])}


def _score_without(piece: str, scores: dict[str, float]) -> float:
    """The score of the best way to write a piece with at least two others."""
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end == len(piece), end):
            score = scores.get(piece[start:end])
            if score is not None and best[start] + score > best[end]:
                best[end] = best[start] + score
    return best[-1]
