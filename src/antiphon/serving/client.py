"""Who asks: left in the request by the middleware that knows the keys.

Where the key may come in the body (LibreTranslate), the middleware lets a request without one through, and leaves its
refusal; whoever asks for the client meets it, unless the dialect has shown a key before.
"""

from fastapi import Request

from antiphon.serving.account import current
from antiphon.serving.errors import RefusedError
from antiphon.serving.service import ANYBODY, Client

CLIENT, KEYS = "antiphon.client", "antiphon.keys"  # in the scope of a request: a Client or RefusedError, and the Keys


def client_of(request: Request) -> Client:
    """Raises RefusedError for a request without a key, where keys are needed."""
    found = request.scope.get(CLIENT, ANYBODY)
    if isinstance(found, RefusedError):
        raise found
    assert isinstance(found, Client)
    return found


def client_for_key(request: Request, key: str | None) -> Client:
    """The client of a request whose key came in its body; that of its headers, where these have one. Raises
    RefusedError."""
    if isinstance(request.scope.get(CLIENT), RefusedError) and key:
        found = request.scope[CLIENT] = request.scope[KEYS].admit(key)
        current().client = found.name
    return client_of(request)
