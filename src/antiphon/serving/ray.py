"""The service on many machines: Ray Serve runs replicas of it, spreads requests over them, and adds and removes some.

    serve run antiphon.serving.ray:app runs=/models/english-french
    serve deploy docs/examples/ray.yaml

A replica is the whole application, with its engine in a thread. How many there are is Ray's own affair and stands in
its config; what stands here is what a replica of this service needs, which that config may replace. Nothing of Ray is
imported until an application is built.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from antiphon import machine
from antiphon.serving.settings import ServerSettings, runs_by_name
from antiphon.text_side import members_of

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAME = "Antiphon"  # of the deployment, in Ray's config
HEADER = "x-antiphon-replica"
RETRY_AFTER = 1  # seconds
CLOSING_SECONDS = 10.0  # that a replica may take to end, after its last request
ATTEMPTS = 3  # at a replica that does not start, before Ray gives up
LOOK_EVERY = 0.05  # seconds, while models load


class ReplicaSettings(ServerSettings):
    """The `args` of the application in Ray's config. runs may be words, RUN or NAME=RUN, with commas between them."""

    workers: Literal[0] = Field(0, description="the engine is a thread of the replica: more of these are Ray's affair")

    @field_validator("runs", mode="before")
    @classmethod
    def _read_words(cls, runs: object) -> object:
        return runs_by_name(runs.split(",")) if isinstance(runs, str) else runs

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        folders = [folder for run in self.runs.values() for folder in members_of(run)]
        for place in (*folders, self.watch, self.api_keys):
            if place is not None and not place.is_absolute():
                message = f"{place}: replicas run on other machines, in folders of their own; give the path from / on."
                raise ValueError(message)
        return self


def app(settings: ReplicaSettings) -> "Application":
    """The application that Ray deploys. Raises ValueError when Ray is not installed."""
    try:
        from ray import serve
    except ImportError as error:
        message = f'Ray Serve cannot be imported ({error}); pip install "antiphon[ray]".'
        raise ValueError(message) from None

    def build() -> "FastAPI":
        return replica_app(settings)

    deployment = serve.deployment(
        name=NAME,
        ray_actor_options={"num_cpus": 1},
        # Left to itself, Ray gives a replica five requests at once, and the running batch stays that small.
        max_ongoing_requests=settings.max_outstanding,
        max_queued_requests=settings.max_outstanding,
        backpressure_config={"status_code": 429, "retry_after_s": RETRY_AFTER},  # as a server by itself
        graceful_shutdown_timeout_s=settings.timeout + CLOSING_SECONDS,  # no request takes longer
        max_constructor_retry_count=ATTEMPTS,
    )
    return deployment(serve.ingress(build)(Replica)).bind()


class Replica:
    """What Ray asks of a replica, apart from HTTP."""

    app: "FastAPI"  # put there by Ray

    async def check_health(self) -> None:
        """Returns when the models are loaded; Ray sends no request to a new replica before. Raises ValueError, in a
        sentence, when they cannot be had."""
        state = self.app.state
        while not state.service.pool.is_ready:
            if state.failure is not None:
                raise ValueError(str(state.failure))
            await asyncio.sleep(LOOK_EVERY)


def replica_app(settings: ServerSettings) -> "FastAPI":
    """The application in a replica, with as many threads as Ray has set aside cores for it."""
    machine.settle()
    import ray
    import torch
    from ray import serve

    from antiphon.serving.app import create_app

    context: Any = ray.get_runtime_context()
    torch.set_num_threads(max(1, int(context.get_assigned_resources().get("CPU", 1))))
    app = create_app(settings)
    app.add_middleware(Signed, serve.get_replica_context().replica_tag)
    return app


class Signed:
    """ASGI middleware: each answer tells which replica it comes from, and leaves its request's id to Ray's proxy, which
    writes the same one."""

    def __init__(self, app: "ASGIApp", replica: str) -> None:
        self._app, self._replica = app, replica

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        from starlette.datastructures import MutableHeaders

        async def signed(message: "Message") -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = self._replica
                del headers["x-request-id"]
            await send(message)

        return await self._app(scope, receive, signed)
