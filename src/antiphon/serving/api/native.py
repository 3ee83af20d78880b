"""The native dialect: everything that the models and the engine can do, in their own words."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from antiphon.serving.client import client_of
from antiphon.serving.errors import RefusedError, invalid, shaped_by
from antiphon.serving.service import Answer, Ask, Delta, Service, aside
from antiphon.text_side import Output

WIDEST = 32  # beam_size and n_best


class Search(BaseModel):
    """How to search; what is left out is the model's own setting."""

    model_config = ConfigDict(extra="forbid")

    beam_size: int | None = Field(None, ge=1, le=WIDEST)
    n_best: int | None = Field(None, ge=1, le=WIDEST)
    length_penalty: float | None = Field(None, ge=0, le=10)
    min_length: int | None = Field(None, ge=0)
    max_length: int | None = Field(None, ge=1)
    no_repeat_ngram: int | None = Field(None, ge=0)
    sample: bool | None = None
    temperature: float | None = Field(None, ge=0.01, le=100)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=1 << 63)


class GenerateRequest(Search):
    """What to answer, and how.

    prefix: what every output begins with. split: sentence takes a long text apart and keeps its layout. alignments:
    attention of each output token over the source's. stream: server-sent events, for one text and its best output.
    timeout: seconds after which nobody waits any more.
    """

    text: str | Annotated[list[str], Field(min_length=1)]
    model: str | None = None
    prefix: str = ""
    split: Literal["none", "sentence"] = "none"
    language: str = Field("en", max_length=35)
    stop: list[Annotated[str, Field(min_length=1)]] = Field([], max_length=16)
    alignments: bool = False
    stream: bool = False
    timeout: float | None = Field(None, gt=0)


class GeneratedText(BaseModel):
    """One output. score: its log-probability (natural logarithm); token_scores: those of its tokens and its end;
    finished: it ended by itself; attention: of each token over the source's, where asked for."""

    text: str
    score: float
    tokens: list[str]
    token_scores: list[float]
    finished: bool
    attention: list[list[float]] | None = None


class Sentence(BaseModel):
    source: str
    target: str


class GenerateResponse(BaseModel):
    """outputs: for each text its n best, best first. sentences: of each text that was split, and their outputs."""

    model: str
    outputs: list[list[GeneratedText]]
    sentences: list[list[Sentence]] | None = None


class ScoreRequest(BaseModel):
    """Pairs of texts: how probable is each target, given its source?"""

    model_config = ConfigDict(extra="forbid")

    source: str | Annotated[list[str], Field(min_length=1)]
    target: str | Annotated[list[str], Field(min_length=1)]
    model: str | None = None


class ScoreResponse(BaseModel):
    """scores: log-probabilities (natural logarithm) of the targets, with their ends; tokens: how many these are."""

    model: str
    scores: list[float]
    tokens: list[int]


class TraceRequest(Search):
    """One text whose decode to look at. target: a true target to set beside it; alternatives: at each step."""

    text: str
    model: str | None = None
    target: str | None = None
    prefix: str = ""
    alternatives: int = Field(8, ge=1, le=64)


class Refusal(BaseModel):
    """A word for programs, a sentence for people, and the field at fault, where there is one."""

    reason: str
    message: str
    parameter: str | None


class RefusalResponse(BaseModel):
    """Why there is no answer."""

    error: Refusal


EVENTS = "text/event-stream"
ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, or its events.", "content": {EVENTS: {}}}
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    422: {"model": RefusalResponse, "description": "It asks for what cannot be."},
    "default": {"model": RefusalResponse, "description": "It is refused, or the server failed."},
}


def shape(error: RefusedError) -> Response:
    body = {"error": {"reason": error.reason, "message": error.message, "parameter": error.parameter}}
    return JSONResponse(body, error.status, headers=error.headers)


def router(service: Service) -> APIRouter:
    """The routes of this dialect."""
    routes = APIRouter(prefix="/v1", tags=["native"], route_class=shaped_by(shape), responses=REFUSALS)

    @routes.post("/generate", response_model=GenerateResponse, responses=ANSWERED)
    async def generate(body: GenerateRequest, request: Request) -> Response:
        client = client_of(request)
        ask = _ask(body)
        name, _ = service.side(body.model)
        if not body.stream:
            answers = await service.answer(ask, client)
            content = _response(name, answers, body.split).model_dump_json(exclude_none=True)
            return Response(content, media_type="application/json")
        if len(ask.texts) > 1 or body.alignments:
            raise invalid("stream: takes one text, and no alignments.", "stream")
        parts = service.stream(ask, client)
        first = await anext(parts)
        return StreamingResponse(_events(name, first, parts, body.split), media_type=EVENTS)

    @routes.post("/score")
    async def score(body: ScoreRequest, request: Request) -> ScoreResponse:
        name, _ = service.side(body.model)
        sources, targets = ([one] if isinstance(one, str) else one for one in (body.source, body.target))
        if len(sources) != len(targets):
            raise invalid(f"target: expected {len(sources)}, one for each source, found {len(targets)}.", "target")
        if len(sources) > service.settings.max_texts:
            raise invalid(f"source: at most {service.settings.max_texts}, found {len(sources)}.", "source")
        lengths = await aside([*sources, *targets], partial(_lengths, service, name, sources, targets))
        pairs = list(zip(sources, targets, strict=True))
        scores = await service.call(name, "score", client_of(request), pairs=pairs)
        return ScoreResponse(model=name, scores=scores, tokens=[length + 1 for length in lengths])

    @routes.post("/trace")
    async def trace(body: TraceRequest, request: Request) -> JSONResponse:
        name, _ = service.side(body.model)
        await aside([body.text], partial(service.check_length, name, body.text))
        service.check_settings(name, _search(body), body.prefix)
        settings = {key: value for key, value in _search(body).items() if value is not None}
        asked = body.model_dump(include={"text", "target", "prefix", "alternatives"})
        return JSONResponse(
            {"model": name} | await service.call(name, "trace", client_of(request), **asked, settings=settings)
        )

    return routes


def _lengths(service: Service, name: str, sources: Sequence[str], targets: Sequence[str]) -> list[int]:
    """Of the targets. Refuses what is too long."""
    for text in sources:
        service.check_length(name, text)
    return [service.check_target(name, text) for text in targets]


def _search(body: Search) -> dict[str, Any]:
    return body.model_dump(include=set(Search.model_fields))


def _ask(body: GenerateRequest) -> Ask:
    texts = [body.text] if isinstance(body.text, str) else body.text
    same = body.model_dump(include={"model", "prefix", "split", "language", "stop", "alignments", "timeout"})
    return Ask(texts, settings=_search(body), **same)


def _response(name: str, answers: list[Answer], how: str) -> GenerateResponse:
    sentences = [[Sentence(source=source, target=target) for source, target in answer.sentences] for answer in answers]
    outputs = [[_shown(output) for output in answer.outputs] for answer in answers]
    return GenerateResponse(model=name, outputs=outputs, sentences=sentences if how == "sentence" else None)


async def _events(
    name: str, first: Delta | Answer, rest: AsyncGenerator[Delta | Answer, None], how: str
) -> AsyncIterator[str]:
    """`data: {"delta": ...}` for further text, and at the end the whole answer, or an error, as an event of that
    name."""
    part: Delta | Answer = first
    async with aclosing(rest):  # whatever becomes of the client
        try:
            while True:
                if isinstance(part, Answer):
                    answer = _response(name, [part], how).model_dump_json(exclude_none=True)
                    yield f"event: answer\ndata: {answer}\n\n"
                    return
                yield f"data: {json.dumps({'delta': part.text}, ensure_ascii=False)}\n\n"
                part = await anext(rest)
        except RefusedError as error:
            yield f"event: error\ndata: {bytes(shape(error).body).decode()}\n\n"


def _shown(output: Output) -> GeneratedText:
    return GeneratedText(
        text=output.text,
        score=output.score,
        tokens=output.tokens,
        token_scores=output.token_scores,
        finished=output.finished,
        attention=output.attention,
    )
