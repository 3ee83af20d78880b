"""One model's requests: those that wait, and those that run together in one batch.

A failure of the model is told to the request that it hits alone: those that are encoded together are tried one by one
then, and those that were decoded together are run again, each in a batch of its own.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from antiphon.decoding.active import ActiveBatch, StepModel
from antiphon.decoding.search import BeamSearch, Sampling, make_search
from antiphon.engine.request import Event, Failure, Finished, Progress, Request, Statistics, Times
from antiphon.engine.scheduler import Limits, Scheduler

log = logging.getLogger(__name__)

LATE = Failure("late", "its deadline passed before it was answered; ask again later, or with more time.")
FAILED = Failure("failed", "the model failed at this request; the server's log tells more.")

Tell = Callable[[int, Event], None]


@dataclass(eq=False)
class _Run:
    """A request that runs: its search, when things happened to it, and how many of its tokens were handed out."""

    request: Request
    search: BeamSearch | Sampling
    came: float
    encoded: float = 0.0
    first: float = 0.0
    told: int = 0


class Lane:
    """Steps one model. `tell` is called with the id of a request and what became of it."""

    def __init__(self, model: StepModel, limits: Limits, tell: Tell) -> None:
        self._model = model
        self._tell = tell
        self._scheduler = Scheduler(limits)
        self._batch = ActiveBatch(model)
        self._alone = ActiveBatch(model)  # for one suspect at a time
        self._suspects: deque[_Run] = deque()
        self._runs: dict[int, _Run] = {}  # by id of the request, the suspects too
        self._came: dict[int, float] = {}
        self._done = Statistics()

    @property
    def is_idle(self) -> bool:
        return not self._runs and not self._scheduler

    @property
    def statistics(self) -> Statistics:
        return replace(
            self._done,
            waiting=len(self._scheduler),
            running=len(self._runs),
            rows=self._batch.num_rows + self._alone.num_rows,
            tokens=self._tokens(),
        )

    def emptied(self) -> "Lane":
        """One that has done what this one has, and has nothing to do."""
        lane = Lane(self._model, self._scheduler.limits, self._tell)
        lane._done = self._done
        return lane

    def add(self, request: Request) -> None:
        refusal = self._scheduler.refusal(request)
        if refusal:
            self._tell(request.id, Failure("refused", refusal))
        else:
            self._came[request.id] = now = time.monotonic()
            self._scheduler.add(request, now)

    def cancel(self, id: int) -> None:
        """Its rows are free at once. One that has ended, or was never here, is no mistake."""
        if self._scheduler.cancel(id):
            del self._came[id]
        elif id in self._runs:
            self._leave(self._runs[id])

    def step(self) -> None:
        """Those whose time is up go, newcomers come, and every row has one more token."""
        self._drop_late()
        self._admit()
        if not self._alone.searches and self._suspects:
            self._encode(self._alone, [self._suspects.popleft()])
        for batch in (self._batch, self._alone):
            if batch.searches:
                self._decode(batch)

    def _tokens(self) -> int:
        return sum(run.request.tokens for run in self._runs.values())

    def _rows(self) -> int:
        """Those that the running requests may still come to have, which are more than they have now: a beam begins with
        one, and has one again where a prefix is forced on it."""
        return sum(run.request.rows - len(run.search.finished) for run in self._runs.values())

    def _drop_late(self) -> None:
        now = time.monotonic()
        late = [run for run in self._runs.values() if run.request.deadline is not None and run.request.deadline <= now]
        for run in late:
            self._leave(run)
            self._tell(run.request.id, LATE)
        for request in self._scheduler.expired(now):
            del self._came[request.id]
            self._tell(request.id, LATE)

    def _admit(self) -> None:
        if not self._scheduler:
            return
        chosen = self._scheduler.admit(self._rows(), self._tokens(), time.monotonic())
        if not chosen:
            return
        runs = [_Run(request, _search(request), self._came.pop(request.id)) for request in chosen]
        for run in runs:
            self._runs[run.request.id] = run
        self._encode(self._batch, runs)

    def _encode(self, batch: ActiveBatch, runs: Sequence[_Run]) -> None:
        """Newcomers join a batch; if the model fails at some, these fail alone."""
        start = time.monotonic()
        try:
            batch.add([run.request.source for run in runs], [run.search for run in runs])
        except Exception:
            if len(runs) == 1:
                self._fail(runs[0])
            else:
                for run in runs:
                    self._encode(batch, [run])
            return
        now = time.monotonic()
        for run in runs:
            run.encoded = now
        done = self._done
        self._done = replace(done, encoded=done.encoded + len(runs), encode_seconds=done.encode_seconds + now - start)

    def _decode(self, batch: ActiveBatch) -> None:
        """One step of a batch, and what came of it."""
        start = time.monotonic()
        rows = batch.num_rows
        try:
            ended = {id(search) for search in batch.step()}
        except Exception:
            self._break_up(batch)
            return
        now = time.monotonic()
        self._scheduler.stepped()
        done = self._done
        self._done = replace(
            done,
            steps=done.steps + 1,
            row_steps=done.row_steps + rows,
            decode_seconds=done.decode_seconds + now - start,
        )
        for run in list(self._runs.values()):
            if run.encoded and not run.first:
                run.first = now
            if id(run.search) in ended:
                self._finish(run, now)
            elif run.request.stream and run.encoded:
                self._tell_progress(run)

    def _finish(self, run: _Run, now: float) -> None:
        del self._runs[run.request.id]
        hypotheses = run.search.results()
        if not hypotheses or not all(math.isfinite(hypothesis.score) for hypothesis in hypotheses):
            log.error("the output of the model for request %d is no number: are its weights?", run.request.id)
            self._tell(run.request.id, FAILED)
            return
        generated = self._done.generated + sum(len(hypothesis.tokens) for hypothesis in hypotheses)
        self._done = replace(self._done, generated=generated)
        self._tell(run.request.id, Finished(hypotheses, Times(run.came, run.encoded, run.first, now)))

    def _tell_progress(self, run: _Run) -> None:
        tokens = settled(run.search)
        if len(tokens) > run.told:
            self._tell(run.request.id, Progress(tokens[run.told :]))
            run.told = len(tokens)

    def _break_up(self, batch: ActiveBatch) -> None:
        """The model failed at a step, and nobody knows for whom: each of the batch is run again alone."""
        searches = {id(search) for search in batch.searches}
        runs = [run for run in self._runs.values() if id(run.search) in searches]
        if batch is self._alone:
            self._alone = ActiveBatch(self._model)
            for run in runs:
                self._fail(run)
            return
        log.exception("the model failed at a step of %d requests; each is run again alone", len(runs))
        self._batch = ActiveBatch(self._model)
        for run in runs:
            run.search, run.encoded, run.first = _search(run.request), 0.0, 0.0
            self._suspects.append(run)

    def _fail(self, run: _Run) -> None:
        log.exception("the model failed at request %d", run.request.id)
        del self._runs[run.request.id]
        self._tell(run.request.id, FAILED)

    def _leave(self, run: _Run) -> None:
        del self._runs[run.request.id]
        if run in self._suspects:
            self._suspects.remove(run)
        for batch in (self._batch, self._alone):
            batch.drop(run.search)


def settled(search: BeamSearch | Sampling) -> tuple[int, ...]:
    """The tokens that its answer will begin with, whatever comes: those common to all hypotheses, live and ended."""
    tokens = [hypothesis.tokens for hypothesis in (*search.live, *search.finished)]
    if len(tokens) == 1:
        return tokens[0]
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*tokens, strict=False)))


def _search(request: Request) -> BeamSearch | Sampling:
    return make_search(request.settings, request.max_length, request.prefix)
