"""Receives for the application: a body whole, within its limits of size and time, and then whether the client leaves.

The application is stopped when its client has left, and what it holds is free at once.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.serving.account import current
from antiphon.serving.errors import RefusedError
from antiphon.serving.refusals import refusal

PATIENCE = 0.01  # seconds after which it is worth looking whether a client has left
LINGER = 2.0  # seconds that a body which is refused is still read, or its sender might not come to read why


class LeftError(Exception):
    """The client went away before it had sent its body."""


class Bodies:
    """limit: bytes of a body; seconds: that it may take to come."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self._app, self._limit, self._seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        body = _Body(receive)
        try:
            await self._read(Headers(scope=scope), body)
        except LeftError:
            current().left = True
        except RefusedError as error:
            await _refuse(scope, body, send, error)
        else:
            await _Exchange(bytes(body.content), receive, send).run(self._app, scope)

    async def _read(self, headers: Headers, body: "_Body") -> None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._seconds):
                while body.more:
                    body.content += await body.next()
                    if len(body.content) > self._limit:
                        raise self._too_large()
        except TimeoutError:
            told = f"the body took longer than {self._seconds:g} seconds to come; send it faster."
            raise RefusedError(408, "late", told) from None

    def _too_large(self) -> RefusedError:
        return RefusedError(
            413, "too_large", f"the body is too large: at most {self._limit:,} bytes; send less at once."
        )


class _Body:
    """What has come of a body, and whether more is to come."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.content = bytearray()
        self.more = True

    async def next(self) -> bytes:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise LeftError
        self.more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


class _Exchange:
    """Between an application, which is given a body that is there, and its client, who may leave."""

    def __init__(self, body: bytes, receive: Receive, send: Send) -> None:
        self._body: bytes | None = body
        self._receive, self._send = receive, send
        self._left = asyncio.Event()
        self._complete = False
        self._watcher: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        self._task = asyncio.current_task()
        soon = asyncio.get_running_loop().call_later(PATIENCE, self._begin_watching)
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            assert self._task is not None
            if not self._left.is_set() or self._task.uncancel():
                raise
        finally:
            soon.cancel()
            if self._watcher is not None:
                self._watcher.cancel()

    async def receive(self) -> Message:
        if self._body is not None:
            message = {"type": "http.request", "body": self._body, "more_body": False}
            self._body = None
            return message
        self._begin_watching()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    def _begin_watching(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left.set()
        if not self._complete:  # else servers say so too
            assert self._task is not None
            current().left = True
            self._task.cancel()


async def _refuse(scope: Scope, body: _Body, send: Send, error: RefusedError) -> None:
    """Tells it, and ends the connection: what is left of the body has no place in another request."""

    async def lingering(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["connection"] = "close"
            await send(message)
            return
        await send({**message, "more_body": True})
        with suppress(TimeoutError, LeftError):
            async with asyncio.timeout(LINGER):
                while body.more:
                    await body.next()
        await send({"type": "http.response.body", "body": b""})

    await refusal(current().path, error)(scope, body.receive, lingering)
