"""For those who keep the server going: is it alive, is it ready, what does it do; and the API's page."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from antiphon.serving.metrics import Metrics
from antiphon.serving.reference import STYLE, page
from antiphon.serving.service import Service


def router(service: Service, metrics: Metrics, describe: Callable[[], dict[str, Any]]) -> APIRouter:
    """The routes. describe: the API, by OpenAPI."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz")
    async def healthz() -> dict[str, object]:
        """The process is alive."""
        return {"status": "ok", "models": list(service.sides)}

    @routes.get("/readyz", responses={503: {"description": "Not now."}})
    async def readyz(request: Request) -> JSONResponse:
        """200 when requests are answered, 503 while models load, when they could not be had, or the server stops."""
        failed = getattr(request.app.state, "failure", None) is not None
        idle = "failed" if failed else "stopping" if service.draining else "loading"
        return JSONResponse({"status": "ready" if service.is_ready else idle}, 200 if service.is_ready else 503)

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def read_metrics(request: Request) -> Response:
        """For Prometheus."""
        body, content_type = metrics.shown(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    @routes.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(describe()))

    @routes.get("/docs/style.css", include_in_schema=False)
    async def style() -> Response:
        return Response(STYLE, media_type="text/css")

    return routes
