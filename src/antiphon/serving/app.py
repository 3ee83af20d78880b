"""The application: models behind every dialect. `create_app` is what servers and replicas call."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from antiphon.serving.account import Account, current
from antiphon.serving.api import kserve, libretranslate, native, openai, operation, page, server
from antiphon.serving.errors import RefusedError, from_validation, shown
from antiphon.serving.keys import VARIABLE, Keys
from antiphon.serving.load import Load
from antiphon.serving.logs import log_request
from antiphon.serving.metrics import Metrics
from antiphon.serving.middleware import middleware
from antiphon.serving.middleware.tracing import close, make_provider
from antiphon.serving.middleware.traffic import Traffic
from antiphon.serving.refusals import refusal
from antiphon.serving.service import Service
from antiphon.serving.settings import ServerSettings


def create_app(settings: ServerSettings) -> FastAPI:
    """The service of some models. It is ready a little after it has begun: `/readyz` tells. Raises ValueError for a
    model folder that is none, for a folder to watch that is none, and for keys that cannot be used. app.state.failure
    is why its models could not be had.
    """
    service = Service(settings)
    keys = Keys(settings.api_keys, os.environ.get(VARIABLE))
    metrics, load, traffic = Metrics(service), Load(service), Traffic()
    provider = make_provider(settings.trace)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(service.pool.start())
        starting.add_done_callback(lambda task: _started(app, task))
        yield
        starting.cancel()
        await service.pool.close()
        if provider is not None:
            await asyncio.to_thread(close, provider)

    books: list[Callable[[Account], None]] = [
        partial(log_request, texts=settings.log_texts),
        metrics.record,
        load.record,
    ]
    app = FastAPI(
        title="Antiphon",
        description="Answers of encoder-decoder models.",
        lifespan=lifespan,
        middleware=middleware(service, keys, traffic, books, provider),
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours, where they are wanted, tell more
    )
    app.state.service, app.state.traffic = service, traffic
    app.state.failure = None
    for kind in (HTTPException, RequestValidationError, RefusedError):
        app.add_exception_handler(kind, _refused)
    app.include_router(operation.router(service, metrics, app.openapi))
    app.include_router(page.router())
    app.include_router(native.router(service))
    app.include_router(server.router(service, load))
    if settings.watch is not None:
        from antiphon.serving.api import watch  # brings numpy

        app.include_router(watch.router(settings.watch))
    app.include_router(openai.router(service))
    app.include_router(libretranslate.router(service))
    app.include_router(kserve.router(service))
    return app


def _started(app: FastAPI, task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        app.state.failure = task.exception()


async def _refused(request: Request, error: Exception) -> Response:
    """What is wrong with a request before a dialect has it: the path, the method, a body that cannot be read."""
    path = current().path
    if isinstance(error, RequestValidationError):
        return refusal(path, from_validation(error))
    if isinstance(error, HTTPException):
        unknown = error.status_code in (404, 405)
        told = f"{request.method} {shown(path)}: {error.detail}; /docs tells what there is."
        if not unknown:
            told = (
                f"the body cannot be read ({error.detail}); send it as /docs tells, as UTF-8 and not nested too deep."
            )
        answer = refusal(path, RefusedError(error.status_code, "not_found" if unknown else "invalid", told))
        answer.headers.update(error.headers or {})
        return answer
    assert isinstance(error, RefusedError)
    return refusal(path, error)
