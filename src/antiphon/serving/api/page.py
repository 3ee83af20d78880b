"""The page at / and the files it consists of, read once when the server begins and sent as they are, or packed."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from antiphon.serving.errors import RefusedError, shown

FOLDER = Path(__file__).parent.parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """A file of the page. packed: with gzip; tag: another one when its bytes are others."""

    body: bytes
    packed: bytes
    media_type: str
    tag: str


def read_assets() -> dict[str, Asset]:
    """The files by their paths below the folder of the page."""
    files = [file for file in sorted(FOLDER.rglob("*")) if file.suffix in TYPES]
    return {file.relative_to(FOLDER).as_posix(): _asset(file) for file in files}


def _asset(file: Path) -> Asset:
    body = file.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return Asset(body, gzip.compress(body, mtime=0), TYPES[file.suffix], tag)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)
    assets = read_assets()

    @routes.get("/")
    async def index(request: Request) -> Response:
        return _sent(assets["index.html"], request)

    @routes.get("/favicon.ico")
    async def icon(request: Request) -> Response:
        return _sent(assets["icon.svg"], request)

    @routes.get("/page/{path:path}")
    async def asset(path: str, request: Request) -> Response:
        if path not in assets:
            raise RefusedError(404, "not_found", f"GET /page/{shown(path)}: the page has no such file.")
        return _sent(assets[path], request)

    return routes


def _sent(asset: Asset, request: Request) -> Response:
    """Whoever has it already is told so; a browser asks each time, so that a new release is seen at once."""
    headers = {"cache-control": "no-cache", "etag": asset.tag, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == asset.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, media_type=asset.media_type, headers=headers | {"content-encoding": "gzip"})
    return Response(asset.body, media_type=asset.media_type, headers=headers)
