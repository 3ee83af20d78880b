"""Decoding many sources offline: sorted by length, through one running batch, results in the order asked."""

from collections.abc import Iterator, Sequence

from antiphon.decoding.active import ActiveBatch, StepModel
from antiphon.decoding.search import Hypothesis, Search

MAX_ROWS = 128  # rows that a running batch is filled up to


def decode(
    model: StepModel,
    sources: Sequence[Sequence[int]],
    searches: Sequence[Search],
    keep_attention: bool = False,
) -> list[list[Hypothesis]]:
    """sources: ids, each ending with EOS; a search for each -> its results, in the same order."""
    results: dict[int, list[Hypothesis]] = {}
    for index, found in decode_stream(model, sources, searches, keep_attention):
        results[index] = found
    return [results[index] for index in range(len(sources))]


def decode_stream(
    model: StepModel,
    sources: Sequence[Sequence[int]],
    searches: Sequence[Search],
    keep_attention: bool = False,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """As `decode`, but yields (index, results) as each source ends; the longest sources begin."""
    waiting = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    place = {id(search): index for index, search in enumerate(searches)}
    batch = ActiveBatch(model, keep_attention)
    while waiting or batch.searches:
        if waiting and batch.num_rows <= MAX_ROWS // 2:
            chosen = _next_chunk(waiting, searches, MAX_ROWS - batch.num_rows)
            batch.add([sources[index] for index in chosen], [searches[index] for index in chosen])
        for search in batch.step():
            yield place[id(search)], search.results()


def _next_chunk(waiting: list[int], searches: Sequence[Search], free_rows: int) -> list[int]:
    """Takes from the end of `waiting` as many as fit: at least one."""
    chosen: list[int] = []
    while waiting:
        settings = searches[waiting[-1]].settings
        free_rows -= settings.n_best if settings.sample else settings.beam_size
        if chosen and free_rows < 0:
            break
        chosen.append(waiting.pop())
    return chosen
