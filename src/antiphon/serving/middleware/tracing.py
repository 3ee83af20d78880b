"""A span of OpenTelemetry for each request, within the trace that the client's headers name.

Nothing of OpenTelemetry is imported unless it is wanted: by the setting, or by an address to send spans to in the
environment. Its own variables tell where (OTEL_EXPORTER_OTLP_ENDPOINT) and under which name (OTEL_SERVICE_NAME).
"""

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.serving.account import Account, current
from antiphon.serving.logs import QUIET

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CLOSING_SECONDS = 5.0  # that the last spans may take to be sent

log = logging.getLogger(__name__)


def make_provider(asked: bool) -> "TracerProvider | None":
    """Where spans go; None when nobody wants any. Raises ValueError when they were asked for and cannot be had."""
    if not asked and not any(os.environ.get(name) for name in VARIABLES):
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = make_exporter()
    except ImportError:
        message = 'spans need OpenTelemetry, which is not installed; pip install "antiphon[otel]".'
        if asked:
            raise ValueError(message) from None
        log.warning(message)
        return None
    name = os.environ.get("OTEL_SERVICE_NAME", "antiphon")
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def make_exporter() -> "SpanExporter":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def close(provider: "TracerProvider") -> None:
    """Sends what is left, and does not wait long for a collector that is not there."""
    thread = threading.Thread(target=provider.shutdown, name="antiphon-spans", daemon=True)
    thread.start()
    thread.join(CLOSING_SECONDS)


class Tracing:
    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app = app
        self._tracer = provider.get_tracer("antiphon")
        self._kind = SpanKind.SERVER
        self._extract = TraceContextTextMapPropagator().extract

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or current().path in QUIET:
            return await self._app(scope, receive, send)
        context = self._extract(dict(Headers(scope=scope)))
        span = self._tracer.start_span(scope["method"], context, self._kind)
        account = current()
        account.trace = f"{span.get_span_context().trace_id:032x}"
        try:
            await self._app(scope, receive, send)
        finally:
            route = getattr(scope.get("route"), "path", "")
            span.update_name(f"{scope['method']} {route}".rstrip())
            span.set_attributes(_attributes(account))
            if account.status >= 500 or account.refused in ("failed", "unavailable", "late"):
                self._mark(span)
            span.end()

    @staticmethod
    def _mark(span: Any) -> None:
        from opentelemetry.trace import StatusCode

        span.set_status(StatusCode.ERROR)


def _attributes(account: Account) -> dict[str, str | int | float]:
    """Names of HTTP are OpenTelemetry's. Times are seconds since the engine had the request."""
    found: dict[str, str | int | float] = {
        "http.request.method": account.method,
        "url.path": account.path,
        "http.response.status_code": account.status or 499,
        "antiphon.request_id": account.request_id,
        "antiphon.outcome": account.outcome,
    }
    if account.client:
        found["antiphon.key"] = account.client
    if account.model:
        found |= {
            "antiphon.model": account.model,
            "antiphon.source_tokens": account.source_tokens,
            "antiphon.output_tokens": account.output_tokens,
        }
    if (times := account.times) is not None:
        found |= {
            "antiphon.queue_seconds": times.encoded - times.came,
            "antiphon.first_token_seconds": times.first - times.came,
            "antiphon.engine_seconds": times.ended - times.came,
        }
    return found
