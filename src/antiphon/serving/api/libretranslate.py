"""The dialect of LibreTranslate: texts from one language to another, by the served model that has this pair.

Which languages a model has is told by serving/languages.py, what of HTML is text by serving/markup.py. What
LibreTranslate does to outputs afterwards (punctuation, capitals, entities) is left out: an output is the model's own.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from antiphon.segments import Segments
from antiphon.serving import markup
from antiphon.serving.answers import Answer
from antiphon.serving.api.native import WIDEST
from antiphon.serving.client import KEYS, client_for_key
from antiphon.serving.errors import RefusedError, invalid, shaped_by, shown
from antiphon.serving.languages import Route, can_detect, detect, language_routes, name_of
from antiphon.serving.service import Ask, Client, Service

AUTO = "auto"
STATUS = {401: 403, 404: 400, 413: 400, 415: 400, 422: 400}  # LibreTranslate's, where it has another one
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_BOUNDARY = re.compile(r"boundary=\"?([^\";,\s]{1,70})")
_FIELD = re.compile(rb"[;\s]name=\"([^\"]*)\"", re.I)
SLIGHT = 0.01  # a language that is less probable is not told
NO_DETECTOR = 'this server cannot tell languages apart; install it there with: pip install "antiphon[detect]".'


def _text_or_texts(found: object) -> object:
    texts = found if isinstance(found, list) else [found]
    if not found or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected a text, or a list of texts.")
    return found


class TranslateRequest(BaseModel):
    """q: a text or a list of them. source: a language's code, or auto. alternatives: further outputs to each text.
    api_key: where the server has keys and the headers show none. secret: what LibreTranslate's own page sends; it is
    not looked at."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str | list[str], BeforeValidator(_text_or_texts)]
    source: str = Field(min_length=1, max_length=35)
    target: str = Field(min_length=1, max_length=35)
    format: Literal["text", "html"] = "text"
    alternatives: int = Field(0, ge=0, lt=WIDEST)
    api_key: str | None = None
    secret: str | None = None


class DetectRequest(BaseModel):
    """q: what to look at; a list is looked at as one text."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str | list[str], BeforeValidator(_text_or_texts)]
    api_key: str | None = None
    secret: str | None = None


class Detection(BaseModel):
    """confidence: in percent, among all the languages that the detector knows; 0: nothing was detected, and it is the
    only language that can be meant."""

    confidence: float
    language: str


class TranslateResponse(BaseModel):
    """For a text a text, for a list a list. alternatives: where asked for. detectedLanguage: where source is auto."""

    translatedText: str | list[str]  # noqa: N815 - LibreTranslate's names
    alternatives: list[str] | list[list[str]] | None = None
    detectedLanguage: Detection | list[Detection] | None = None  # noqa: N815


class Language(BaseModel):
    """targets: the languages that can be asked for from this one."""

    code: str
    name: str
    targets: list[str]


class NamedCode(BaseModel):
    code: str
    name: str


class FrontendLanguages(BaseModel):
    source: NamedCode
    target: NamedCode


class FrontendSettings(BaseModel):
    """What LibreTranslate's own page asks for. charLimit: -1 is none; frontendTimeout: milliseconds it waits for
    further typing."""

    charLimit: int = -1  # noqa: N815
    frontendTimeout: int = 500  # noqa: N815
    apiKeys: bool = False  # noqa: N815
    keyRequired: bool = False  # noqa: N815
    suggestions: bool = False
    filesTranslation: bool = False  # noqa: N815
    supportedFilesFormat: list[str] = []  # noqa: N815
    language: FrontendLanguages


class LibreTranslateError(BaseModel):
    """What went wrong, in a sentence."""

    error: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": LibreTranslateError, "description": "It cannot be asked so."},
    403: {"model": LibreTranslateError, "description": "The key is none of this server's."},
    "default": {"model": LibreTranslateError, "description": "Too much at once (429), or the server cannot (5xx)."},
}


def shape(error: RefusedError) -> Response:
    return JSONResponse({"error": error.message}, STATUS.get(error.status, error.status), headers=error.headers)


def router(service: Service) -> APIRouter:
    """The routes of this dialect."""
    tags = {name: side.facts.tags for name, side in service.sides.items()}
    known = language_routes(tags, service.settings.languages)
    routes = APIRouter(tags=["libretranslate"], route_class=shaped_by(shape))

    @routes.post(
        "/translate",
        response_model=TranslateResponse,
        response_model_exclude_none=True,
        responses=REFUSALS,
        openapi_extra=_body(TranslateRequest),
    )
    async def translate(request: Request) -> TranslateResponse:
        """Texts from one language to another, as JSON or as a form."""
        asked = await _read(request, TranslateRequest)
        client = client_for_key(request, asked.api_key)
        texts = [asked.q] if isinstance(asked.q, str) else asked.q
        if len(texts) > service.settings.max_texts:
            raise invalid(f"q: at most {service.settings.max_texts} texts, found {len(texts)}.", "q")
        source = await _source(asked, texts, known)
        route = _route(known, source.language, asked.target)
        ranked = await _outputs(service, client, route, texts, asked)
        return _response(asked, source, ranked)

    @routes.get("/languages")
    async def languages() -> list[Language]:
        """The languages that served models are known to lead from and to."""
        return [Language(code=code, name=name_of(code), targets=_targets(known, code)) for code in _codes(known)]

    @routes.post("/detect", responses=REFUSALS, openapi_extra=_body(DetectRequest))
    async def detection(request: Request) -> list[Detection]:
        """Which of these languages a text is in, most probable first."""
        asked = await _read(request, DetectRequest)
        client_for_key(request, asked.api_key)
        if not can_detect():
            raise invalid(f"q: {NO_DETECTOR}", "q")
        found = await _detected([asked.q] if isinstance(asked.q, str) else asked.q, _codes(known))
        if not found:
            raise invalid("q: no served model has a language that the detector knows.", "q")
        return [found[0], *(one for one in found[1:] if one.confidence >= 100 * SLIGHT)]

    @routes.get("/frontend/settings", responses=REFUSALS)
    async def frontend_settings(request: Request) -> FrontendSettings:
        """What LibreTranslate's own page asks for."""
        if not known:
            raise invalid("no served model has a language pair; name one as in NAME-en-fr.")
        source, target = (NamedCode(code=code, name=name_of(code)) for code in known[0][:2])
        needed = KEYS in request.scope
        shown = FrontendLanguages(source=source, target=target)
        return FrontendSettings(apiKeys=needed, keyRequired=needed, language=shown)

    return routes


# What is asked


Asked = TypeVar("Asked", bound=BaseModel)


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """What the API page says of a body that is read by hand."""
    schema = {"schema": model.model_json_schema()}
    return {"requestBody": {"required": True, "content": dict.fromkeys(("application/json", FORM, MULTIPART), schema)}}


async def _read(request: Request, model: type[Asked]) -> Asked:
    """A body of JSON, or a form in its body or the address."""
    kind = request.headers.get("content-type", "")
    content = await request.body()
    try:
        if kind.partition(";")[0].strip().lower().endswith("json"):
            return model.model_validate_json(content)
        return model.model_validate(_form(kind, content, request.scope["query_string"]))
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in error.errors()]) from None


def _form(kind: str, content: bytes, query: bytes) -> dict[str, str]:
    """The fields of a form and of the address. Line ends are those of text."""
    name = kind.partition(";")[0].strip().lower()
    if content and name not in (FORM, MULTIPART):
        raise RefusedError(415, "invalid", f"content-type {name!r}: expected application/json, {FORM} or {MULTIPART}.")
    try:
        found = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
        if name == MULTIPART:
            found += _multipart(kind, content)
        else:
            found += parse_qsl(content.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise RefusedError(400, "invalid", f"the body is no form in UTF-8 ({error}).") from None
    fields = {key: value.replace("\r\n", "\n") for key, value in found}
    if len(fields) < len(found):
        raise invalid("a field of a form is given twice; a list of texts can be given in JSON.")
    return fields


def _multipart(kind: str, content: bytes) -> list[tuple[str, str]]:
    """The fields of a form in parts."""
    boundary = _BOUNDARY.search(kind)
    *parts, end = (b"\r\n" + content).split(b"\r\n--" + boundary[1].encode()) if boundary else [b""]
    if not end.startswith(b"--"):
        raise ValueError("its parts have no end")
    found = []
    for part in parts[1:]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = _FIELD.search(head)
        if name is None or b"filename" in head:
            raise ValueError("a part of it is no text with a name")
        found.append((name[1].decode(), value.decode()))
    return found


# Languages


def _codes(known: Sequence[Route]) -> list[str]:
    return list(dict.fromkeys(code for route in known for code in (route.source, route.target)))


def _targets(known: Sequence[Route], code: str) -> list[str]:
    return sorted({route.target for route in known if route.source == code})


def _route(known: Sequence[Route], source: str, target: str) -> Route:
    """The first way from one language to another."""
    if source not in _codes(known):
        raise invalid(f"source: {shown(source)} is not supported; GET /languages tells what is.", "source")
    found = next((route for route in known if (route.source, route.target) == (source, target)), None)
    if found is None:
        targets = ", ".join(_targets(known, source)) or "none"
        raise invalid(f"target: {shown(target)} is not available from {source}; there are: {targets}.", "target")
    return found


async def _source(asked: TranslateRequest, texts: Sequence[str], known: Sequence[Route]) -> Detection:
    """The source language: the one that is asked for, or that of the texts, among those that lead to the target."""
    if asked.source != AUTO:
        return Detection(confidence=100.0, language=asked.source)
    codes = list(dict.fromkeys(route.source for route in known if route.target == asked.target))
    if not codes:
        raise invalid(f"target: no served model translates to {shown(asked.target)}; GET /languages tells.", "target")
    if can_detect() and (found := await _detected(texts, codes)):
        return found[0]
    if len(codes) > 1:
        why = "the detector does not know them." if can_detect() else NO_DETECTOR
        raise invalid(f"source: give one of {', '.join(codes)}; {why}", "source")
    return Detection(confidence=0.0, language=codes[0])


async def _detected(texts: Sequence[str], codes: Sequence[str]) -> list[Detection]:
    found = await asyncio.to_thread(detect, "\n".join(texts), codes)
    return [Detection(confidence=round(100 * probability, 1), language=code) for code, probability in found]


# Answers


async def _outputs(
    service: Service, client: Client, route: Route, texts: Sequence[str], asked: TranslateRequest
) -> list[list[str]]:
    """Of each text its outputs, best first."""
    _, side = service.side(route.model)
    count = asked.alternatives + 1
    settings = {"n_best": count, "beam_size": max(count, side.config.generation.beam_size)}
    is_html = asked.format == "html"
    parts = await asyncio.to_thread(_parts, texts, is_html)
    pieces = [f"{route.tag} {piece}" if route.tag else piece for part in parts for piece in part.sentences]
    answers: list[Answer] = []
    deadline = time.monotonic() + service.settings.timeout
    for start in range(0, len(pieces), service.settings.max_texts):  # HTML may have more pieces than a request texts
        some = pieces[start : start + service.settings.max_texts]
        left = deadline - time.monotonic()
        ask = Ask(some, route.model, settings=settings, split="sentence", language=route.source, timeout=left)
        answers += await service.answer(ask, client)
    found = iter(answers)
    together = markup.put_together if is_html else Segments.join
    return [
        [together(part, ranked) for ranked in _by_rank([next(found) for _ in part.sentences], count)] for part in parts
    ]


def _parts(texts: Sequence[str], is_html: bool) -> list[Segments]:
    return [markup.take_apart(text) if is_html else Segments(("", ""), (text,)) for text in texts]


def _by_rank(answers: Sequence[Answer], count: int) -> list[list[str]]:
    """The pieces' best outputs, their second best, ...; a piece that has no more gives its last again."""
    return [[answer.outputs[min(rank, len(answer.outputs) - 1)].text for answer in answers] for rank in range(count)]


def _response(asked: TranslateRequest, source: Detection, ranked: Sequence[Sequence[str]]) -> TranslateResponse:
    """In the form of LibreTranslate: alternatives are neither blank nor said before."""
    best = [outputs[0] for outputs in ranked]
    others = [[text for text in dict.fromkeys(outputs) if text not in ("", outputs[0])] for outputs in ranked]
    detected = source if asked.source == AUTO else None
    alternatives = others if asked.alternatives else None
    if isinstance(asked.q, list):
        return TranslateResponse(
            translatedText=best, alternatives=alternatives, detectedLanguage=detected and [detected] * len(best)
        )
    return TranslateResponse(
        translatedText=best[0], alternatives=alternatives and alternatives[0], detectedLanguage=detected
    )
