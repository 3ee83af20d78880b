"""A mistake of ours becomes an answer with status 500 in the form of its dialect; the log has the traceback."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.serving.account import current
from antiphon.serving.errors import RefusedError
from antiphon.serving.refusals import refusal

log = logging.getLogger(__name__)


class Failures:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            message = f"the server failed at this request; its log tells more, at {current().request_id}."
            answer = refusal(current().path, RefusedError(500, "failed", message))
            if begun:
                raise  # the server logs it and cuts the connection: half an answer must not look like a whole one
            log.exception("a mistake of the server at %s %s", scope["method"], scope["path"][:200])
            await answer(scope, receive, send)
