"""The native dialect: everything that the models and the engine can do, in their own words."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from antiphon.serving.account import current
from antiphon.serving.answers import LONGEST_STOP, Answer, Delta
from antiphon.serving.client import client_of
from antiphon.serving.errors import RefusedError, invalid, shaped_by
from antiphon.serving.service import Ask, Service, aside
from antiphon.text_side import Output, TextSide
from antiphon.words import Word

WIDEST = 32  # beam_size and n_best
MOST_VOTERS = 64  # of mbr
LONGEST_PHRASE, MOST_PHRASES = 256, 64  # of keep


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

    prefix: what every output begins with. mbr: so many outputs are drawn, and those most like all of them are the best.
    keep: phrases; of a beam's hypotheses those are the best that leave out the fewest of them.
    split: sentence takes a long text apart and keeps its layout. alignments: attention of each output token over the
    source's. words: how probable each word of an output is. stream: server-sent events, for one text and its best
    output. timeout: seconds after which nobody waits any more.
    """

    text: str | Annotated[list[str], Field(min_length=1)]
    model: str | None = None
    prefix: str = ""
    mbr: int | None = Field(None, ge=2, le=MOST_VOTERS)
    keep: list[Annotated[str, Field(min_length=1, max_length=LONGEST_PHRASE)]] = Field([], max_length=MOST_PHRASES)
    split: Literal["none", "sentence"] = "none"
    language: str = Field("en", max_length=35)
    stop: list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]] = Field([], max_length=16)
    alignments: bool = False
    words: bool = False
    stream: bool = False
    timeout: float | None = Field(None, gt=0)


class GeneratedWord(BaseModel):
    """A word as it stands in the text. probability: that of its tokens, each after those before it, multiplied."""

    text: str
    probability: float


class GeneratedText(BaseModel):
    """One output. score: its log-probability (natural logarithm); token_scores: those of its tokens and its end;
    finished: it ended by itself; attention: of each token over the source's, and words: where asked for."""

    text: str
    score: float
    tokens: list[str]
    token_scores: list[float]
    finished: bool
    attention: list[list[float]] | None = None
    words: list[GeneratedWord] | None = None


class Sentence(BaseModel):
    """One of a text that was split. words: of the target, where asked for."""

    source: str
    target: str
    words: list[GeneratedWord] | None = None


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


class AlternativesRequest(Search):
    """What else could come after a prefix of the output. text: what the output answers; count: how many tokens to
    begin the next word with, which may come to fewer words."""

    text: str
    prefix: str = ""
    model: str | None = None
    count: int = Field(8, ge=1, le=32)
    timeout: float | None = Field(None, gt=0)


class AlternativeWord(BaseModel):
    """The word, how probable it is there, and the output that goes on from it."""

    word: str
    probability: float
    output: GeneratedText


class AlternativesResponse(BaseModel):
    """alternatives: the most probable word first."""

    model: str
    alternatives: list[AlternativeWord]


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
        name, side = service.side(body.model)
        respond = partial(_response, name, side, split=body.split == "sentence", words=body.words)
        if not body.stream:
            answers = await service.answer(ask, client)
            content = respond(answers).model_dump_json(exclude_none=True)
            return Response(content, media_type="application/json")
        if len(ask.texts) > 1 or body.alignments:
            raise invalid("stream: takes one text, and no alignments.", "stream")
        parts = service.stream(ask, client)
        first = await anext(parts)
        return StreamingResponse(_events(first, parts, respond), media_type=EVENTS)

    @routes.post("/alternatives")
    async def alternatives(body: AlternativesRequest, request: Request) -> AlternativesResponse:
        name, side = service.side(body.model)
        if (body.n_best or 1) > 1:
            raise invalid("n_best: one output goes on from each word, and no more; leave it out.", "n_best")
        settings = _search(body) | {"n_best": 1}
        ask = Ask([body.text], name, body.prefix, settings, timeout=body.timeout)
        found = await service.alternatives(ask, body.count, client_of(request))
        words = [
            AlternativeWord(
                word=one.word.text, probability=one.word.probability, output=_shown(one.output, side.words(one.output))
            )
            for one in found
        ]
        return AlternativesResponse(model=name, alternatives=words)

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
        current().asked(name, sources)
        scores = await service.call(name, "score", client_of(request), pairs=pairs)
        return ScoreResponse(model=name, scores=scores, tokens=[length + 1 for length in lengths])

    @routes.post("/trace")
    async def trace(body: TraceRequest, request: Request) -> JSONResponse:
        name, _ = service.side(body.model)
        await aside([body.text], partial(service.check_length, name, body.text))
        settings, _ = service.check_settings(name, _search(body), body.prefix)
        asked = body.model_dump(include={"text", "target", "prefix", "alternatives"})
        asked |= {"settings": settings.model_dump(), "longest": service.settings.max_output}
        current().asked(name, [body.text])
        return JSONResponse({"model": name} | await service.call(name, "trace", client_of(request), **asked))

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
    same = body.model_dump(
        include={"model", "prefix", "mbr", "keep", "split", "language", "stop", "alignments", "timeout"}
    )
    return Ask(texts, settings=_search(body), **same)


def _response(name: str, side: TextSide, answers: list[Answer], split: bool, words: bool) -> GenerateResponse:
    def words_of(output: Output) -> list[Word] | None:
        return side.words(output) if words else None

    outputs = [[_shown(output, None if split else words_of(output)) for output in answer.outputs] for answer in answers]
    if not split:
        return GenerateResponse(model=name, outputs=outputs)
    sentences = [
        [
            Sentence(source=source, target=output.text, words=_shown_words(words_of(output)))
            for source, output in answer.sentences
        ]
        for answer in answers
    ]
    return GenerateResponse(model=name, outputs=outputs, sentences=sentences)


async def _events(
    first: Delta | Answer,
    rest: AsyncGenerator[Delta | Answer, None],
    respond: Callable[[list[Answer]], GenerateResponse],
) -> AsyncIterator[str]:
    """`data: {"delta": ...}` for further text, and at the end the whole answer, or an error, as an event of that
    name."""
    part: Delta | Answer = first
    async with aclosing(rest):  # whatever becomes of the client
        try:
            while True:
                if isinstance(part, Answer):
                    answer = respond([part]).model_dump_json(exclude_none=True)
                    yield f"event: answer\ndata: {answer}\n\n"
                    return
                yield f"data: {json.dumps({'delta': part.text}, ensure_ascii=False)}\n\n"
                part = await anext(rest)
        except RefusedError as error:
            yield f"event: error\ndata: {bytes(shape(error).body).decode()}\n\n"


def _shown(output: Output, words: list[Word] | None) -> GeneratedText:
    return GeneratedText(
        text=output.text,
        score=output.score,
        tokens=output.tokens,
        token_scores=output.token_scores,
        finished=output.finished,
        attention=output.attention,
        words=_shown_words(words),
    )


def _shown_words(words: list[Word] | None) -> list[GeneratedWord] | None:
    return None if words is None else [GeneratedWord(text=one.text, probability=one.probability) for one in words]
