"""The OpenAI dialect, as its own client meets it: unmodified, over a real socket."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from antiphon.config import TokenizerConfig
from antiphon.data.pairs import Pair
from antiphon.run import Model
from antiphon.serving.answers import Answer, Delta
from antiphon.serving.api.openai import CompletionRequest, _check_search, _search, _written
from antiphon.serving.app import create_app
from antiphon.serving.errors import RefusedError
from antiphon.serving.service import Service
from antiphon.serving.settings import ServerSettings
from antiphon.text_side import Output
from antiphon.tokenizer import train_tokenizers

DRAWN = {"sample": True, "temperature": 1.5, "seed": 3}  # varied outputs from a model that has learned nothing
DRAW = {"temperature": 1.5, "seed": 3}
USER = {"role": "user", "content": "ab 01"}


@pytest.fixture(scope="module")
def app(folder: Path) -> FastAPI:
    return create_app(ServerSettings(runs={"tiny": folder, "other": folder}))


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    """Of a server in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not app.state.service.is_ready:
            assert app.state.failure is None
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def complete(client: openai.OpenAI, **asked: Any) -> Any:
    return client.completions.create(**{"model": "tiny", "prompt": "ab 01"} | asked)


def chat(client: openai.OpenAI, **asked: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": [USER]} | asked)


def texts(choices: list[Any]) -> list[str]:
    return [choice.text if hasattr(choice, "text") else choice.message.content for choice in choices]


@pytest.mark.parametrize(
    ("asked", "settings"),
    [
        ({}, {}),
        ({"temperature": 0}, {"beam_size": 1}),
        ({"n": 3}, {"beam_size": 3, "n_best": 3}),
        (
            {"n": 2, "extra_body": {"best_of": 4, "length_penalty": 0.5}},
            {"beam_size": 4, "n_best": 2, "length_penalty": 0.5},
        ),
        ({"n": 2, "temperature": 0, "extra_body": {"use_beam_search": True}}, {"beam_size": 2, "n_best": 2}),
        ({"n": 2, **DRAW}, {"n_best": 2, **DRAWN}),
        ({"top_p": 0.5, "seed": 7}, {"sample": True, "top_p": 0.5, "seed": 7}),
        ({"extra_body": {"top_k": 3}, "seed": 7}, {"sample": True, "top_k": 3, "seed": 7}),
        ({"max_tokens": 4, "extra_body": {"min_tokens": 3}, "top_p": 1}, {"max_length": 4, "min_length": 3}),
    ],
)
def test_answers_equal_those_of_the_model_in_python(
    client: openai.OpenAI, model: Model, asked: dict[str, Any], settings: dict[str, Any]
) -> None:
    (expected,) = model.outputs(["ab 01"], **settings)
    completion, talk = complete(client, **asked), chat(client, **asked)
    for found in (completion, talk):
        assert texts(found.choices) == [output.text for output in expected]
        assert [choice.finish_reason for choice in found.choices] == [
            "stop" if output.finished else "length" for output in expected
        ]
        assert [choice.index for choice in found.choices] == list(range(len(expected)))
        assert found.model == "tiny"
        assert found.usage.prompt_tokens == len(model.tokenizers.source.encode("ab 01"))
        assert found.usage.completion_tokens == sum(len(output.tokens) for output in expected)
        assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert (completion.object, talk.object) == ("text_completion", "chat.completion")
    assert talk.choices[0].message.role == "assistant"


def test_several_prompts_have_the_choices_of_each_in_turn(client: openai.OpenAI, model: Model) -> None:
    found = complete(client, prompt=["ab 01", " ", "ab 02 ab 03"], n=2)
    first, _, last = model.outputs(["ab 01", " ", "ab 02 ab 03"], beam_size=2, n_best=2)
    assert texts(found.choices) == [first[0].text, first[1].text, "", last[0].text, last[1].text]
    assert [choice.index for choice in found.choices] == [0, 1, 2, 4, 5]
    assert found.usage.prompt_tokens == sum(
        len(model.tokenizers.source.encode(text)) for text in ("ab 01", "ab 02 ab 03")
    )


def test_the_best_samples_are_those_with_the_most_probable_tokens(client: openai.OpenAI, model: Model) -> None:
    (drawn,) = model.outputs(["ab 01"], n_best=6, **DRAWN)
    ranked = sorted(drawn, key=lambda output: -output.score / len(output.token_scores))
    found = complete(client, best_of=6, n=2, **DRAW)
    assert texts(found.choices) == [output.text for output in ranked[:2]]


def test_samples_differ_from_one_request_to_the_next_unless_there_is_a_seed(client: openai.OpenAI) -> None:
    assert len({complete(client, temperature=2).choices[0].text for _ in range(4)}) > 1
    assert len({complete(client, temperature=2, seed=5).choices[0].text for _ in range(2)}) == 1


def test_a_model_that_samples_by_itself_can_be_made_to_search(model: Model) -> None:
    own = model.config.generation.model_copy(update={"sample": True, "beam_size": 5, "temperature": 0.7})

    def search(**asked: Any) -> dict[str, Any]:
        body = CompletionRequest(prompt=["a"], **asked)
        _check_search(body, own)
        return _search(body, own)

    assert search()["sample"]
    assert search()["temperature"] is None  # its own
    assert (search(temperature=0)["sample"], search(temperature=0)["beam_size"]) == (False, 1)
    assert search(use_beam_search=True, n=2)["beam_size"] == 5
    for asked in ({"length_penalty": 0.5}, {"best_of": 2, "stream": True}):
        with pytest.raises(RefusedError):
            search(**asked)


def test_an_output_ends_before_the_first_stop(client: openai.OpenAI, model: Model) -> None:
    text = model.outputs(["ab 01"], **DRAWN)[0][0].text
    stop = text[4:6]
    assert text.index(stop) > 0
    for stops in (stop, ["never there", stop], [text[-1:], stop]):
        places = [text.index(one) for one in ([stops] if isinstance(stops, str) else stops) if one in text]
        found = complete(client, stop=stops, logprobs=0, **DRAW).choices[0]
        talk = chat(client, stop=stops, logprobs=True, **DRAW).choices[0]
        assert found.text == talk.message.content == text[: min(places)]
        assert found.finish_reason == talk.finish_reason == "stop"
        assert all(offset < len(found.text) for offset in found.logprobs.text_offset)
        assert len(found.logprobs.tokens) == len(talk.logprobs.content) < len(text)


@pytest.mark.parametrize(
    "asked", [{}, DRAW, {"extra_body": {"best_of": 3}}, {"stop": ["I", "never"]}, {"max_tokens": 2}]
)
def test_a_stream_makes_up_the_answer(client: openai.OpenAI, asked: dict[str, Any]) -> None:
    whole = complete(client, logprobs=0, **asked)
    chunks = list(complete(client, logprobs=0, stream=True, stream_options={"include_usage": True}, **asked))
    *told, last = chunks
    assert "".join(chunk.choices[0].text for chunk in told) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in told] == [None] * (len(told) - 1) + [
        whole.choices[0].finish_reason
    ]
    assert told[-1].choices[0].logprobs.tokens == whole.choices[0].logprobs.tokens
    assert (last.choices, last.usage) == ([], whole.usage)
    assert all(chunk.usage is None for chunk in told)
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("asked", [{}, DRAW, {"stop": "I"}, {"max_tokens": 2}])
def test_a_chat_is_streamed_with_the_role_first(client: openai.OpenAI, asked: dict[str, Any]) -> None:
    whole = chat(client, logprobs=True, **asked)
    first, *rest = list(chat(client, logprobs=True, stream=True, **asked))
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in rest) == whole.choices[0].message.content
    assert rest[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert rest[-1].choices[0].logprobs.model_dump() == whole.choices[0].logprobs.model_dump()
    assert {chunk.object for chunk in rest} == {"chat.completion.chunk"}
    assert first.usage is None


def test_a_blank_text_has_a_blank_answer(client: openai.OpenAI) -> None:
    assert texts(complete(client, prompt="  ").choices) == [""]
    (last,) = complete(client, prompt="  ", stream=True)
    assert (last.choices[0].text, last.choices[0].finish_reason) == ("", "stop")


def test_the_events_are_those_that_the_format_says(address: str) -> None:
    body = {"prompt": "ab 01", "stream": True, "max_tokens": 2}
    response = httpx.post(f"{address}/v1/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, done, nothing = response.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    assert all(json.loads(chunk.removeprefix("data: "))["object"] == "text_completion" for chunk in chunks)


def test_log_probabilities_are_those_of_the_model(client: openai.OpenAI, model: Model) -> None:
    (output,) = model.outputs(["ab 01"], **DRAWN)[0]
    scores = output.token_scores[: len(output.tokens)]
    found = complete(client, logprobs=1, **DRAW).choices[0].logprobs
    assert found.tokens == output.tokens
    assert found.token_logprobs == pytest.approx(scores, abs=1e-4)
    assert found.text_offset[0] == 0
    assert found.text_offset == sorted(found.text_offset)
    content = chat(client, logprobs=True, **DRAW).choices[0].logprobs.content
    assert [token.token for token in content] == output.tokens
    assert [token.logprob for token in content] == pytest.approx(scores, abs=1e-4)
    together = b"".join(bytes(token.bytes) for token in content)
    assert together.decode(errors="replace") == output.text
    assert all(token.top_logprobs == [] for token in content)
    assert complete(client).choices[0].logprobs is None


@pytest.mark.parametrize("kind", ["bpe", "unigram", "bytes", "chars", "words"])
@pytest.mark.parametrize("form", ["none", "NFD"])
def test_tokens_are_found_in_the_text_again(kind: Any, form: Any) -> None:
    lines = ["l'été à 3 h", "한국 語 été", "\U0001f600 ok \\x ok"]
    settings = TokenizerConfig(source="chars", target=kind, joint=False, vocab_size=300, target_normalization=form)
    tokenizer = train_tokenizers([Pair(line, line) for line in lines], settings).target
    for line in lines:
        ids = tokenizer.encode(line)
        output = Output(tokenizer.decode(ids), 0.0, tokenizer.pieces(ids), [], finished=True)
        written = _written(tokenizer, output)
        assert output.text == line
        assert written.length == len(line)
        assert written.offsets == sorted(written.offsets)
        if form == "none":
            assert b"".join(written.parts).decode() == line
        if kind in ("chars", "words") and form == "none":
            spans = pairwise([*written.offsets, len(line)])
            assert [line[start:end] for start, end in spans] == [part.decode() for part in written.parts]


def test_the_last_message_is_the_source(client: openai.OpenAI, model: Model) -> None:
    parts = [{"type": "text", "text": "ab 02"}, {"type": "text", "text": "ab"}]
    talk = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "AB"}]
    found = chat(client, messages=[*talk, {"role": "user", "content": parts}])
    assert texts(found.choices) == [model.outputs(["ab 02\nab"])[0][0].text]
    again = chat(client, messages=[USER, found.choices[0].message.model_dump(), USER])
    assert texts(again.choices) == [model.outputs(["ab 01"])[0][0].text]


def test_what_changes_nothing_is_taken(client: openai.OpenAI) -> None:
    plain = complete(client).choices[0].text
    neutral: dict[str, Any] = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "stop": None, "n": 1}
    labels = {"store": False, "metadata": {"a": "b"}, "service_tier": "auto"}
    assert texts(complete(client, echo=False, suffix=None, user="me", extra_body=labels, **neutral).choices) == [plain]
    more: dict[str, Any] = {
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "modalities": ["text"],
    }
    found = chat(client, parallel_tool_calls=True, max_completion_tokens=50, max_tokens=50, **labels, **neutral, **more)
    assert found.choices[0].message.content.startswith(plain)


def test_the_asynchronous_client_is_answered_at_once_many_times(address: str, model: Model) -> None:
    async def ask() -> tuple[list[str], str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            whole = [client.completions.create(model="tiny", prompt=f"ab {i:02d}") for i in range(8)]
            found = [completion.choices[0].text for completion in await asyncio.gather(*whole)]
            stream = await client.chat.completions.create(model="other", messages=[USER], stream=True)
            return found, "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    found, streamed = asyncio.run(ask())
    assert found == [outputs[0].text for outputs in model.outputs([f"ab {i:02d}" for i in range(8)])]
    assert streamed == model.outputs(["ab 01"])[0][0].text


def test_models_are_listed_and_looked_up(client: openai.OpenAI, folder: Path) -> None:
    assert [card.id for card in client.models.list()] == ["tiny", "other"]
    card = client.models.retrieve("other")
    assert (card.id, card.object, card.created) == ("other", "model", int(folder.stat().st_mtime))
    with pytest.raises(openai.NotFoundError) as told:
        client.models.retrieve("nowhere")
    assert told.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("asked", "parameter", "part"),
    [
        ({"prompt": [1, 2]}, "prompt", "token ids"),
        ({"prompt": [[1], [2]]}, "prompt", "token ids"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": "a " * 500}, "prompt", "prompt: at most 20 tokens"),
        ({"prompt": ["ab"] * 257}, "prompt", "prompt: at most 256"),
        ({"n": 33}, "n", "32"),
        ({"n": 3, "best_of": 2}, "best_of", "n (3)"),
        ({"n": 2, "stream": True}, "n", "streamed"),
        ({"prompt": ["a", "b"], "stream": True}, "stream", "one prompt"),
        ({"temperature": 1, "best_of": 2, "stream": True}, "best_of", "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"max_tokens": 2000}, "max_tokens", "at most 1024"),
        ({"max_tokens": 2, "extra_body": {"min_tokens": 3}}, "min_tokens", "max_tokens (2)"),
        ({"temperature": 0.001}, "temperature", "0.01"),
        ({"temperature": 1, "extra_body": {"use_beam_search": True}}, "use_beam_search", "temperature 0"),
        ({"top_p": 0.5, "extra_body": {"length_penalty": 2}}, "length_penalty", "beam search"),
        ({"stop": list("abcde")}, "stop", "4"),
        ({"stop": ""}, "stop.0", "1 character"),
        ({"seed": -1}, "seed", "0"),
        ({"logprobs": 2}, "logprobs", "send 0 or 1"),
        ({"echo": True}, "echo", "send false"),
        ({"suffix": "x"}, "suffix", "leave it out"),
        ({"logit_bias": {"3": 1}}, "logit_bias", "{}"),
        ({"presence_penalty": 0.5}, "presence_penalty", "send 0"),
        ({"extra_body": {"ignore_eos": True}}, "ignore_eos", "send false"),
        ({"extra_body": {"beam_sise": 2}}, "beam_sise", "beam_sise"),
    ],
)
def test_what_cannot_be_is_refused_with_400_and_the_field(
    client: openai.OpenAI, asked: dict[str, Any], parameter: str, part: str
) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        complete(client, **asked)
    assert told.value.type == "invalid_request_error"
    assert told.value.param == parameter
    assert part in told.value.message


@pytest.mark.parametrize(
    ("asked", "parameter", "part"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages", "role user"),
        ({"messages": [{"role": "user", "content": None}]}, "messages", "text"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]}, "messages.0.role", "user"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "'image_url'"),
        ({"messages": [{"role": "user", "content": "a " * 500}]}, "messages", "messages: at most 20 tokens"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}, USER]}, "messages.0.tool_calls", "functions"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format", '{"type": "text"}'),
        ({"modalities": ["text", "audio"]}, "modalities", '["text"]'),
        ({"logprobs": True, "top_logprobs": 2}, "top_logprobs", "send 0"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens", "one of them"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "false",
        ),
        ({"extra_body": {"web_search_options": {}}}, "web_search_options", "send null"),
    ],
)
def test_what_a_chat_cannot_be_is_refused_with_400_and_the_field(
    client: openai.OpenAI, asked: dict[str, Any], parameter: str, part: str
) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        chat(client, **asked)
    assert told.value.param == parameter
    assert part in told.value.message


def test_a_text_that_is_too_long_has_a_code_of_its_own_also_when_streamed(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as told:
            complete(client, prompt="a " * 500, stream=stream)
        assert told.value.code == "context_length_exceeded"


def test_a_model_that_is_not_served_is_not_found(client: openai.OpenAI) -> None:
    for ask in (complete, chat):
        with pytest.raises(openai.NotFoundError) as told:
            ask(client, model="nowhere", stream=True)
        assert (told.value.code, told.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("status", "reason", "kind", "code"),
    [
        (401, "unauthorized", openai.AuthenticationError, "invalid_api_key"),
        (429, "overloaded", openai.RateLimitError, "rate_limit_exceeded"),
        (500, "failed", openai.InternalServerError, None),
        (503, "unavailable", openai.InternalServerError, "unavailable"),
        (504, "late", openai.InternalServerError, "timeout"),
    ],
)
def test_what_goes_wrong_is_raised_as_the_client_s_own_error(
    client: openai.OpenAI,
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    reason: str,
    kind: type[openai.APIStatusError],
    code: str | None,
) -> None:
    async def answer(*_: object) -> list[Answer]:
        raise RefusedError(status, reason, "it cannot be.", retry_after=3 if status == 429 else None)

    monkeypatch.setattr(app.state.service, "answer", answer)
    for ask in (complete, chat):
        with pytest.raises(kind) as told:
            ask(client)
        assert (told.value.status_code, told.value.code) == (status, code)
        assert told.value.response.headers.get("retry-after") == ("3" if status == 429 else None)


def test_a_client_that_leaves_frees_what_it_holds(client: openai.OpenAI, app: FastAPI) -> None:
    pool = app.state.service.pool
    before = pool.statistics.generated
    chunks = complete(client, stream=True, max_tokens=1000, extra_body={"min_tokens": 1000})
    next(chunks)
    chunks.close()
    while pool.outstanding:
        time.sleep(0.01)
    assert pool.statistics.generated == before


def test_a_server_that_stops_says_so(client: openai.OpenAI, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.state.service, "draining", True)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError, match="stopping") as told:
            chat(client, stream=stream)
        assert told.value.status_code == 503


def test_an_error_in_the_middle_of_a_stream_is_its_last_event(
    client: openai.OpenAI, address: str, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stream(*_: object) -> AsyncIterator[Delta | Answer]:
        yield Delta("half")
        raise RefusedError(503, "unavailable", "the engine ended.")

    service: Service = app.state.service
    monkeypatch.setattr(service, "stream", stream)
    chunks = complete(client, stream=True)
    assert next(chunks).choices[0].text == "half"
    with pytest.raises(openai.APIError, match="the engine ended"):
        next(chunks)
    response = httpx.post(f"{address}/v1/completions", json={"prompt": "ab", "stream": True})
    assert response.status_code == 200
    assert "[DONE]" not in response.text
    assert response.text.endswith("}}\n\n")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"prompt": "\\ud800"}', b'{"prompt": "\xff"}', b'{"\\ud800": 1}'])
def test_bodies_that_are_no_json_are_refused(address: str, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    assert httpx.post(f"{address}/v1/completions", content=body, headers=headers).status_code == 400


def test_the_document_tells_the_refusals(address: str) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    for path in ("/v1/completions", "/v1/chat/completions"):
        responses = document["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "400", "401", "404", "429", "500", "503", "504", "default"}
        assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
        assert responses["400"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorBody")
    echo = document["components"]["schemas"]["CompletionRequest"]["properties"]["echo"]
    assert echo["enum"] == [None, False]


def test_every_field_stands_in_the_documentation(address: str) -> None:
    page = (Path(__file__).parent.parent / "docs" / "dialects" / "openai.md").read_text(encoding="utf-8")
    schemas = httpx.get(f"{address}/openapi.json").json()["components"]["schemas"]
    fields = {name for record in ("CompletionRequest", "ChatRequest") for name in schemas[record]["properties"]}
    assert not [name for name in sorted(fields) if f"`{name}`" not in page]
