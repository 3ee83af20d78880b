"""Engines for an asyncio program: in this process as a thread, or in processes of their own, one a core.

A request goes to the engine that has the least to do. An engine process that dies fails what it was doing, with a clear
reason, and is begun again while the others go on; one that hangs is asked last, and killed before long.
"""

import asyncio
import logging
import math
import os
import socket
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.engine.messages import CLOSE, Answer, Broken, Hosted, Message, Ready
from antiphon.engine.request import (
    Call,
    Delivery,
    Event,
    Failure,
    Finished,
    Progress,
    Request,
    Returned,
    Statistics,
)

if TYPE_CHECKING:
    from antiphon.engine.engine import Engine

log = logging.getLogger(__name__)

LOST = Failure("lost", "the engine ended while it worked on this request; ask again.")
LATE = Failure("late", "the engine did not answer, and its deadline passed; ask again later.")
SILENT_SECONDS = 5.0  # that an engine may be silent of a request whose deadline has passed, or read nothing
HUNG_SECONDS = 30.0  # that it may be silent altogether after that
LONGEST_PAUSE = 30.0  # seconds before an engine that dies again and again is begun again
CLOSING_SECONDS = 10.0  # that an engine without work may take to end
CALL_TOKENS = 256  # what a call counts as


class UnavailableError(Exception):
    """No engine is there to take a request: they are loading, or have just died."""


class Ticket:
    """What becomes of one request or call."""

    def __init__(self, id: int, tokens: int, cancel: Callable[["Ticket"], None]) -> None:
        self.id = id
        self.tokens = tokens
        self.ended = False
        self.timer: asyncio.TimerHandle | None = None  # set for one that has a deadline
        self._cancel = cancel
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        self.ended = not isinstance(event, Progress)
        self._events.put_nowait(event)

    def cancel(self) -> None:
        """Frees what it holds; once it has ended, or again, this does nothing."""
        if not self.ended:
            self.ended = True
            self._cancel(self)

    async def events(self) -> AsyncIterator[Event]:
        """Its events up to the last. Whoever stops reading before cancels it."""
        try:
            while True:
                event = await self._events.get()
                yield event
                if not isinstance(event, Progress):
                    return
        finally:
            self.cancel()

    async def end(self) -> Finished | Returned | Failure:
        """Its last event."""
        try:
            while isinstance(event := await self._events.get(), Progress):
                pass
            return event
        finally:
            self.cancel()


class EnginePool:
    """Engines that all run the same models. workers: processes; 0: a thread of this process."""

    def __init__(self, hosted: Hosted, workers: int) -> None:
        self._members: list[_Member] = (
            [_ProcessMember(replace(hosted, threads=hosted.threads or 1)) for _ in range(workers)]
            if workers
            else [_ThreadMember(hosted)]
        )
        self._ids = count(1)

    async def start(self) -> None:
        """Returns when all engines are ready. Raises ValueError, in a sentence, for a model that cannot be had; where
        only some engines have failed, these are begun again."""
        try:
            ended = await asyncio.gather(*(member.start() for member in self._members), return_exceptions=True)
            failed = [(member, error) for member, error in zip(self._members, ended, strict=True) if error is not None]
            if len(failed) == len(self._members):
                raise failed[0][1]
        except BaseException:
            await self.close()
            raise
        for member, error in failed:
            log.error("%s", error)
            member.begin_again()

    async def close(self) -> None:
        """Ends the engines, when they have finished what they are doing."""
        await asyncio.gather(*(member.close() for member in self._members))

    @property
    def ready(self) -> int:
        """How many engines take requests."""
        return sum(member.ready for member in self._members)

    @property
    def is_ready(self) -> bool:
        return self.ready > 0

    @property
    def outstanding(self) -> int:
        """Requests and calls that have not ended."""
        return sum(len(member.tickets) for member in self._members)

    @property
    def pids(self) -> list[int]:
        """Of the engine processes that run."""
        return [pid for member in self._members if (pid := member.pid) is not None]

    @property
    def statistics(self) -> Statistics:
        """Of all engines together."""
        return total([member.statistics for member in self._members])

    def submit(self, **request: Any) -> Ticket:
        """A request, by the fields of `Request` but its id. Raises UnavailableError."""
        asked = Request(id=next(self._ids), **request)
        return self._member().submit(asked, asked.id, asked.tokens)

    def call(self, model: str, method: str, **arguments: Any) -> Ticket:
        """A call. Raises UnavailableError."""
        asked = Call(next(self._ids), model, method, arguments)
        return self._member().submit(asked, asked.id, CALL_TOKENS)

    def _member(self) -> "_Member":
        ready = [member for member in self._members if member.ready]
        if not ready:
            raise UnavailableError("no engine is ready yet; ask again in a moment.")
        return min(ready, key=lambda member: (member.silent_since is not None, member.load))


def total(statistics: list[Statistics]) -> Statistics:
    """Their sums."""
    return Statistics(*(sum(getattr(one, field.name) for one in statistics) for field in fields(Statistics)))


class _Member(ABC):
    """One engine, and what it was asked."""

    def __init__(self, hosted: Hosted) -> None:
        self.hosted = hosted
        self.ready = False
        self.tickets: dict[int, Ticket] = {}
        self.load = 0  # tokens asked of it
        self.silent_since: float | None = None  # it told nothing of a request whose deadline had passed, nor since
        self.statistics = Statistics()

    @property
    def pid(self) -> int | None:
        """Of its own process."""
        return None

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def begin_again(self) -> None:
        """After it has failed; it is ready later."""

    @abstractmethod
    def send(self, message: Request | Call | int) -> None:
        """A request or call to begin, or the id of one to cancel."""

    def submit(self, asked: Request | Call, id: int, tokens: int) -> Ticket:
        ticket = self.tickets[id] = Ticket(id, tokens, self._cancel)
        self.load += tokens
        if isinstance(asked, Request) and asked.deadline is not None:
            seconds = asked.deadline - time.monotonic() + SILENT_SECONDS
            ticket.timer = asyncio.get_running_loop().call_later(seconds, self._give_up_waiting, ticket)
        self.send(asked)
        return ticket

    def received(self, told: list[Delivery], statistics: Statistics) -> None:
        """From the engine."""
        self.silent_since = None
        self.statistics = statistics
        for id, event in told:
            ticket = self.tickets.get(id)
            if ticket is not None:  # else it was cancelled
                ticket.put(event)
                if ticket.ended:
                    self._forget(ticket)

    def fail_all(self, failure: Failure) -> None:
        for ticket in list(self.tickets.values()):
            ticket.put(failure)
            self._forget(ticket)

    def _cancel(self, ticket: Ticket) -> None:
        if ticket.id in self.tickets:
            self._forget(ticket)
            self.send(ticket.id)

    def _give_up_waiting(self, ticket: Ticket) -> None:
        """The engine hangs, or it would have told that the request is late. It answers the cancel if it does not."""
        self.silent_since = self.silent_since or time.monotonic()
        ticket.put(LATE)
        self._cancel(ticket)

    def _forget(self, ticket: Ticket) -> None:
        del self.tickets[ticket.id]
        if ticket.timer is not None:
            ticket.timer.cancel()
        self.load -= ticket.tokens


class _ThreadMember(_Member):
    """An engine in a thread of this process."""

    _engine: "Engine | None" = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        def deliver(told: list[Delivery], statistics: Statistics) -> None:
            loop.call_soon_threadsafe(self.received, told, statistics)

        def make() -> "Engine":
            from antiphon.engine.host import make_engine  # brings torch: the loop goes on meanwhile

            return make_engine(self.hosted, deliver)

        self._engine = await asyncio.to_thread(make)
        self._engine.start()
        self.ready = True

    def begin_again(self) -> None:
        raise AssertionError("it is alone, and a server without engines does not begin")

    async def close(self) -> None:
        self.ready = False
        if self._engine is not None:
            await asyncio.to_thread(self._engine.close)

    def send(self, message: Request | Call | int) -> None:
        assert self._engine is not None
        if isinstance(message, Request):
            self._engine.submit(message)
        elif isinstance(message, Call):
            self._engine.call(message)
        else:
            self._engine.cancel(message)


class _ProcessMember(_Member):
    """An engine in a process of its own."""

    def __init__(self, hosted: Hosted) -> None:
        super().__init__(hosted)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._unsent: list[Request | Call | int] = []
        self._started: asyncio.Future[None] | None = None
        self._closing = False
        self._failures = 0
        self._restart: asyncio.Task[None] | None = None  # begun when an engine dies that was ready once
        self._before = Statistics()  # of the engines that died

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.silent_since = None
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", math.ceil(SILENT_SECONDS), 0))
        with theirs:
            command = [sys.executable, "-P", "-m", "antiphon.engine", str(theirs.fileno())]  # -P: not what lies here
            places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
            environment = os.environ | {
                "OMP_NUM_THREADS": str(self.hosted.threads),
                "PYTHONPATH": os.pathsep.join(filter(None, places)),
            }
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        self._pipe = Connection(ours.detach())
        self._started = loop.create_future()
        loop.add_reader(self._pipe.fileno(), self._read)
        os.set_blocking(self._pipe.fileno(), True)  # uvloop has changed it, and a message is read and sent whole
        self._send(self.hosted)
        await self._started

    async def close(self) -> None:
        self._closing, self.ready = True, False
        if self._restart is not None:
            self._restart.cancel()
        if self._process is not None and self._process.poll() is None:
            self._flush()
            self._send(CLOSE)
            try:
                await asyncio.wait_for(asyncio.to_thread(self._process.wait), CLOSING_SECONDS)
            except TimeoutError:
                await self._bury()
        self._drop_pipe()

    def send(self, message: Request | Call | int) -> None:
        """All that comes in one turn of the loop goes at once: a message wakes the engine up."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(message)

    def _flush(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            self._send(unsent)

    def _send(self, message: Message | Hosted) -> None:
        try:
            if self._pipe is not None:
                self._pipe.send(message)
        except BlockingIOError:
            self._kill()  # it hangs, and has half of the message
        except OSError:
            pass  # it has died, which reading tells at once

    def _give_up_waiting(self, ticket: Ticket) -> None:
        super()._give_up_waiting(ticket)
        asyncio.get_running_loop().call_later(HUNG_SECONDS, self._kill_if_silent, self.silent_since)

    def _kill_if_silent(self, since: float | None) -> None:
        if since is not None and since == self.silent_since:
            self._kill()

    def _kill(self) -> None:
        """Reading tells of its end, and another begins."""
        log.error("an engine process hangs, and is killed")
        if self._process is not None:
            self._process.kill()

    def _read(self) -> None:
        """Something has come through the pipe, or its end."""
        assert self._pipe is not None
        try:
            while self._pipe is not None and self._pipe.poll():
                self._take(self._pipe.recv())
        except (EOFError, OSError):
            self._lost()

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Ready):
            self.ready, self._failures = True, 0
            if self._started is not None and not self._started.done():
                self._started.set_result(None)
        elif isinstance(answer, Broken):
            self._give_up(ValueError(answer.reason))
        else:
            told, statistics = answer
            self.received(told, total([self._before, statistics]))

    def _give_up(self, error: Exception) -> None:
        if self._started is not None and not self._started.done():
            self._started.set_exception(error)

    def _lost(self) -> None:
        """The process has ended."""
        self._drop_pipe()
        was_ready, self.ready = self.ready, False
        zero = dict.fromkeys(("waiting", "running", "rows", "tokens"), 0)
        self._before = self.statistics = replace(self.statistics, **zero)
        self.fail_all(LOST)
        self._give_up(ValueError("the engine process ended while it loaded the models; its message is above."))
        if was_ready and not self._closing:
            self.begin_again()

    def begin_again(self) -> None:
        self._restart = asyncio.get_running_loop().create_task(self._begin_again())

    async def _begin_again(self) -> None:
        while not self._closing:
            pause = min(LONGEST_PAUSE, 0.25 * 2**self._failures)
            self._failures += 1
            log.error("an engine process ended by itself; another begins in %.2f seconds", pause)
            await asyncio.sleep(pause)
            try:
                await self._bury()
                await self.start()
                return
            except (ValueError, OSError) as error:
                log.error("%s", error)

    async def _bury(self) -> None:
        """Ends what is left of a process whose pipe has ended, so that it holds no memory beside the next."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _drop_pipe(self) -> None:
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._pipe.close()
            self._pipe = None
