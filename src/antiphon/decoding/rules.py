"""What a search may not choose: tokens that are never output, an end before `min_length`, repeats, and a forced prefix.

Rules change which tokens can be chosen, never the probability that a chosen one counts with.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from antiphon.decoding.search import Hypothesis, Search
from antiphon.ids import BOS, EOS, PAD, UNK

NEVER = [PAD, UNK, BOS]
FIRST = max(NEVER) + 1  # the first token that may be chosen: those that may not are the first of every vocabulary


def ruled(search: Search) -> bool:
    """There is more that it may not choose."""
    return bool(search.settings.min_length or search.settings.no_repeat_ngram or search.prefix)


def forbid(log_probs: Tensor, searches: Sequence[Search]) -> None:
    """log_probs (N, V), rows in the order of the searches' live ones: puts -inf where a rule says no, in place."""
    rows = []
    row = 0
    for search in searches:
        if ruled(search):
            rows += [(row + place, search, hypothesis) for place, hypothesis in enumerate(search.live)]
        row += len(search.live)
    forced = {row: log_probs[row, token].clone() for row, token in _next_of_prefix(rows)}
    log_probs.index_fill_(1, torch.tensor(NEVER, device=log_probs.device), -torch.inf)
    for row, search, hypothesis in rows:
        if row in forced:
            log_probs[row].fill_(-torch.inf)
            log_probs[row, search.prefix[len(hypothesis.tokens)]] = forced[row]
        else:
            _forbid_row(log_probs[row], search, hypothesis)


def _next_of_prefix(rows: Sequence[tuple[int, Search, Hypothesis]]) -> Iterator[tuple[int, int]]:
    """(row, token) where a forced prefix goes on."""
    for row, search, hypothesis in rows:
        age = len(hypothesis.tokens)
        if age < len(search.prefix):
            yield row, search.prefix[age]


def _forbid_row(log_probs: Tensor, search: Search, hypothesis: Hypothesis) -> None:
    """log_probs (V,), changed in place."""
    banned = repeats(hypothesis.tokens, search.settings.no_repeat_ngram)
    if banned:
        log_probs[banned] = -torch.inf
    short = len(hypothesis.tokens) < search.settings.min_length
    if short and not (banned and _only_end_left(log_probs)):
        log_probs[EOS] = -torch.inf


def _only_end_left(log_probs: Tensor) -> bool:
    """log_probs (V,): there is nothing to choose but EOS, so an output may end before its `min_length`."""
    return int((log_probs > -torch.inf).sum()) == 1


def repeats(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that would complete a run of `size` tokens that is already in `tokens`; none if size is 0."""
    if size == 0 or len(tokens) < size:
        return []
    start = tuple(tokens[len(tokens) - size + 1 :])
    return [tokens[i + size - 1] for i in range(len(tokens) - size + 1) if tuple(tokens[i : i + size - 1]) == start]
