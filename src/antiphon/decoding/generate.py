"""Decoding many sources offline: sorted by length, through running batches, results in the order asked."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import torch

from antiphon.decoding.active import ActiveBatch, StepModel
from antiphon.decoding.search import BeamSearch, Hypothesis, Sampling

MAX_ROWS = 128  # rows that a running batch is filled up to

Wanted = Callable[[], bool]


def decode(
    model: StepModel,
    sources: Sequence[Sequence[int]],
    searches: Sequence[BeamSearch | Sampling],
    keep_attention: bool = False,
    workers: int = 0,
) -> list[list[Hypothesis]]:
    """sources: ids, each ending with EOS; a search for each -> its results, in the same order."""
    results: dict[int, list[Hypothesis]] = {}
    for index, found in decode_stream(model, sources, searches, keep_attention, workers):
        results[index] = found
    return [results[index] for index in range(len(sources))]


def decode_stream(
    model: StepModel,
    sources: Sequence[Sequence[int]],
    searches: Sequence[BeamSearch | Sampling],
    keep_attention: bool = False,
    workers: int = 0,
    wanted: Wanted = lambda: True,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """As `decode`, but yields (index, results) as each source ends; the longest sources begin.

    workers: running batches side by side, each in a thread of its own and on one core; they share the model's weights.
    0: one batch, in this thread and with torch's own number of threads. wanted: asked before each step; False ends it.
    """
    waiting = _Waiting(sources, searches, max(workers, 1), wanted)
    if workers == 0:
        yield from _run(model, waiting, keep_attention)
    else:
        yield from _side_by_side(model, waiting, keep_attention, workers)


def _side_by_side(
    model: StepModel, waiting: "_Waiting", keep_attention: bool, workers: int
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Running batches in threads of their own, until nothing waits or nobody reads on."""
    found: queue.SimpleQueue[tuple[int, list[Hypothesis]] | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        torch.set_num_threads(1)
        try:
            for one in _run(model, waiting, keep_attention):
                found.put(one)
            found.put(None)
        except BaseException as error:
            found.put(error)

    num_threads = torch.get_num_threads()
    threads = [threading.Thread(target=work, name=f"antiphon-decode-{number}") for number in range(workers)]
    try:
        for thread in threads:
            thread.start()
        running = workers
        while running:
            one = found.get()
            if isinstance(one, BaseException):
                raise one
            if one is None:
                running -= 1
            else:
                yield one
    finally:
        waiting.wanted = lambda: False
        for thread in threads:
            thread.join()
        torch.set_num_threads(num_threads)  # threads begun later take over what a worker has set


class _Waiting:
    """Sources that no running batch has taken yet, the shortest first. Any thread may take some."""

    def __init__(
        self, sources: Sequence[Sequence[int]], searches: Sequence[BeamSearch | Sampling], workers: int, wanted: Wanted
    ) -> None:
        self.sources, self.searches = sources, searches
        self.order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
        self.share = -(-len(sources) // workers)  # no worker begins with more, so that all have something to do
        self.lock = threading.Lock()
        self.wanted = wanted

    def take(self, free_rows: int) -> list[int]:
        """As many of the longest as fit: at least one, if there is one."""
        chosen: list[int] = []
        with self.lock:
            while self.order and len(chosen) < self.share:
                free_rows -= _rows_to_come(self.searches[self.order[-1]])
                if chosen and free_rows < 0:
                    break
                chosen.append(self.order.pop())
        return chosen


def _rows_to_come(search: BeamSearch | Sampling) -> int:
    """That it may still come to have, which are more than it has now: a beam begins with one, and has one again where a
    prefix is forced on it."""
    settings = search.settings
    return (settings.n_best if settings.sample else settings.beam_size) - len(search.finished)


def _run(model: StepModel, waiting: _Waiting, keep_attention: bool) -> Iterator[tuple[int, list[Hypothesis]]]:
    """One running batch, until nothing waits or is wanted."""
    batch = ActiveBatch(model, keep_attention)
    index_of: dict[int, int] = {}
    while waiting.wanted():
        rows = sum(_rows_to_come(waiting.searches[index]) for index in index_of.values())
        if rows <= MAX_ROWS // 2 and (chosen := waiting.take(MAX_ROWS - rows)):
            index_of |= {id(waiting.searches[index]): index for index in chosen}
            batch.add([waiting.sources[index] for index in chosen], [waiting.searches[index] for index in chosen])
        if not batch.searches:
            return
        for search in batch.step():
            yield index_of.pop(id(search)), search.results()
