"""Hands the account of each request, when it has ended, to those who keep books: the log and the metrics."""

import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.serving.account import Account, current


class Books:
    def __init__(self, app: ASGIApp, books: Sequence[Callable[[Account], None]]) -> None:
        self._app, self._books = app, books

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            await self._app(scope, receive, send)
        finally:
            account = current()
            account.seconds = time.monotonic() - account.started
            for book in self._books:
                book(account)
