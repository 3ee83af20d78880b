"""The engine: one thread owns the model, and runs everybody's requests in one batch.

It knows ids and searches, no text and no HTTP. Requests join between steps and leave when they end.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from antiphon.decoding.active import ActiveBatch, StepModel
from antiphon.decoding.search import Hypothesis, Search

MAX_ROWS = 128  # a newcomer waits while so many rows run


@dataclass(eq=False)
class Request:
    """A source (ids, ending with EOS) and its search; `result` gets the hypotheses, best first."""

    source: Sequence[int]
    search: Search
    result: "Future[list[Hypothesis]]" = field(default_factory=Future)


class Engine:
    """Runs from `start` to `close`. `submit` may be called from any thread."""

    def __init__(self, model: StepModel) -> None:
        self._batch = ActiveBatch(model)
        self._model = model
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._running: list[Request] = []
        self._thread = threading.Thread(target=self._run, name="antiphon-engine", daemon=True)
        self._closing = False

    @property
    def num_rows(self) -> int:
        """Rows in the running batch."""
        return self._batch.num_rows

    def start(self) -> None:
        self._thread.start()

    def submit(self, source: Sequence[int], search: Search) -> "Future[list[Hypothesis]]":
        """A future of the results; cancelling it frees the request's rows at the next step."""
        request = Request(source, search)
        self._waiting.put(request)
        return request.result

    def close(self) -> None:
        """Finishes what was submitted, then stops."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not (self._closing and not self._running):
            self._admit()
            self._drop_cancelled()
            if self._running:
                self._step()

    def _admit(self) -> None:
        """Takes what came in; waits for it when nothing runs."""
        newcomers: list[Request] = []
        rows = self._batch.num_rows
        while rows < MAX_ROWS and not self._closing:
            try:
                request = self._waiting.get(block=not (self._running or newcomers))
            except queue.Empty:
                break
            if request is None:
                self._closing = True
            elif not _was_cancelled(request):
                newcomers.append(request)
                rows += request.search.settings.beam_size
        if newcomers:
            self._running += newcomers
            self._guarded(lambda: self._batch.add([r.source for r in newcomers], [r.search for r in newcomers]))

    def _drop_cancelled(self) -> None:
        for request in [request for request in self._running if _was_cancelled(request)]:
            self._running.remove(request)
            self._batch.drop(request.search)

    def _step(self) -> None:
        ended: list[Search] = []
        self._guarded(lambda: ended.extend(self._batch.step()))
        finished = {id(search) for search in ended}
        for request in [request for request in self._running if id(request.search) in finished]:
            self._running.remove(request)
            if request.result.set_running_or_notify_cancel():
                request.result.set_result(request.search.results())

    def _guarded(self, action: Callable[[], None]) -> None:
        """If the model fails, those in the batch fail with it, and the engine goes on."""
        try:
            action()
        except Exception as error:
            for request in self._running:
                if request.result.set_running_or_notify_cancel():
                    request.result.set_exception(error)
            self._running.clear()
            self._batch = ActiveBatch(self._model)


def _was_cancelled(request: Request) -> bool:
    """Asked once a step. A future stays pending until its result is there: one that runs could not be cancelled."""
    return request.result.cancelled() and not request.result.set_running_or_notify_cancel()
