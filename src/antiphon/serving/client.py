"""Who asks: left in the request by the middleware that knows the keys."""

from fastapi import Request

from antiphon.serving.service import ANYBODY, Client


def client_of(request: Request) -> Client:
    found = request.scope.get("antiphon.client", ANYBODY)
    assert isinstance(found, Client)
    return found
