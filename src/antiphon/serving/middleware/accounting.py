"""Opens the account of a request: its id, how long it takes, and what is sent; tells the id in the answer."""

import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.serving.account import Account, open_account

HEADER = "x-request-id"
SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class Accounting:
    """The outermost: the others find the account open, and what it holds complete when the answer has gone out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        account = Account(
            request_id=_identity(Headers(scope=scope).get(HEADER, "")),
            method=scope["method"],
            path=scope["path"].removeprefix(scope.get("root_path", "")) or "/",
            started=time.monotonic(),
        )
        open_account(account)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                account.status = message["status"]
                MutableHeaders(scope=message)[HEADER] = account.request_id
            await send(message)
            account.sent += len(message.get("body", b""))
            account.seconds = time.monotonic() - account.started

        return await self._app(scope, receive, noted)


def _identity(asked: str) -> str:
    """The client's own, when it is a sane one."""
    return asked if SANE.fullmatch(asked) else uuid.uuid4().hex
