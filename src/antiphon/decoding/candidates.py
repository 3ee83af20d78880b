"""From logits to what each search may go on with: its best continuations by their score, or tokens drawn at random.

Where no rule forbids a token but those that are never chosen, a kernel finds the best in two passes over each row, and
writes no log-probabilities. Where one does, the same kernel reads them once they are ruled, and comes to the same bits.
Where there are no kernels, torch's operators do it all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from antiphon import kernels
from antiphon.decoding.rules import FIRST, forbid, ruled
from antiphon.decoding.search import Candidates, Sampling, Search

BLOCKS = 8


def candidates(logits: Tensor, searches: Sequence[Search]) -> list[Candidates]:
    """logits (N, V), rows in the order of the searches' live ones -> candidates for each search. Overwrites logits."""
    by_kernel = kernels.can_choose(logits) and logits.shape[1] > FIRST
    if by_kernel and not any(ruled(search) or isinstance(search, Sampling) for search in searches):
        return _best_by_kernel(logits, searches, raw=True)
    if by_kernel:
        kernels.log_softmax_rows(logits)
    log_probs = logits if by_kernel else logits.log_softmax(dim=-1)
    forbid(log_probs, searches)
    found = _best_by_kernel(log_probs, searches, raw=False) if by_kernel else _best(log_probs, searches)
    row = 0
    for index, search in enumerate(searches):
        if isinstance(search, Sampling):
            found[index] = _drawn(search, log_probs[row : row + len(search.live)])
        row += len(search.live)
    return found


def _best_by_kernel(x: Tensor, searches: Sequence[Search], raw: bool) -> list[Candidates]:
    """x (N, V), logits if raw, else log-probabilities -> as _best."""
    widths = [_width(search) for search in searches]
    counts = [len(search.live) for search in searches]
    scores = [hypothesis.score for search in searches for hypothesis in search.live]
    first = FIRST if raw else 0  # a prefix may force what else is never chosen
    return [Candidates(*found) for found in kernels.best_tokens(x, raw, first, counts, widths, scores)]


def _width(search: Search) -> int:
    return 1 if isinstance(search, Sampling) else search.settings.beam_size


def _best(log_probs: Tensor, searches: Sequence[Search]) -> list[Candidates]:
    """log_probs (N, V) -> for each search, its `beam_size` best continuations over all of its rows, best first."""
    widths = [_width(search) for search in searches]
    values, tokens = _top(log_probs, min(max(widths), log_probs.shape[1]))
    rows = torch.zeros_like(tokens)
    if len(tokens) > len(searches):
        values, tokens, rows = _best_of_rows(values, tokens, searches, max(widths))
    lists = zip(rows.tolist(), tokens.tolist(), values.tolist(), widths, strict=True)
    return [Candidates(*(part[:width] for part in parts)) for *parts, width in lists]


def _best_of_rows(
    values: Tensor, tokens: Tensor, searches: Sequence[Search], widest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """values and tokens (N, k): the best of each row -> the `widest` best of each search by their score:
    log-probabilities, tokens, and which of its rows."""
    device, width = values.device, tokens.shape[1]
    counts = [len(search.live) for search in searches]
    live = torch.tensor(counts, device=device).unsqueeze(1)
    inside = torch.arange(max(counts), device=device) < live
    grid = torch.zeros(inside.shape, dtype=torch.long, device=device)
    grid[inside] = torch.arange(len(tokens), device=device)
    values, tokens = values[grid].masked_fill(~inside.unsqueeze(-1), -torch.inf).flatten(1), tokens[grid].flatten(1)
    scores = [h.score for search in searches for h in search.live]
    scores_of_rows = torch.tensor(scores, dtype=torch.float64, device=device)[grid].repeat_interleave(width, dim=1)
    order = (values + scores_of_rows).topk(min(widest, values.shape[1]), dim=-1).indices
    return values.gather(1, order), tokens.gather(1, order), (order // width).minimum(live - 1)


def _top(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """x (N, V) -> the `count` largest values of each row and their places, each (N, count), the largest first.

    Where V is large, by blocks: the largest values lie in the blocks with the largest maxima.
    """
    num_rows, width = x.shape
    per_block = width // BLOCKS
    if width < 64 * count * BLOCKS or x.device.type != "cpu":
        return x.topk(count, dim=-1)
    # Block j is made of the columns j, j + per_block, ...: their maxima are one pass over whole vectors.
    main = x[:, : per_block * BLOCKS].view(num_rows, BLOCKS, per_block)
    blocks = main.amax(1).topk(count, dim=-1).indices
    starts = torch.arange(0, per_block * BLOCKS, per_block)
    rest = torch.arange(per_block * BLOCKS, width).expand(num_rows, -1)
    places = torch.cat([(blocks.unsqueeze(1) + starts.unsqueeze(1)).flatten(1), rest], dim=1)
    values, order = x.gather(1, places).topk(count, dim=-1)
    return values, places.gather(1, order)


def _drawn(search: Sampling, log_probs: Tensor) -> Candidates:
    """log_probs (rows of the search, V) -> one token for each of its samples."""
    draws = search.draws()
    rows = torch.tensor([row for row, _ in draws], device=log_probs.device)
    numbers = torch.tensor([number for _, number in draws], device=log_probs.device)
    tokens = sample(log_probs[rows], numbers, search.settings)
    values = log_probs[rows].gather(1, tokens.unsqueeze(1)).squeeze(1)
    return Candidates(rows.tolist(), tokens.tolist(), values.tolist())


def sample(log_probs: Tensor, numbers: Tensor, settings: Any) -> Tensor:
    """log_probs (N, V), numbers (N,) in [0, 1) -> tokens (N,), by inverting the distribution that the settings shape.

    top_p keeps the smallest set of the most probable tokens that reaches it (Holtzman et al. 2020).
    """
    probabilities, tokens = torch.softmax(log_probs / settings.temperature, dim=-1).sort(
        dim=-1, descending=True, stable=True
    )
    total = probabilities.cumsum(dim=-1)
    outside = (total - probabilities) >= settings.top_p
    if settings.top_k:
        outside[:, settings.top_k :] = True
    outside |= probabilities == 0
    outside[:, 0] = False
    total = probabilities.masked_fill(outside, 0).cumsum(dim=-1)
    places = (total <= (numbers.to(total.dtype) * total[:, -1]).unsqueeze(1)).sum(dim=-1)
    last = (~outside).sum(dim=-1) - 1
    return tokens.gather(1, torch.minimum(places, last).unsqueeze(1)).squeeze(1)
