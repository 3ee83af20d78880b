"""The OpenAI dialect: completions, chat completions and the list of models, for the clients that speak it.

The prompt, or the last message of a chat, is the source, and the answer is the target. A field that cannot be obeyed is
refused in a sentence unless its value changes nothing; docs/dialects/openai.md has the table of them.
"""

import codecs
import json
import re
import secrets
import time
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from antiphon.config import GenerationConfig
from antiphon.serving.answers import LONGEST_STOP, Answer, Delta
from antiphon.serving.api.native import WIDEST
from antiphon.serving.client import client_of
from antiphon.serving.errors import RefusedError, invalid, shaped_by
from antiphon.serving.service import Ask, Service
from antiphon.serving.settings import ServerSettings
from antiphon.text_side import Output, TextSide, members_of
from antiphon.tokenizer import Tokenizer

KINDS = {  # reason of a refusal -> type and code of an error
    "invalid": ("invalid_request_error", None),
    "too_long": ("invalid_request_error", "context_length_exceeded"),
    "too_large": ("invalid_request_error", "request_too_large"),
    "unauthorized": ("invalid_request_error", "invalid_api_key"),
    "not_found": ("invalid_request_error", "model_not_found"),
    "overloaded": ("requests", "rate_limit_exceeded"),
    "unavailable": ("server_error", "unavailable"),
    "late": ("server_error", "timeout"),
    "failed": ("server_error", None),
}
NO_VOICE = "the model reads and writes text"
NO_TOOLS = "the model calls no functions"
NO_PENALTY = "the search weighs tokens by the model alone"
NOT_CHOSEN = "the chosen token is the only one whose probability is kept"
NO_STORE = "no answer is kept"

_RAW_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")  # as `Tokenizer.piece` shows a byte that is no UTF-8 by itself


def only(*values: object, why: str) -> Any:
    """A field that may have these values, which change nothing, and is refused with any other."""
    return Field(None, description=f"Refused unless it changes nothing, for {why}.", json_schema_extra=_among(values))


def _among(values: tuple[Any, ...]) -> dict[str, Any]:
    return {"enum": [None, *values]}


class Body(BaseModel):
    """JSON of a client. What is not known here is refused by name."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _check_neutral(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[info.field_name or ""]
        extra = field.json_schema_extra
        if isinstance(extra, dict) and isinstance(known := extra.get("enum"), list) and value not in known:
            why = (field.description or "").partition("for ")[2]
            shown = " or ".join(json.dumps(one) for one in known[1:]) or "null"
            raise ValueError(f"cannot be had, for {why.rstrip('.')}; leave it out, or send {shown}.")
        return value


def _listed(value: object) -> object:
    """One text or several, as a list."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and any(isinstance(one, int | list) for one in value):
        raise ValueError("lists of token ids cannot be read; send text.")
    return value


def _unless_null(value: object) -> object:
    return [] if value is None else _listed(value)


def _text_of(content: object) -> object:
    """The text of a message: its parts, each a line or more."""
    if not isinstance(content, list):
        return content
    kinds = [part.get("type") if isinstance(part, dict) else None for part in content]
    if other := next((str(kind) for kind in kinds if kind != "text"), None):
        raise ValueError(f"a part of type {other[:40]!r} cannot be read, for {NO_VOICE}; send parts of type text.")
    texts = [part.get("text") for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a part of type text has no text; send a string.")
    return "\n".join(texts)


def _can_be_had(temperature: float | None) -> float | None:
    if temperature and temperature < 0.01:
        raise ValueError("0 (no drawing), or from 0.01 to 100.")
    return temperature


def _schema(*kinds: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(kinds)})


STRING: dict[str, Any] = {"type": "string"}
STRINGS: dict[str, Any] = {"type": "array", "items": STRING, "minItems": 1}
PARTS: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": STRING},
        "required": ["type", "text"],
    },
}

Prompt = Annotated[list[str], Field(min_length=1), BeforeValidator(_listed), _schema(STRING, STRINGS)]
Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]],
    Field(max_length=4),
    BeforeValidator(_unless_null),
    _schema(
        {**STRING, "minLength": 1, "maxLength": LONGEST_STOP},
        {**STRINGS, "minItems": 0, "maxItems": 4},
        {"type": "null"},
    ),
]
Content = Annotated[str | None, BeforeValidator(_text_of), _schema(STRING, PARTS, {"type": "null"})]
Temperature = Annotated[float | None, Field(ge=0, le=100), AfterValidator(_can_be_had)]


class StreamOptions(Body):
    """include_usage: one more chunk, before the end, says how many tokens there were."""

    include_usage: bool | None = None
    include_obfuscation: Any = only(False, why="chunks are not padded")
    continuous_usage_stats: Any = only(False, why="tokens are counted at the end")


class Asked(Body):
    """What both kinds of requests have.

    The search. With no temperature, no top_p below 1 and no top_k it is the model's own. temperature 0: greedy, or a
    beam as wide as n or best_of; above 0: sampling. n: outputs; best_of: beam_size (never under the model's own unless
    temperature is 0), or how many are sampled. max_tokens: by default from the source's length. seed: of sampling,
    chosen anew for each request that has none.

    user, safety_identifier, prompt_cache_key and metadata are taken and change nothing.
    """

    model: str | None = Field(None, description="by default the first one served")
    n: int | None = Field(None, ge=1, le=WIDEST)
    best_of: int | None = Field(None, ge=1, le=WIDEST)
    use_beam_search: bool | None = None
    length_penalty: float | None = Field(None, ge=0, le=10)
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)
    temperature: Temperature = None
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    stop: Stop = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, Any] | None = None

    presence_penalty: Any = only(0, why=NO_PENALTY)
    frequency_penalty: Any = only(0, why=NO_PENALTY)
    repetition_penalty: Any = only(1, why=NO_PENALTY)
    logit_bias: Any = only({}, why=NO_PENALTY)
    min_p: Any = only(0, why="sampling is narrowed by top_k and top_p")
    ignore_eos: Any = only(False, why="an output ends where the model ends it")
    stop_token_ids: Any = only([], why="outputs are stopped by text; send stop")
    include_stop_str_in_output: Any = only(False, why="an output ends before what stops it")
    skip_special_tokens: Any = only(True, why="special tokens have no text")
    store: Any = only(False, why=NO_STORE)
    service_tier: Any = only("auto", "default", why="a key's class is set by the server")


class CompletionRequest(Asked):
    """prompt: a source, or several. logprobs: of the tokens that were chosen; of others they cannot be had."""

    prompt: Prompt
    logprobs: Any = only(0, 1, why=NOT_CHOSEN)
    echo: Any = only(False, why="the answer does not go on from the prompt")
    suffix: Any = only("", why="the answer stands before no other text")


class Message(Body):
    """content: a string, or parts of type text, which are joined by line breaks."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content = None
    name: str | None = None
    refusal: Any = only(why=NO_VOICE)
    annotations: Any = only([], why=NO_VOICE)
    audio: Any = only(why=NO_VOICE)
    tool_calls: Any = only([], why=NO_TOOLS)
    function_call: Any = only(why=NO_TOOLS)


class ChatRequest(Asked):
    """messages: the last one, which is the user's, is the source. The model sees none of those before it: it answers
    sources, and knows no instructions and no conversation. logprobs: of the tokens that were chosen."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool | None = None
    top_logprobs: Any = only(0, why=NOT_CHOSEN)
    response_format: Any = only({"type": "text"}, why="an output is the text that the model writes")
    modalities: Any = only(["text"], why=NO_VOICE)
    audio: Any = only(why=NO_VOICE)
    prediction: Any = only(why="the output is not known before")
    tools: Any = only([], why=NO_TOOLS)
    tool_choice: Any = only("none", "auto", why=NO_TOOLS)
    functions: Any = only([], why=NO_TOOLS)
    function_call: Any = only("none", "auto", why=NO_TOOLS)
    parallel_tool_calls: Any = only(True, False, why=NO_TOOLS)
    reasoning_effort: Any = only("none", why="the model does not reason aloud")
    verbosity: Any = only("medium", why="the length is the model's")
    web_search_options: Any = only(why="the model sees nothing but the source")


class Usage(BaseModel):
    """Tokens of the model's own tokenizers, without the marks of the end. completion_tokens: of the choices given, and
    of what was written after a stop."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(BaseModel):
    """Of each token of the text: itself, its log-probability, and the character at which it begins."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: None = None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int = Field(description="number of the prompt times n, and the rank of the output")
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class ChatToken(BaseModel):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[None] = []


class ChatLogprobs(BaseModel):
    content: list[ChatToken]
    refusal: None = None


class ChatMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ModelCard(BaseModel):
    """created: when its folder was written, in seconds since 1970."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["antiphon"] = "antiphon"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: ErrorDetail


def shape(error: RefusedError) -> Response:
    """A refusal as OpenAI tells it. What others call 422 it calls 400."""
    kind, code = KINDS.get(error.reason, ("server_error", None))
    if code == "model_not_found" and error.parameter != "model":
        code = None  # it was another thing that was not found
    detail = ErrorDetail(message=error.message, type=kind, param=error.parameter, code=code)
    status = 400 if error.status == 422 else error.status
    # In ASCII: what is quoted from a body may be no Unicode.
    body = json.dumps({"error": detail.model_dump()})
    return Response(body, status, headers=error.headers, media_type="application/json")


ERRORS: dict[int | str, str] = {
    400: "The request cannot be obeyed; param is the field at fault.",
    401: "The key is missing or not known.",
    404: "There is no such model.",
    429: "Too many requests are open; retry-after is how many seconds to wait.",
    500: "The model failed.",
    503: "The server is loading or stopping.",
    504: "There was no time for it.",
    "default": "Whatever else is refused.",
}


def _documented(*errors: int | str, streams: bool = False) -> dict[int | str, dict[str, Any]]:
    """Of the OpenAPI document: what may come instead of the answer, by status."""
    told: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": ERRORS[status]} for status in [*errors, "default"]
    }
    if streams:
        told[200] = {
            "description": "The answer; with stream, chunks of it as server-sent events, the last of them [DONE].",
            "content": {"text/event-stream": {}},
        }
    return told


ANSWERED = _documented(400, 401, 404, 429, 500, 503, 504, streams=True)


def router(service: Service) -> APIRouter:
    """The routes of this dialect."""
    routes = APIRouter(prefix="/v1", tags=["openai"], route_class=shaped_by(shape))
    created = {name: int(members_of(run)[0].stat().st_mtime) for name, run in service.settings.runs.items()}

    @routes.post("/completions", response_model=Completion, responses=ANSWERED)
    async def create_completion(body: CompletionRequest, request: Request) -> Response | Completion:
        call = _call(service, "cmpl", body, body.logprobs is not None)
        if body.stream and len(body.prompt) > 1:
            raise invalid("stream: takes one prompt; send the others by themselves.", "stream")
        ask = _ask(call, body.prompt, body.max_tokens, service.settings)
        with _named("prompt"):
            if body.stream:
                return await _streamed(call, TEXT_CHUNKS, service.stream(ask, client_of(request)))
            return _completion(call, await service.answer(ask, client_of(request)))

    @routes.post("/chat/completions", response_model=ChatCompletion, responses=ANSWERED)
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response | ChatCompletion:
        call = _call(service, "chatcmpl", body, bool(body.logprobs))
        ask = _ask(call, [_last_message(body)], _longest(body), service.settings)
        with _named("messages"):
            if body.stream:
                return await _streamed(call, CHAT_CHUNKS, service.stream(ask, client_of(request)))
            return _chat(call, await service.answer(ask, client_of(request)))

    @routes.get("/models", responses=_documented(401))
    async def list_models() -> ModelList:
        return ModelList(data=[ModelCard(id=name, created=created[name]) for name in service.sides])

    @routes.get("/models/{model}", responses=_documented(401, 404))
    async def retrieve_model(model: str) -> ModelCard:
        name, _ = service.side(model)
        return ModelCard(id=name, created=created[name])

    return routes


@dataclass(frozen=True)
class _Call:
    """One request while it is answered. head: what its response and each chunk begin with. count: outputs wanted."""

    head: dict[str, Any]
    side: TextSide
    body: Asked
    with_logprobs: bool
    count: int


def _call(service: Service, prefix: str, body: Asked, with_logprobs: bool) -> _Call:
    name, side = service.side(body.model)
    head = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}
    return _Call(head, side, body, with_logprobs, body.n or 1)


def _ask(call: _Call, texts: list[str], longest: int | None, limits: ServerSettings) -> Ask:
    """What the service is asked for. Refuses what contradicts itself."""
    body, own = call.body, call.side.config.generation
    _check_search(body, own)
    _check_lengths(body, longest, limits.max_output)
    settings = _search(body, own) | {"max_length": longest, "min_length": body.min_tokens}
    return Ask(texts, call.head["model"], settings=settings, stop=body.stop)


def _check_search(body: Asked, own: GenerationConfig) -> None:
    """Refuses fields that do not go together."""
    count, draws = body.n or 1, _draws(body, own)
    if body.best_of is not None and body.best_of < count:
        raise invalid(f"best_of: {body.best_of} outputs cannot hold the n ({count}) best.", "best_of")
    if body.use_beam_search and (body.temperature or _narrows(body)):
        raise invalid("use_beam_search: searches, and draws nothing; send temperature 0.", "use_beam_search")
    if body.length_penalty is not None and draws:
        raise invalid("length_penalty: ranks what a beam search finds; send temperature 0.", "length_penalty")
    if body.stream and count > 1:
        raise invalid("n: one output can be streamed, and no more; send n 1, or no stream.", "n")
    if body.stream and draws and (body.best_of or 1) > 1:
        raise invalid("best_of: which sample is best shows at the end; send no stream.", "best_of")
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options: goes with stream.", "stream_options")


def _check_lengths(body: Asked, longest: int | None, limit: int) -> None:
    for parameter, tokens in (("max_tokens", longest), ("min_tokens", body.min_tokens)):
        if tokens is not None and tokens > limit:
            raise invalid(f"{parameter}: at most {limit}, found {tokens}.", parameter)
    if longest is not None and (body.min_tokens or 0) > longest:
        raise invalid(f"min_tokens: {body.min_tokens} is more than max_tokens ({longest}).", "min_tokens")


def _draws(body: Asked, own: GenerationConfig) -> bool:
    """Whether outputs are sampled."""
    if body.temperature is None and not body.use_beam_search:
        return _narrows(body) or own.sample
    return bool(body.temperature)


def _narrows(body: Asked) -> bool:
    """It asks for sampling by saying what from."""
    return body.temperature is None and ((body.top_p or 1) < 1 or (body.top_k or 0) > 0)


def _search(body: Asked, own: GenerationConfig) -> dict[str, Any]:
    """The settings of a search, of which the model's `own` are changed."""
    count = body.n or 1
    width = max(count, body.best_of or 1)
    if _draws(body, own):
        seed = secrets.randbelow(1 << 63) if body.seed is None else body.seed
        top_k = None if body.top_k is None else max(0, body.top_k)
        drawn = {"temperature": body.temperature, "top_p": body.top_p, "top_k": top_k, "seed": seed}
        return {"sample": True, "n_best": width} | drawn
    least = 1 if body.temperature == 0 and not body.use_beam_search else own.beam_size
    found = {"beam_size": max(width, least), "n_best": count, "length_penalty": body.length_penalty}
    return {"sample": False} | found


def _last_message(body: ChatRequest) -> str:
    last = body.messages[-1]
    if last.role != "user" or last.content is None:
        raise invalid("messages: the last one is the source: it must have the role user, and text.", "messages")
    return last.content


def _longest(body: ChatRequest) -> int | None:
    newer, older = body.max_completion_tokens, body.max_tokens
    if newer and older and newer != older:
        raise invalid(f"max_tokens: {older}, but max_completion_tokens is {newer}; send one of them.", "max_tokens")
    return newer or older


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Refusals of the service name the field that this dialect has for the source."""
    try:
        yield
    except RefusedError as error:
        if error.parameter != "text":
            raise
        message = re.sub("^text:", f"{source}:", error.message)
        raise RefusedError(error.status, error.reason, message, source, error.retry_after) from None


def _chosen(call: _Call, answer: Answer) -> list[Output]:
    """The outputs that are given: of more samples than that, those whose tokens are the most probable."""
    outputs = answer.outputs
    if len(outputs) > call.count:
        outputs = sorted(outputs, key=lambda output: output.score / max(1, len(output.token_scores)), reverse=True)
    return outputs[: call.count]


def _usage(call: _Call, answers: Sequence[Answer]) -> Usage:
    prompt = sum(answer.source_tokens - len(answer.sentences) for answer in answers)  # each sentence has an end mark
    completion = sum(len(output.tokens) for answer in answers for output in _chosen(call, answer))
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


@dataclass(frozen=True)
class _Written:
    """What each token adds to an output, as UTF-8, and where in its text that begins; the characters of it all."""

    parts: list[bytes]
    offsets: list[int]
    length: int


def _written(tokenizer: Tokenizer, output: Output) -> _Written:
    """How an output came to be from its tokens, even where its text was cut."""
    parts = [_utf8(piece) for piece in output.tokens]
    if tokenizer.kind == "words":
        parts = parts[:1] + [b" " + part for part in parts[1:]]
    elif tokenizer.kind in ("bpe", "unigram"):
        parts = [part.removeprefix(b" ") for part in parts[:1]] + parts[1:]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, offsets = "", []
    for part in parts:
        offsets.append(_length(tokenizer, text))
        text += decoder.decode(part)
    return _Written(parts, offsets, _length(tokenizer, text + decoder.decode(b"", final=True)))


def _utf8(piece: str) -> bytes:
    return _RAW_BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), piece.encode())


def _length(tokenizer: Tokenizer, text: str) -> int:
    return len(unicodedata.normalize("NFC", text) if tokenizer.normalization == "NFD" else text)


@dataclass(frozen=True)
class _Choice:
    """An output as it is told. tokens: (UTF-8, log-probability, offset) of those that its text is made of."""

    text: str
    finish_reason: Literal["stop", "length"]
    tokens: list[tuple[bytes, float, int]]


def _choice(call: _Call, output: Output) -> _Choice:
    """It stopped by itself, or before a stop, or it was cut."""
    written = _written(call.side.tokenizers.target, output)
    stopped = len(output.text) < written.length
    together = zip(written.parts, output.token_scores, written.offsets, strict=False)  # the end has a score as well
    tokens = [token for token in together if not stopped or token[2] < len(output.text)]
    return _Choice(output.text, "stop" if output.finished or stopped else "length", tokens)


def _shown(token: bytes) -> str:
    return token.decode(errors="backslashreplace")


def _completion_choice(call: _Call, output: Output) -> CompletionChoice:
    choice = _choice(call, output)
    logprobs = CompletionLogprobs(
        tokens=[_shown(token) for token, _, _ in choice.tokens],
        token_logprobs=[score for _, score, _ in choice.tokens],
        text_offset=[offset for _, _, offset in choice.tokens],
    )
    shown = logprobs if call.with_logprobs else None
    return CompletionChoice(index=0, text=choice.text, logprobs=shown, finish_reason=choice.finish_reason)


def _completion(call: _Call, answers: Sequence[Answer]) -> Completion:
    choices = [
        _completion_choice(call, output).model_copy(update={"index": number * call.count + rank})
        for number, answer in enumerate(answers)
        for rank, output in enumerate(_chosen(call, answer))
    ]
    return Completion(**call.head, choices=choices, usage=_usage(call, answers))


def _chat_choice(call: _Call, output: Output, index: int = 0) -> ChatChoice:
    choice = _choice(call, output)
    tokens = [ChatToken(token=_shown(token), logprob=score, bytes=list(token)) for token, score, _ in choice.tokens]
    logprobs = ChatLogprobs(content=tokens) if call.with_logprobs else None
    message = ChatMessage(content=choice.text)
    return ChatChoice(index=index, message=message, logprobs=logprobs, finish_reason=choice.finish_reason)


def _chat(call: _Call, answers: Sequence[Answer]) -> ChatCompletion:
    (answer,) = answers
    choices = [_chat_choice(call, output, rank) for rank, output in enumerate(_chosen(call, answer))]
    return ChatCompletion(**call.head, choices=choices, usage=_usage(call, answers))


@dataclass(frozen=True)
class _Chunks:
    """How a stream is told: the choice of its first chunk, where there is one, of further text, and of the end."""

    object: str
    opening: dict[str, Any] | None
    piece: Callable[[str], dict[str, Any]]
    end: Callable[[_Call, Output], dict[str, Any]]


def _text_piece(text: str) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": None}


def _text_end(call: _Call, output: Output) -> dict[str, Any]:
    return _completion_choice(call, output).model_dump() | {"text": ""}


def _chat_piece(text: str) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}


def _chat_end(call: _Call, output: Output) -> dict[str, Any]:
    return _chat_choice(call, output).model_dump(exclude={"message"}) | {"delta": {}}


TEXT_CHUNKS = _Chunks("text_completion", None, _text_piece, _text_end)
CHAT_OPENING = _chat_piece("") | {"delta": {"role": "assistant", "content": ""}}
CHAT_CHUNKS = _Chunks("chat.completion.chunk", CHAT_OPENING, _chat_piece, _chat_end)


async def _streamed(call: _Call, chunks: _Chunks, parts: AsyncGenerator[Delta | Answer, None]) -> Response:
    """Nothing is sent before there is a first part, so that a refusal has its status."""
    first = await anext(parts)
    return StreamingResponse(_events(call, chunks, first, parts), media_type="text/event-stream")


async def _events(
    call: _Call, chunks: _Chunks, part: Delta | Answer, rest: AsyncGenerator[Delta | Answer, None]
) -> AsyncIterator[str]:
    """Chunks, the last with the log-probabilities of all tokens and then, where asked for, the usage; or an error."""
    options = call.body.stream_options
    with_usage = options is not None and bool(options.include_usage)

    def event(choices: list[dict[str, Any]], usage: Usage | None = None) -> str:
        chunk = {**call.head, "object": chunks.object, "choices": choices}
        if with_usage:
            chunk["usage"] = usage and usage.model_dump()
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    async with aclosing(rest):  # whatever becomes of the client
        try:
            if chunks.opening is not None:
                yield event([chunks.opening])
            while isinstance(part, Delta):
                yield event([chunks.piece(part.text)])
                part = await anext(rest)
            yield event([chunks.end(call, part.outputs[0])])
            if with_usage:
                yield event([], _usage(call, [part]))
            yield "data: [DONE]\n\n"
        except RefusedError as error:
            yield f"data: {bytes(shape(error).body).decode()}\n\n"
