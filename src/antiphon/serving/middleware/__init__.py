"""What every request passes on its way in and out, each with one job: plain ASGI, so that streams stay streams and a
client who leaves is seen."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from antiphon.serving.account import Account
from antiphon.serving.keys import Keys
from antiphon.serving.middleware.accounting import HEADER, Accounting
from antiphon.serving.middleware.bodies import Bodies
from antiphon.serving.middleware.books import Books
from antiphon.serving.middleware.entrance import Entrance
from antiphon.serving.middleware.failures import Failures
from antiphon.serving.middleware.headers import SecurityHeaders
from antiphon.serving.middleware.traffic import CountedTraffic, Traffic
from antiphon.serving.service import Service

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def middleware(
    service: Service,
    keys: Keys,
    traffic: Traffic,
    books: list[Callable[[Account], None]],
    provider: "TracerProvider | None",
) -> list[Middleware]:
    """From the outermost inwards."""
    settings = service.settings
    layers = [Middleware(CountedTraffic, traffic, service), Middleware(Accounting), Middleware(Books, books)]
    if provider is not None:
        from antiphon.serving.middleware.tracing import Tracing

        layers.append(Middleware(Tracing, provider))
    layers.append(Middleware(SecurityHeaders))
    if settings.cors_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],  # clients send some of their own; the origin is what is checked
                expose_headers=[HEADER, "retry-after", "inference-header-content-length"],
            )
        )
    return [
        *layers,
        Middleware(Failures),
        Middleware(Entrance, keys),
        Middleware(Bodies, settings.max_body, settings.body_seconds),
    ]
