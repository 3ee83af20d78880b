"""What the page asks about trainings in the folder that is watched."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel

from antiphon.serving.api.native import REFUSALS, shape
from antiphon.serving.errors import shaped_by
from antiphon.serving.watch import Curves, Summary, Watcher

MOST = 12  # runs in one request for curves
T = TypeVar("T")


class RunsResponse(BaseModel):
    """Those that changed last first."""

    runs: list[Summary]


class CurvesResponse(BaseModel):
    """In the order in which they were asked for."""

    runs: list[Curves]


def router(folder: Path) -> APIRouter:
    """The routes, of the trainings in a folder. Raises ValueError when there is no such folder."""
    watcher = Watcher(folder)
    routes = APIRouter(prefix="/v1/runs", tags=["training"], route_class=shaped_by(shape), responses=REFUSALS)
    reader = ThreadPoolExecutor(1, "watch")  # one at a time, even where a client has left

    async def read(work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(reader, work, *arguments)

    @routes.get("")
    async def runs() -> RunsResponse:
        """The trainings that there are, and how they stand."""
        return RunsResponse(runs=await read(watcher.summaries))

    @routes.get("/curves")
    async def curves(name: Annotated[list[str], Query(min_length=1, max_length=MOST)]) -> CurvesResponse:
        """How some trainings went; give `name` again for each."""
        return CurvesResponse(runs=await read(watcher.curves, name))

    return routes
