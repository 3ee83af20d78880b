"""Running the service: a socket, and Uvicorn over it."""

import asyncio
import errno
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from antiphon.serving.app import create_app
from antiphon.serving.settings import ServerSettings

LOOK_EVERY = 0.05  # seconds, while requests end


def run_server(settings: ServerSettings, host: str, port: int) -> None:
    """Serves until it is told to stop. The first signal (Ctrl-C or SIGTERM) refuses what is new and finishes what runs;
    a second stops at once. Raises ValueError when the address or a model cannot be had."""
    app = create_app(settings)
    listener = _listen(host, port)
    host, port = listener.getsockname()[:2]
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    server = _Server(app, place)
    server.run(sockets=[listener])
    if app.state.failure is not None:
        raise app.state.failure


class _Server(uvicorn.Server):
    """Uvicorn, which says when it is ready, goes on answering while what runs is finished, and ends when its models
    cannot be had."""

    def __init__(self, app: FastAPI, place: str) -> None:
        super().__init__(uvicorn.Config(app, log_level="warning", access_log=False))
        self.app = app
        self._place = place
        self._announced = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def on_tick(self, counter: int) -> bool:
        service = self.app.state.service
        if service.is_ready and not self._announced:
            self._announced = True
            print(f"Serving {', '.join(service.sides)} at {self._place} (API page: {self._place}/docs)")
            body = "'{\"text\": \"...\"}'"
            print(f"Try: curl -s {self._place}/v1/generate -H 'content-type: application/json' -d {body}", flush=True)
        return self.app.state.failure is not None or await super().on_tick(counter)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        await super().main_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        service = self.app.state.service
        if service.draining or self._loop is None:
            self.should_exit, self.force_exit = True, service.draining
        else:
            service.draining = True
            asyncio.run_coroutine_threadsafe(self._drain(), self._loop)

    async def _drain(self) -> None:
        while self.app.state.service.pool.outstanding:
            await asyncio.sleep(LOOK_EVERY)
        self.should_exit = True


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
