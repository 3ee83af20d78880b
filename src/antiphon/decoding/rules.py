"""What a search may not choose: tokens that are never output, an end before `min_length`, repeats, and a forced prefix.

Rules change which tokens can be chosen, never the probability that a chosen one counts with.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from antiphon.decoding.search import Hypothesis, Search
from antiphon.ids import BOS, EOS, PAD, UNK

NEVER = [PAD, UNK, BOS]


def forbid(logits: Tensor, searches: Sequence[Search]) -> Tensor:
    """logits (N, V), rows in the order of the searches' live ones -> a copy with -inf where a rule says no."""
    allowed = logits.clone()
    allowed[:, NEVER] = -torch.inf
    row = 0
    for search in searches:
        settings = search.settings
        plain = not (settings.min_length or settings.no_repeat_ngram or search.prefix)
        for hypothesis in search.live:
            if not plain:
                _forbid_row(allowed[row], search, hypothesis)
            row += 1
    return allowed


def _forbid_row(allowed: Tensor, search: Search, hypothesis: Hypothesis) -> None:
    """allowed (V,), changed in place."""
    age = len(hypothesis.tokens)
    if age < len(search.prefix):
        token = search.prefix[age]
        allowed.fill_(-torch.inf)
        allowed[token] = 0.0
        return
    banned = repeats(hypothesis.tokens, search.settings.no_repeat_ngram)
    if banned:
        allowed[banned] = -torch.inf
    if age < search.settings.min_length and not (banned and _only_end_left(allowed)):
        allowed[EOS] = -torch.inf


def _only_end_left(allowed: Tensor) -> bool:
    """allowed (V,): there is nothing to choose but EOS, so an output may end before its `min_length`."""
    return int((allowed > -torch.inf).sum()) == 1


def repeats(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that would complete a run of `size` tokens that is already in `tokens`; none if size is 0."""
    if size == 0 or len(tokens) < size:
        return []
    start = tuple(tokens[len(tokens) - size + 1 :])
    return [tokens[i + size - 1] for i in range(len(tokens) - size + 1) if tuple(tokens[i : i + size - 1]) == start]
