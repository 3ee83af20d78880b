"""How many requests are being answered; while the server stops, clients are told to connect anew, elsewhere."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.serving.service import Service


class Traffic:
    """Knows the requests whose answers have not been handed to the network to their last byte."""

    def __init__(self) -> None:
        self.open = 0


class CountedTraffic:
    def __init__(self, app: ASGIApp, traffic: Traffic, service: Service) -> None:
        self._app, self._traffic, self._service = app, traffic, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def parting(message: Message) -> None:
            if message["type"] == "http.response.start" and self._service.draining:
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        self._traffic.open += 1
        try:
            await self._app(scope, receive, parting)
        finally:
            self._traffic.open -= 1
