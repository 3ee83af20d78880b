"""Running the service: a socket, Uvicorn over it, and how it begins and ends.

The first signal lets whatever is being answered end, to its last byte, and refuses what is new; the second ends all.
"""

import asyncio
import errno
import logging
import os
import socket
import sys
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from antiphon.serving.app import create_app
from antiphon.serving.logs import json_logs
from antiphon.serving.settings import ServerSettings

LOOK_EVERY = 0.05  # seconds, while requests end
LINGER = 0.5  # seconds at least from the signal to the end: who has just asked is told 503, and that it is the last
QUIET_SECONDS = 75  # after which a connection without a request is closed: more than proxies keep theirs
CUT_OFF = 1  # exit code when requests were cut off

log = logging.getLogger(__name__)


def run_server(settings: ServerSettings, host: str, port: int) -> None:
    """Serves until it is told to stop. Raises ValueError when the address or a model cannot be had, and SystemExit when
    answers had to be cut off."""
    with json_logs():
        app = create_app(settings)
        listener = _listen(host, port)
        host, port = listener.getsockname()[:2]
        place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        server = _Server(app, place, settings.drain_seconds)
        server.run(sockets=[listener])
        if app.state.failure is not None:
            raise app.state.failure
        if server.cut_off:
            log.error("the time to stop was over: %d requests were cut off", server.cut_off)
            sys.exit(CUT_OFF)


class _Server(uvicorn.Server):
    """Uvicorn, which says when it is ready, goes on answering while what runs is finished, and ends when its models
    cannot be had."""

    def __init__(self, app: FastAPI, place: str, drain_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_config=None, access_log=False, timeout_keep_alive=QUIET_SECONDS, server_header=False
            )
        )
        self.app = app
        self.cut_off = 0
        self._place = place
        self._drain_seconds = drain_seconds
        self._announced = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._quiet: dict[Any, tuple[object, float]] = {}  # connections: their last request, and since when

    async def on_tick(self, counter: int) -> bool:
        service = self.app.state.service
        if service.is_ready and not self._announced:
            self._announced = True
            self._announce()
        if counter % 10 == 0:
            self._close_quiet(time.monotonic())
        return self.app.state.failure is not None or await super().on_tick(counter)

    def _announce(self) -> None:
        service, place = self.app.state.service, self._place
        if service.sides:
            print(f"Serving {', '.join(service.sides)} at {place}, a page to use it by (its API: {place}/docs)")
            body = '\'{"text": "..."}\''
            print(f"Try: curl -s {place}/v1/generate -H 'content-type: application/json' -d {body}")
        if service.settings.watch is not None:
            print(f"Watching the trainings in {service.settings.watch} at {place}/#training")
        sys.stdout.flush()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Last bytes are on their way, and connections without requests are closed."""
        self.config.timeout_graceful_shutdown = max(1, round(self._until - time.monotonic()))
        await super().shutdown(sockets)
        self.cut_off = max(self.cut_off, len(self.server_state.connections))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        service = self.app.state.service
        if service.draining:
            os.write(2, b"antiphon: stopped at once, at a second signal.\n")
            os._exit(CUT_OFF)  # engine processes end when their pipes do
        service.draining = True
        self._until = time.monotonic() + self._drain_seconds
        if self._loop is None:
            self.should_exit = True
        else:
            asyncio.run_coroutine_threadsafe(self._drain(), self._loop)

    _until = 0.0  # when the time to drain is over

    async def _drain(self) -> None:
        log.info("stopping: %d requests are finished first", self.app.state.traffic.open)
        await asyncio.sleep(min(LINGER, self._drain_seconds))
        while self.app.state.traffic.open and time.monotonic() < self._until:
            await asyncio.sleep(LOOK_EVERY)
        self.cut_off = self.app.state.traffic.open
        self.should_exit = True

    def _close_quiet(self, now: float) -> None:
        """Closes connections on which no request has come for long, not even whole headers, which nobody else does."""
        before, self._quiet = self._quiet, {}
        for connection in list(self.server_state.connections):
            cycle: Any = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                continue
            last, since = before.get(connection, (None, now))
            self._quiet[connection] = cycle, (since if last is cycle else now)
            if now - self._quiet[connection][1] > QUIET_SECONDS:
                connection.transport.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio would not know that it may send small answers at once (TCP_NODELAY).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        what = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise ValueError(f"{host}:{port}: this address {what}; choose another --host or --port.") from None
    return listener
