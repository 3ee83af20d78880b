"""The application: models behind every dialect. `create_app` is what servers and replicas call."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from antiphon.serving.api import native
from antiphon.serving.service import Service
from antiphon.serving.settings import ServerSettings

log = logging.getLogger(__name__)


def create_app(settings: ServerSettings) -> FastAPI:
    """The service of some models. It is ready a little after it has begun: `/readyz` tells. Raises ValueError for a
    model folder that is none."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(service.pool.start())
        starting.add_done_callback(lambda task: _started(app, task))
        yield
        starting.cancel()
        await service.pool.close()

    app = FastAPI(title="Antiphon", description="Answers of encoder-decoder models.", lifespan=lifespan)
    app.state.service = service
    app.state.failure = None
    app.include_router(native.router(service))

    @app.get("/healthz", tags=["operation"])
    def healthz() -> dict[str, object]:
        """The process is alive."""
        return {"status": "ok", "models": list(service.sides)}

    @app.get("/readyz", tags=["operation"])
    def readyz() -> JSONResponse:
        """200 when requests are answered, 503 while models load or the server stops."""
        status = "ready" if service.is_ready else "stopping" if service.draining else "loading"
        return JSONResponse({"status": status}, 200 if service.is_ready else 503)

    return app


def _started(app: FastAPI, task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s", error)
        app.state.failure = error
