"""Lets in who has a key, where keys are needed, and notes whose request it is.

Open to everybody: whether the server is alive and ready, its pages, and the description of its API. /metrics takes a
key too, and that does not count as one of its requests a minute. Where the dialect takes the key from the body, a
request without one in its headers is let through, and the refusal left for whoever asks whose it is
(serving/client.py).
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.serving.account import current
from antiphon.serving.client import CLIENT, KEYS
from antiphon.serving.errors import RefusedError
from antiphon.serving.keys import Keys
from antiphon.serving.refusals import refusal

OPEN = {
    *("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"),
    *("/", "/docs", "/docs/style.css", "/openapi.json", "/favicon.ico"),
    *("/languages", "/frontend/settings"),  # LibreTranslate's page asks for these before it has a key
}
OPEN_UNDER = ("/page/",)
KEY_IN_BODY = {"/translate", "/detect"}


class Entrance:
    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._keys.are_needed:
            return await self._app(scope, receive, send)
        path = current().path
        scope[KEYS] = self._keys
        if path in OPEN or path.startswith(OPEN_UNDER):
            return await self._app(scope, receive, send)
        key = _shown_key(Headers(scope=scope))
        try:
            client = scope[CLIENT] = self._keys.admit(key, counted=path != "/metrics")
        except RefusedError as error:
            if key or path not in KEY_IN_BODY:
                return await refusal(path, error)(scope, receive, send)
            scope[CLIENT] = error
        else:
            current().client = client.name
        return await self._app(scope, receive, send)


def _shown_key(headers: Headers) -> str | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
