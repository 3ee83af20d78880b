"""What the page asks about the server itself: which models there are, and what it does at this moment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from antiphon.serving.api.native import REFUSALS, shape
from antiphon.serving.errors import shaped_by
from antiphon.serving.languages import Pair, name_of, routes_of
from antiphon.serving.load import Load
from antiphon.serving.service import Service
from antiphon.text_side import TextSide, members_of


class Language(BaseModel):
    code: str
    name: str


class ServedModel(BaseModel):
    """source and target: its languages, where they are known and there is one of each. tags: what a source can begin
    with to tell what is wanted. attention: of the decoder to the source. max_tokens: that a source may have.
    generation: what it does where a request says nothing. members: more than one is an ensemble, and what is told is of
    its first."""

    name: str
    members: int
    source: Language | None
    target: Language | None
    tags: list[str]
    encoder: str
    decoder: str
    attention: str
    encoder_layers: int
    decoder_layers: int
    d_model: int
    num_heads: int
    source_tokens: str = Field(description="the kind of tokens that a source is cut into")
    target_tokens: str
    source_vocabulary: int
    target_vocabulary: int
    train_pairs: int
    max_tokens: int
    generation: dict[str, Any]


class ServerResponse(BaseModel):
    """status: ready, loading or stopping. max_texts: in one request. watching: trainings are shown, at /v1/runs."""

    status: str
    models: list[ServedModel]
    max_texts: int
    watching: bool


class LoadResponse(BaseModel):
    """time: seconds since 1970. engines: those that take requests. Now: requests that wait, that run, hypotheses that
    run, tokens kept for them. Since they began: the others, up to decode_seconds. answered, p50, p95: requests of the
    last `window` seconds, and the seconds they took."""

    time: float
    engines: int
    waiting: int
    running: int
    rows: int
    tokens: int
    steps: int
    row_steps: int
    encoded: int
    generated: int
    encode_seconds: float
    decode_seconds: float
    window: float
    answered: int
    p50: float | None
    p95: float | None


def router(service: Service, load: Load) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1", tags=["server"], route_class=shaped_by(shape), responses=REFUSALS)

    @routes.get("/server")
    async def server() -> ServerResponse:
        """What is served."""
        runs, told = service.settings.runs, service.settings.languages
        models = [_model(name, side, members_of(runs[name]), told.get(name)) for name, side in service.sides.items()]
        status = "stopping" if service.draining else "ready" if service.is_ready else "loading"
        settings = service.settings
        return ServerResponse(
            status=status, models=models, max_texts=settings.max_texts, watching=settings.watch is not None
        )

    @routes.get("/load")
    async def read_load() -> LoadResponse:
        """What the server does at this moment."""
        return LoadResponse(**load.now())

    return routes


def _model(name: str, side: TextSide, members: Sequence[Path], told: Pair | None) -> ServedModel:
    config, tokenizers = side.config.model, side.tokenizers
    routes = routes_of(name, told, side.facts.tags)
    source, target = (
        (Language(code=code, name=name_of(code)) for code in routes[0][:2]) if len(routes) == 1 else (None, None)
    )
    return ServedModel(
        name=name,
        members=len(members),
        source=source,
        target=target,
        tags=list(side.facts.tags),
        encoder=config.encoder,
        decoder=config.decoder,
        attention="multi-head" if config.decoder in ("transformer", "ssru") else config.attention,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        d_model=config.d_model,
        num_heads=config.num_heads,
        source_tokens=tokenizers.source.kind,
        target_tokens=tokenizers.target.kind,
        source_vocabulary=tokenizers.source.vocab_size,
        target_vocabulary=tokenizers.target.vocab_size,
        train_pairs=side.facts.train_pairs,
        max_tokens=side.config.training.max_length,
        generation=side.config.generation.model_dump(),
    )
