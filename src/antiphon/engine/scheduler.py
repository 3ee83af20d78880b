"""Who is next: requests wait here until the running batch has room for them. No tensors, no clock of its own.

A request is admitted when all that it may come to need is free, so whatever runs can finish and nothing is ever thrown
out. Keys share by weighted fair queueing: next is who has been given the fewest tokens, and those of a batch job count
more, so that interactive requests go first and nobody starves. Newcomers are encoded together, the longer the batch
would stand still for them the more together: at once when nothing runs, else when enough of them wait, or the first has
waited for some milliseconds or steps.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from antiphon.engine.request import Request

BATCH_WEIGHT = 8.0  # a token of a batch job counts as so many
SPARE_DEADLINES = 64  # of requests that wait no more, kept until they are swept out together


@dataclass(frozen=True)
class Limits:
    """Of what one model runs at once. rows: hypotheses; tokens: of sources and outputs, as long as they may become.

    A newcomer that finds a batch running waits for others: until they are `share` of its rows, or for `patience`
    seconds, or `steps` steps. encode_tokens: source tokens taken in between two steps; a longer source is taken alone.
    """

    rows: int = 256
    tokens: int = 65_536
    share: float = 0.125
    patience: float = 0.004
    steps: int = 4
    encode_tokens: int = 1024


@dataclass
class _Flow:
    """The waiting requests of one key and priority by their ids, the oldest first, each with when it came, and the
    tokens that it has been given, weighted."""

    weight: float
    given: float
    waiting: OrderedDict[int, tuple[float, Request]] = field(default_factory=OrderedDict)

    @property
    def first(self) -> tuple[float, Request]:
        return next(iter(self.waiting.values()))


class Scheduler:
    """The waiting requests of one model."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._flows: dict[tuple[str, str], _Flow] = {}
        self._flow_of: dict[int, _Flow] = {}  # by id of the waiting request
        self._rows = 0  # that those who wait need together
        self._deadlines: list[tuple[float, int]] = []  # of those who wait, and of some who do no more
        self._given = 0.0  # of the flow that was next
        self._steps = 0  # since somebody was admitted

    def __len__(self) -> int:
        return len(self._flow_of)

    def refusal(self, request: Request) -> str | None:
        """Why a request can never run, or None."""
        limits = self.limits
        if request.rows > limits.rows:
            return f"it needs {request.rows} rows, and at most {limits.rows} run; ask for a smaller beam or n_best."
        if request.tokens > limits.tokens:
            return (
                f"it may need {request.tokens} tokens (source, and rows times max_length), and at most {limits.tokens} "
                "are kept; ask for a smaller beam, n_best or max_length."
            )
        return None

    def add(self, request: Request, now: float) -> None:
        weight = BATCH_WEIGHT if request.priority == "batch" else 1.0
        flow = self._flows.setdefault((request.key, request.priority), _Flow(weight, self._given))
        flow.waiting[request.id] = (now, request)
        self._flow_of[request.id] = flow
        self._rows += request.rows
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, request.id))

    def cancel(self, id: int) -> bool:
        """Takes a waiting request out; whether it was here."""
        found = id in self._flow_of
        if found:
            self._take(id)
            self._forget_idle_flows()
        return found

    def expired(self, now: float) -> list[Request]:
        """Takes out those whose deadline has passed."""
        if len(self._deadlines) > 2 * len(self._flow_of) + SPARE_DEADLINES:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._flow_of]
            heapq.heapify(self._deadlines)
        found = []
        while self._deadlines and self._deadlines[0][0] <= now:
            id = heapq.heappop(self._deadlines)[1]
            if id in self._flow_of:
                found.append(self._take(id))
        if found:
            self._forget_idle_flows()
        return found

    def _take(self, id: int) -> Request:
        _, request = self._flow_of.pop(id).waiting.pop(id)
        self._rows -= request.rows
        return request

    def _forget_idle_flows(self) -> None:
        """Those that would begin where a new one does."""
        self._flows = {name: flow for name, flow in self._flows.items() if flow.waiting or flow.given > self._given}

    def stepped(self) -> None:
        """The running batch has made a step."""
        self._steps += 1

    def admit(self, rows: int, tokens: int, now: float) -> list[Request]:
        """Those to encode and run now, the longest last; rows, tokens: of the running batch. Takes them out."""
        if not self._flow_of or not self._is_time(rows, now):
            return []
        chosen: list[Request] = []
        encoded = 0
        for flow, request in self._by_turn():
            rows, tokens, encoded = rows + request.rows, tokens + request.tokens, encoded + len(request.source)
            full = rows > self.limits.rows or tokens > self.limits.tokens
            if full or (chosen and encoded > self.limits.encode_tokens):
                break
            chosen.append(self._take(request.id))
            self._given = flow.given
            flow.given += flow.weight * request.tokens
        if chosen:
            self._steps = 0
            self._forget_idle_flows()
        return sorted(chosen, key=lambda request: len(request.source))

    def _is_time(self, rows: int, now: float) -> bool:
        limits = self.limits
        if rows == 0 or self._steps >= limits.steps:
            return True
        oldest = min(flow.first[0] for flow in self._flows.values() if flow.waiting)
        return now - oldest >= limits.patience or self._rows >= max(1.0, limits.share * rows)

    def _by_turn(self) -> Iterator[tuple[_Flow, Request]]:
        """Each time the first request of the flow that has been given the least; whoever reads takes it, or stops."""
        while flows := [flow for flow in self._flows.values() if flow.waiting]:
            flow = min(flows, key=lambda flow: (flow.given, flow.first[0]))
            yield flow, flow.first[1]
