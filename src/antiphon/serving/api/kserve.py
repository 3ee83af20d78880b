"""The Open Inference Protocol, version 2, over HTTP, as KServe and Triton speak it; with Triton's extensions for
tensors in binary form, and for generating text from text.

A model takes one tensor, `text`, and gives three: `text`, `score` and `finished`, of shape (texts, n_best). Its
settings are the parameters of a request. There is one version of each model, "1".
"""

import json
import math
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antiphon.serving.answers import LONGEST_STOP, Answer, Delta
from antiphon.serving.api.native import Search
from antiphon.serving.client import client_of
from antiphon.serving.errors import RefusedError, invalid, shaped_by
from antiphon.serving.service import Ask, Service

VERSION = "1"
JSON_LENGTH = "inference-header-content-length"  # bytes of JSON at the beginning of a body that has tensors after it
PADDING = -3.4028234663852886e38  # the score where a text has fewer outputs than another: the lowest of FP32
DATATYPES: dict[str, str] = {"text": "BYTES", "score": "FP32", "finished": "BOOL"}  # of the outputs
EXTENSIONS = ["binary_tensor_data", "generate"]


# What is asked


class Parameters(Search):
    """How to answer; what is left out is the model's own setting.

    prefix: what every output begins with. split: sentence takes a long text apart and keeps its layout; language: of
    the texts, for that. stop: an output ends before it. timeout: microseconds after which nobody waits any more.
    """

    prefix: str = ""
    split: Literal["none", "sentence"] = "none"
    language: str = Field("en", max_length=35)
    stop: str | None = Field(None, min_length=1, max_length=LONGEST_STOP)
    timeout: int | None = Field(None, gt=0, lt=1 << 53)


class InferParameters(Parameters):
    """binary_data_output: all outputs in binary form, but those that say otherwise."""

    binary_data_output: bool = False


class InputParameters(BaseModel):
    """binary_data_size: bytes of this tensor after the JSON."""

    model_config = ConfigDict(extra="forbid")

    binary_data_size: int | None = Field(None, ge=0)


class InputTensor(BaseModel):
    """The texts; data may be nested as the shape is, or flat."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["text"]
    datatype: Literal["BYTES"]
    shape: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=8)
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    binary_data: bool | None = None


class RequestedOutput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["text", "score", "finished"]
    parameters: OutputParameters = OutputParameters()


class InferRequest(BaseModel):
    """inputs: the one tensor. outputs: which to give; all, when nothing is said. id: told again in the answer."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = None
    parameters: InferParameters = InferParameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] = Field([], max_length=len(DATATYPES))


class GenerateParameters(Parameters):
    """stream: what the address says too."""

    stream: bool | None = None


class TextRequest(GenerateParameters):
    """One text. Parameters may stand in `parameters` or beside the text."""

    text_input: str
    id: str | None = None
    parameters: GenerateParameters = GenerateParameters()

    def settled(self) -> GenerateParameters:
        """The parameters of both places. Raises RefusedError for one that stands in both."""
        inner = self.parameters.model_dump(exclude_unset=True)
        outer = self.model_dump(exclude_unset=True, include=set(GenerateParameters.model_fields))
        if twice := sorted(inner.keys() & outer.keys()):
            raise invalid(f"{twice[0]}: stands beside the text and in parameters too; give it once.", twice[0])
        return GenerateParameters(**inner, **outer)


# What is told


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(Ready):
    name: str


class TensorMetadata(BaseModel):
    """shape: -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """data: flat, row by row; or in binary form after the JSON, of parameters.binary_data_size bytes."""

    name: str
    datatype: str
    shape: list[int]
    parameters: InputParameters | None = None
    data: list[str] | list[float] | list[bool] | None = None


class InferResponse(BaseModel):
    """score: log-probabilities (natural logarithm). finished: an output ended by itself, and was not cut."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class TextResponse(BaseModel):
    """text_output: the output; of a stream, further text of it."""

    model_name: str
    model_version: str
    text_output: str


class InferenceError(BaseModel):
    """What went wrong, in a sentence."""

    error: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": InferenceError, "description": "It cannot be asked so."},
    404: {"model": InferenceError, "description": "There is no such model, or no such version of it."},
    "default": {"model": InferenceError, "description": "Too much at once (429), or the server cannot (5xx)."},
}
EVENTS = {"description": "Events, each with further text, or an error.", "content": {"text/event-stream": {}}}
STREAMED: dict[int | str, dict[str, Any]] = {200: EVENTS, **REFUSALS}
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
TENSORS = {"description": "The tensors; with some in binary form, the JSON and these after it.", "content": BINARY}
INFERRED: dict[int | str, dict[str, Any]] = {200: TENSORS, **REFUSALS}
UNREADY = "It is loading, or stops."


def shape(error: RefusedError) -> Response:
    return JSONResponse({"error": error.message}, 400 if error.status == 422 else error.status, headers=error.headers)


def router(service: Service) -> APIRouter:
    """The routes of this dialect; those of a model stand at two addresses, with a version and without."""
    route = shaped_by(shape)
    routes = APIRouter(prefix="/v2", tags=["kserve"], route_class=route)
    models = APIRouter(route_class=route)
    _add_server(routes, service)
    _add_metadata(models, service)
    _add_inference(models, service)
    routes.include_router(models, prefix="/models/{model}")
    routes.include_router(models, prefix="/models/{model}/versions/{version}", dependencies=[Depends(_check_version)])
    return routes


def _add_server(routes: APIRouter, service: Service) -> None:
    """What the server is, and whether it answers."""

    @routes.get("")
    async def server() -> ServerMetadata:
        return ServerMetadata(name="antiphon", version=version("antiphon"), extensions=EXTENSIONS)

    @routes.get("/health/live")
    async def live() -> Live:
        return Live(live=True)

    @routes.get("/health/ready", responses={503: {"model": Ready, "description": UNREADY}})
    async def ready(response: Response) -> Ready:
        response.status_code = 200 if service.is_ready else 503
        return Ready(ready=service.is_ready)


def _add_metadata(routes: APIRouter, service: Service) -> None:
    """What a model is, and whether it answers."""

    @routes.get("", responses=REFUSALS)
    async def metadata(model: str) -> ModelMetadata:
        name, _ = service.side(model)
        return ModelMetadata(
            name=name,
            versions=[VERSION],
            platform="antiphon",
            inputs=[TensorMetadata(name="text", datatype="BYTES", shape=[-1])],
            outputs=[TensorMetadata(name=one, datatype=kind, shape=[-1, -1]) for one, kind in DATATYPES.items()],
        )

    @routes.get("/ready", responses={503: {"model": ModelReady, "description": UNREADY}, **REFUSALS})
    async def model_ready(model: str, response: Response) -> ModelReady:
        name, _ = service.side(model)
        response.status_code = 200 if service.is_ready else 503
        return ModelReady(name=name, ready=service.is_ready)


def _add_inference(routes: APIRouter, service: Service) -> None:
    """What a model answers."""

    @routes.post("/infer", response_model=InferResponse, responses=INFERRED, openapi_extra=_body(InferRequest))
    async def infer(model: str, request: Request) -> Response:
        """Outputs for a tensor of texts."""
        name, _ = service.side(model)
        asked, rest = await _read(request, InferRequest)
        ask = _ask(name, _texts(asked.inputs[0], rest), asked.parameters)
        answers = await service.answer(ask, client_of(request))
        return _inferred(name, asked, answers)

    @routes.post("/generate", responses=REFUSALS, openapi_extra=_body(TextRequest))
    async def generate(model: str, request: Request) -> TextResponse:
        """The best output for a text."""
        name, _ = service.side(model)
        asked, _ = await _read(request, TextRequest)
        parameters = _one_output(asked.settled())
        if parameters.stream:
            raise invalid("stream: this address gives the whole text; ask generate_stream.", "stream")
        (answer,) = await service.answer(_ask(name, [asked.text_input], parameters), client_of(request))
        return _generated(name, answer.outputs[0].text)

    @routes.post(
        "/generate_stream", response_class=StreamingResponse, responses=STREAMED, openapi_extra=_body(TextRequest)
    )
    async def generate_stream(model: str, request: Request) -> Response:
        """The best output for a text, as server-sent events with further text each; together they are the output."""
        name, _ = service.side(model)
        asked, _ = await _read(request, TextRequest)
        parameters = _one_output(asked.settled())
        if parameters.stream is False:
            raise invalid("stream: this address gives the text bit by bit; ask generate.", "stream")
        parts = service.stream(_ask(name, [asked.text_input], parameters), client_of(request))
        first = await anext(parts)
        return StreamingResponse(_events(name, first, parts), media_type="text/event-stream")


def _check_version(version: str) -> None:
    if version != VERSION:
        raise RefusedError(404, "not_found", f"version {version[:40]!r}: each model has one, which is {VERSION}.")


# Requests


Asked = TypeVar("Asked", bound=BaseModel)


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """What the API page says of a body that is read by hand: its schema, with what it refers to in place."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def whole(node: Any) -> Any:
        if isinstance(node, list):
            return [whole(one) for one in node]
        if not isinstance(node, dict):
            return node
        found = parts[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
        return {key: whole(value) for key, value in (found | node).items() if key != "$ref"}

    content: dict[str, Any] = {"application/json": {"schema": whole(schema)}}
    if model is InferRequest:
        content |= BINARY
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, model: type[Asked]) -> tuple[Asked, bytes]:
    """The JSON of a body, whatever it is called, and the bytes after it."""
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        message = f"content-encoding {encoding[:40]!r}: a body must come as it is, and not compressed."
        raise RefusedError(415, "invalid", message)
    content = await request.body()
    told = request.headers.get(JSON_LENGTH, str(len(content)))
    if not told.isascii() or not told.isdecimal() or len(told) > 12 or int(told) > len(content):
        message = f"{JSON_LENGTH}: expected a number up to {len(content)}, found {told[:40]!r}."
        raise RefusedError(400, "invalid", message)
    size = int(told)
    try:
        return model.model_validate_json(content[:size]), content[size:]
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in error.errors()]) from None


def _texts(tensor: InputTensor, rest: bytes) -> list[str]:
    """The texts of a tensor, in either form."""
    size = tensor.parameters.binary_data_size
    if (tensor.data is None) == (size is None):
        raise invalid("inputs: expected either data or parameters.binary_data_size of a tensor.", "inputs")
    if len(rest) != (size or 0):
        raise invalid(f"inputs: expected {size or 0} bytes of tensors after the JSON, found {len(rest)}.", "inputs")
    texts = _unpacked(rest) if tensor.data is None else _flat(tensor.data)
    if math.prod(tensor.shape) != len(texts):
        raise invalid(f"inputs: the shape {tensor.shape} does not fit {len(texts)} texts.", "inputs")
    if not texts:
        raise invalid("inputs: expected a text at least, found none.", "inputs")
    return texts


def _flat(data: Sequence[Any]) -> list[str]:
    texts: list[str] = []
    waiting = list(reversed(data))
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += reversed(one)
        elif isinstance(one, str):
            texts.append(one)
        else:
            raise invalid(f"inputs: data of BYTES are texts, found {json.dumps(one)[:40]}.", "inputs")
    return texts


def _unpacked(content: bytes) -> list[str]:
    """Texts in binary form: each its length in four bytes, little-endian, and itself in UTF-8."""
    texts, place = [], 0
    while place < len(content):
        start = place + 4
        place = start + int.from_bytes(content[place:start], "little")
        if place > len(content):
            raise invalid("inputs: the tensor ends in the middle of a text.", "inputs")
        try:
            texts.append(content[start:place].decode())
        except UnicodeDecodeError as error:
            raise invalid(f"inputs: text {len(texts)} is not UTF-8 (byte {error.start}).", "inputs") from None
    return texts


def _one_output(parameters: GenerateParameters) -> GenerateParameters:
    """For an address that gives one."""
    if (parameters.n_best or 1) > 1:
        raise invalid("n_best: one output can be given here, and no more; ask infer.", "n_best")
    return parameters.model_copy(update={"n_best": 1})


def _ask(name: str, texts: Sequence[str], parameters: Parameters) -> Ask:
    return Ask(
        texts,
        model=name,
        settings=parameters.model_dump(include=set(Search.model_fields)),
        prefix=parameters.prefix,
        split=parameters.split,
        language=parameters.language,
        stop=[parameters.stop] if parameters.stop else [],
        timeout=parameters.timeout / 1e6 if parameters.timeout else None,
    )


# Answers


@dataclass(frozen=True)
class _Outputs:
    """(texts, width) outputs, flat. A text that has fewer than another is filled up with blanks."""

    rows: int
    width: int
    text: list[str]
    score: list[float]
    finished: list[bool]

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Self:
        width = max(len(answer.outputs) for answer in answers)
        filled = [[*answer.outputs, *[None] * (width - len(answer.outputs))] for answer in answers]
        flat = [output for row in filled for output in row]
        return cls(
            len(answers),
            width,
            [output.text if output else "" for output in flat],
            [output.score if output else PADDING for output in flat],
            [output.finished if output else False for output in flat],
        )

    def packed(self, name: str) -> bytes:
        """One of them in binary form."""
        if name == "score":
            return struct.pack(f"<{len(self.score)}f", *self.score)
        if name == "finished":
            return bytes(self.finished)
        texts = [text.encode() for text in self.text]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _inferred(name: str, asked: InferRequest, answers: Sequence[Answer]) -> Response:
    """The tensors that were asked for, in the form that each was asked in."""
    found, binary, tensors = _Outputs.of(answers), b"", []
    for output in asked.outputs or [RequestedOutput.model_validate({"name": one}) for one in DATATYPES]:
        tensor = OutputTensor(name=output.name, datatype=DATATYPES[output.name], shape=[found.rows, found.width])
        wanted = output.parameters.binary_data
        if asked.parameters.binary_data_output if wanted is None else wanted:
            packed = found.packed(output.name)
            binary += packed
            tensor.parameters = InputParameters(binary_data_size=len(packed))
        else:
            tensor.data = getattr(found, output.name)
        tensors.append(tensor)
    told = InferResponse(model_name=name, model_version=VERSION, id=asked.id, outputs=tensors)
    head = told.model_dump_json(exclude_none=True).encode()
    if any(tensor.parameters for tensor in tensors):
        return Response(head + binary, headers={JSON_LENGTH: str(len(head))}, media_type="application/octet-stream")
    return Response(head, media_type="application/json")


def _generated(name: str, text: str) -> TextResponse:
    return TextResponse(model_name=name, model_version=VERSION, text_output=text)


async def _events(name: str, first: Delta | Answer, rest: AsyncGenerator[Delta | Answer, None]) -> AsyncIterator[str]:
    """`data: {...}` with further text each, one at least; an error is `data: {"error": ...}`, and the last."""
    part: Delta | Answer = first
    async with aclosing(rest):  # whatever becomes of the client
        try:
            if isinstance(part, Answer):
                yield f"data: {_generated(name, '').model_dump_json()}\n\n"
            while isinstance(part, Delta):
                yield f"data: {_generated(name, part.text).model_dump_json()}\n\n"
                part = await anext(rest)
        except RefusedError as error:
            yield f"data: {bytes(shape(error).body).decode()}\n\n"
