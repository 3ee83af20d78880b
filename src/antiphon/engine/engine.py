"""The engine: one thread owns the models, and runs everybody's requests in one batch for each.

It knows ids and searches, no text and no HTTP. Requests join between steps and leave when they end. Whoever reads the
answers never holds it up: what became of requests is handed to `deliver`, which must return at once.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

from antiphon.decoding.active import StepModel
from antiphon.engine.lane import FAILED, Lane
from antiphon.engine.request import Call, Delivery, Event, Failure, Progress, Request, Returned, Statistics
from antiphon.engine.scheduler import Limits

log = logging.getLogger(__name__)

TELL_EVERY = 0.25  # seconds between statistics when nothing else is to be told

Deliver = Callable[[list[Delivery], Statistics], None]
Perform = Callable[[Call, Callable[[], bool]], Any]


class Engine:
    """Runs from `start` to `close`; the other methods may be called from any thread.

    models: by name. deliver: called from the engine's thread with what became of requests. perform: does a call, in a
    thread of its own, so that the running batch goes on meanwhile; it is given what tells whether it is still wanted.
    """

    def __init__(
        self,
        models: Mapping[str, StepModel],
        deliver: Deliver,
        perform: Perform | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._deliver = deliver
        self._perform = perform
        self._told: list[Delivery] = []
        self._lanes = {name: Lane(model, limits or Limits(), self._tell) for name, model in models.items()}
        self._lane_of: dict[int, Lane] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="antiphon-engine", daemon=True)
        self._calls = ThreadPoolExecutor(1, "antiphon-call")
        self._unwanted: set[int] = set()  # calls that were cancelled
        self._open_calls: set[int] = set()
        self._closing = False
        self._told_at = 0.0

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Its events are delivered, and the last of them is Finished or a Failure, unless it is cancelled. Raises
        KeyError for a model that is not here."""
        assert self._lanes[request.model]
        self._inbox.put(lambda: self._add(request))

    def call(self, call: Call) -> None:
        """Its one event is Returned or a Failure, unless it is cancelled."""
        self._inbox.put(lambda: self._begin(call))

    def cancel(self, id: int) -> None:
        """A request's rows are free at the next step; nothing more is told of it."""
        self._inbox.put(lambda: self._cancel(id))

    def close(self) -> None:
        """Finishes what was submitted, then stops."""
        self._inbox.put(self._begin_closing)
        self._thread.join()
        self._calls.shutdown()

    def step(self) -> None:
        """Takes what came in, gives every row of every model one more token, and hands out what came of it."""
        self._take_in()
        for lane in self._lanes.values():
            lane.step()
        self._hand_out()

    def _run(self) -> None:
        while not (self._closing and self._is_idle):
            try:
                self.step()
            except Exception:
                self._start_over()

    def _start_over(self) -> None:
        """There is a mistake in the engine that nobody foresaw: what ran and waited has failed, and what comes next is
        answered."""
        log.exception("the engine failed, and with it %d requests; it goes on with those that come", len(self._lane_of))
        self._lanes = {name: lane.emptied() for name, lane in self._lanes.items()}
        self._told += [(id, FAILED) for id in self._lane_of]
        self._lane_of.clear()
        self._hand_out()

    @property
    def _is_idle(self) -> bool:
        return not self._open_calls and all(lane.is_idle for lane in self._lanes.values())

    def _take_in(self) -> None:
        """All that has come; waits for it when there is nothing to step."""
        idle = all(lane.is_idle for lane in self._lanes.values()) and not (self._closing and not self._open_calls)
        try:
            self._inbox.get(block=idle)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    def _add(self, request: Request) -> None:
        lane = self._lanes[request.model]
        self._lane_of[request.id] = lane
        lane.add(request)

    def _cancel(self, id: int) -> None:
        self._told = [delivery for delivery in self._told if delivery[0] != id]
        lane = self._lane_of.pop(id, None)
        if lane is not None:
            lane.cancel(id)
        elif id in self._open_calls:
            self._unwanted.add(id)

    def _begin(self, call: Call) -> None:
        self._open_calls.add(call.id)
        self._calls.submit(self._make, call)

    def _make(self, call: Call) -> None:
        """In the thread of calls."""
        event: Event | None = None

        def wanted() -> bool:
            return call.id not in self._unwanted

        if wanted():
            try:
                assert self._perform is not None
                event = Returned(self._perform(call, wanted))
            except ValueError as error:
                event = Failure("refused", str(error))
            except Exception:
                log.exception("the model failed at call %d, %s", call.id, call.method)
                event = FAILED
        self._inbox.put(lambda: self._end(call, event))

    def _end(self, call: Call, event: Event | None) -> None:
        self._open_calls.discard(call.id)
        if event is not None and call.id not in self._unwanted:
            self._told.append((call.id, event))
        self._unwanted.discard(call.id)

    def _begin_closing(self) -> None:
        self._closing = True

    def _tell(self, id: int, event: Event) -> None:
        if not isinstance(event, Progress):
            self._lane_of.pop(id, None)
        self._told.append((id, event))

    def _hand_out(self) -> None:
        now = time.monotonic()
        if self._told or now - self._told_at > TELL_EVERY or self._is_idle:
            told, self._told, self._told_at = self._told, [], now
            self._deliver(told, self._statistics())

    def _statistics(self) -> Statistics:
        lanes = [lane.statistics for lane in self._lanes.values()]
        return Statistics(*(sum(getattr(lane, field.name) for lane in lanes) for field in fields(Statistics)))
