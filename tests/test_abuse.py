"""Whatever is sent, no request makes the server fail or hang, and each refusal is a sentence in the form of its
dialect."""

import asyncio
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import requests
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from letters import train_letters
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from antiphon.serving.app import create_app
from antiphon.serving.settings import ServerSettings

# Neither 500, nor 501 or 502. 503 would be a server that is not ready, and 504 is what a tiny timeout asks for.
FINE = {200, 400, 404, 405, 413, 415, 422, 504}
PATIENCE = 60  # seconds after which a request hangs


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ServerSettings:
    """Two models: words with attention, and bytes without."""
    folder = tmp_path_factory.mktemp("served")
    other = ['model.encoder="gru"', 'model.decoder="gru"', 'model.attention="none"', "model.encoder_layers=1"]
    other += ['tokenizer.source="bytes"', 'tokenizer.target="bytes"', 'tokenizer.target_normalization="NFD"']
    runs = {"tiny-en-fr": train_letters(folder / "tiny-en-fr"), "other": train_letters(folder / "other", *other)}
    return ServerSettings(runs=runs, max_output=30, max_body=1 << 18, timeout=20)


@asynccontextmanager
async def served(settings: ServerSettings) -> AsyncIterator[httpx.AsyncClient]:
    """The application by itself, ready, as long as its loop runs."""
    app: FastAPI = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server", timeout=None) as client,
    ):
        while not app.state.service.is_ready:
            await asyncio.sleep(0.01)
        yield client
        assert app.state.service.pool.outstanding == 0
        assert not app.state.service._outstanding


# What is sent

MODELS = ("tiny-en-fr", "other")
SEEDS: dict[str, list[dict[str, Any]]] = {
    "/v1/generate": [
        {"text": "ab 01"},
        {"text": ["ab 01", "ab 02"], "model": "other", "beam_size": 3, "n_best": 2, "length_penalty": 1.0},
        {"text": "Ab 1. Ab 2.", "split": "sentence", "language": "de", "stop": ["B", "01"], "timeout": 3.0},
        {"text": "ab 01", "stream": True, "model": "other", "min_length": 2, "max_length": 9},
        {"text": "ab", "sample": True, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "seed": 7, "n_best": 2},
        {"text": "ab", "alignments": True, "prefix": "AB", "no_repeat_ngram": 2},
    ],
    "/v1/score": [{"source": ["ab 01"], "target": ["AB 01"]}, {"source": "ab", "target": "AB", "model": "other"}],
    "/v1/trace": [
        {"text": "ab 01", "target": "AB 01", "alternatives": 4, "beam_size": 2},
        {"text": "ab", "model": "other", "prefix": "A", "max_length": 5, "sample": True, "seed": 1},
    ],
    "/v1/completions": [
        {"model": "tiny-en-fr", "prompt": "ab 01", "max_tokens": 5, "temperature": 0, "n": 1, "stop": ["B"]},
        {"model": "other", "prompt": ["ab", "cd"], "n": 2, "best_of": 2, "logprobs": 2, "seed": 3, "top_p": 0.5},
        {
            "model": "tiny-en-fr",
            "prompt": "ab",
            "stream": True,
            "stream_options": {"include_usage": True},
            "echo": False,
        },
    ],
    "/v1/chat/completions": [
        {"model": "tiny-en-fr", "messages": [{"role": "user", "content": "ab 01"}], "max_completion_tokens": 4},
        {
            "model": "other",
            "messages": [
                {"role": "system", "content": "x"},
                {"role": "user", "content": [{"type": "text", "text": "ab"}]},
            ],
            "stream": True,
            "logprobs": True,
            "top_logprobs": 2,
        },
    ],
    "/translate": [
        {"q": "ab 01", "source": "en", "target": "fr", "format": "text", "alternatives": 1},
        {"q": ["<p>ab</p>", "b"], "source": "auto", "target": "fr", "format": "html", "api_key": "x"},
    ],
    "/detect": [{"q": "ab 01"}],
    "/v2/models/tiny-en-fr/infer": [
        {
            "id": "1",
            "inputs": [{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["ab 01", "ab"]}],
            "parameters": {"beam_size": 2},
            "outputs": [{"name": "text"}],
        },
    ],
    "/v2/models/other/generate": [{"text_input": "ab", "parameters": {"max_length": 4}}],
    "/v2/models/other/generate_stream": [{"text_input": "ab 01"}],
}
JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**64), 10**30, 0.5, -0.0, 1e-300, 1e308),
    *(float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "\0",
        "\ud800",
        "a\udfffb",
        "\x1b[31m\x07\x08",
        "\u202e\ufeff\u2028",
        "e\u0301" * 30,
        "👩‍👧" * 20,
        "AB",
        "en",
    ),
    *("x" * 100_000, "x " * 30_000, "." * 2_000, "<" * 3_000, "a. " * 500, "\n" * 1_000, "١٢٣", "0x10", "NaN"),
    *("../../etc/passwd", "..\\..\\x", "%2e%2e%2f", "tiny-en-fr/../other", "sentence", "none", "html", "auto"),
    *([], {}, [None], [[]], {"": ""}, [""] * 1000, ["ab"] * 300, list(range(1000)), {"text": {"text": {}}}),
]
TYPES = [*["application/json"] * 12, "", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"]
TYPES += [
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "application/json; charset=utf-16",
    "\xff",
    "a/" * 99,
]


def mutated(dice: random.Random, value: Any) -> Any:
    """With some place of it changed."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        choice = dice.random()
        if choice < 0.15:
            return {name: one for name, one in value.items() if name != key}
        if choice < 0.25:
            return {**value, dice.choice(["x", "\0", "\ud800", key + " ", "k" * 5000]): dice.choice(JUNK)}
        return {**value, key: mutated(dice, value[key])}
    if isinstance(value, list) and value and dice.random() < 0.5:
        place = dice.randrange(len(value))
        return [*value[:place], mutated(dice, value[place]), *value[place + dice.randrange(2) :]]
    if isinstance(value, int | float) and dice.random() < 0.4:
        return value * dice.choice([-1, 0, 2, 100, 1e9, 0.001])
    return nested(dice.randint(1, 300)) if dice.random() < 0.05 else dice.choice(JUNK)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def broken(dice: random.Random, text: bytes) -> bytes:
    """Bytes that may be no JSON any more."""
    kind = dice.randrange(9)
    if kind == 0:
        return text[: dice.randrange(len(text) + 1)]
    if kind == 1:
        return dice.randbytes(dice.randrange(200))
    if kind == 2:
        return b"[" * dice.choice([100, 5_000, 100_000])
    if kind == 3:
        return b'{"text":' * dice.choice([100, 5_000]) + b"1"
    if kind == 4:
        return text.replace(b":", b": " + dice.choice([b"9" * 5000, b"1e999", b"-", b"1.e5", b"Infinity", b"0x1"]), 1)
    if kind == 5:
        return text.decode("utf-8", "replace").encode(dice.choice(["utf-16", "utf-8-sig", "utf-32-le"]))
    if kind == 6:
        return text + text
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(max(1, len(text)))
        text = (
            text[:place]
            + dice.choice([dice.randbytes(2), b'"', b"}", b"\\u", b"\\ud800", b"\0", b"\xff"])
            + text[place + 1 :]
        )
    return text


def bodies(count: int, seed: int) -> Iterator[tuple[str, bytes, str]]:
    """(path, body, content type), fuzzed."""
    dice = random.Random(seed)
    for _ in range(count):
        path = dice.choice(list(SEEDS))
        value: Any = dice.choice(SEEDS[path])
        for _ in range(dice.randint(0, 3)):
            value = mutated(dice, value)
        text = json.dumps(value, ensure_ascii=True).encode()
        yield path, broken(dice, text) if dice.random() < 0.3 else text, dice.choice(TYPES)


# What comes back


def sentence(path: str, answer: httpx.Response) -> str:
    """Of a refusal in the form of its dialect."""
    told = answer.json()["error"]
    if path.startswith(("/translate", "/detect", "/languages", "/frontend", "/v2")):
        assert isinstance(told, str)
        return told
    if path.startswith(("/v1/completions", "/v1/chat", "/v1/models")):
        assert told.keys() == {"message", "type", "param", "code"}
    else:
        assert told.keys() == {"reason", "message", "parameter"}
    message = told["message"]
    assert isinstance(message, str)
    return message


def check(path: str, answer: httpx.Response) -> None:
    assert answer.status_code in FINE, answer.text[:500]
    answer.content.decode("utf-8")
    if answer.status_code == 200:
        if answer.headers["content-type"].startswith("application/json"):
            json.loads(answer.content, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        return
    told = sentence(path, answer)
    assert told.strip().endswith((".", "?")), told
    assert len(told) < 600, told
    assert "Traceback" not in told
    assert told.isprintable(), told


async def send(client: httpx.AsyncClient, path: str, body: bytes, kind: str) -> int:
    headers = {"content-type": kind.encode("latin-1")} if kind else {}
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await client.post(path, content=body, headers=headers)
        check(path, answer)
    except BaseException as error:
        error.add_note(f"{path} {kind} {body[:2000]!r}")
        raise
    return answer.status_code


async def fuzz(settings: ServerSettings, count: int, seed: int, at_once: int = 8) -> Counter[int]:
    found: Counter[int] = Counter()
    waiting = bodies(count, seed)

    async def work(client: httpx.AsyncClient) -> None:
        for path, body, kind in waiting:
            found[await send(client, path, body, kind)] += 1

    async with served(settings) as client, asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work(client))
    return found


def test_no_body_makes_it_fail(settings: ServerSettings) -> None:
    found = asyncio.run(fuzz(settings, 500, seed=1))
    assert found[200] > 50
    assert found.total() == 500


@pytest.mark.slow  # 25 seconds
def test_none_of_very_many_bodies_makes_it_fail(settings: ServerSettings) -> None:
    assert asyncio.run(fuzz(settings, 10_000, seed=2)).total() == 10_000


@pytest.mark.parametrize("path", [*SEEDS, "/v1/models/x", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"])
def test_another_method_is_told_in_the_form_of_the_dialect(client: "Client", path: str, method: str) -> None:
    if (method, path) == ("GET", "/v1/models/x"):
        pytest.skip("asks for a model")
    answer = client.request(method, path)
    check(path, answer)
    assert answer.status_code in (404, 405)


OUTSIDE = ["..", "../tiny-en-fr", "../../../../etc/passwd", "..\\..\\etc\\passwd", "/etc/passwd", "tiny-en-fr/../other"]
OUTSIDE += [
    "tiny-en-fr\0",
    "\0",
    "~",
    "C:\\",
    "file:///etc/passwd",
    "tiny-en-fr/model.safetensors",
    "x" * 5000,
    "%2e%2e",
    " ",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_is_a_name_and_no_path(client: "Client", name: str) -> None:
    for form in (quote(name, safe=""), quote(quote(name, safe=""), safe=""), quote(name, safe="/")):
        for place in (
            "/v1/models/{}",
            "/v2/models/{}",
            "/v2/models/{}/ready",
            "/v2/models/{}/versions/1",
            "/page/{}",
            "/docs/{}",
        ):
            path = place.format(form)
            answer = client.request("GET", path)
            assert answer.status_code in FINE - {200} or answer.url.path != path  # the client may have shortened it
            check(answer.url.path, answer)
            assert "root:" not in answer.text
    for path, body in (
        ("/v1/generate", {"text": "a"}),
        ("/v1/score", {"source": "a", "target": "a"}),
        ("/v1/trace", {"text": "a"}),
    ):
        answer = client.request("POST", path, json={**body, "model": name})
        assert answer.status_code == 404
        check(path, answer)
    answer = client.request("POST", "/v1/completions", json={"model": name, "prompt": "a"})
    assert answer.status_code == 404
    check("/v1/completions", answer)


@pytest.mark.parametrize("size", [100_000, 200_000])
@pytest.mark.parametrize("text", ["x", "x ", "A. ", "é", "👩\u200d", "e\u0301", "<", "((", '"', "-\n"])
def test_very_long_texts_are_refused_or_answered_in_time(client: "Client", text: str, size: int) -> None:
    body = {"text": (text * size)[:size], "split": "sentence", "max_length": 1}
    if len(json.dumps(body, ensure_ascii=False).encode()) > client.settings.max_body:
        body["text"] = body["text"][: size // 4]
    for more in ({}, {"model": "other"}, {"split": "none"}):
        answer = client.request(
            "POST", "/v1/generate", content=json.dumps({**body, **more}, ensure_ascii=False).encode()
        )
        check("/v1/generate", answer)


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_of_very_many_sentences_leaves_places_for_others(settings: ServerSettings, stream: bool) -> None:
    async def ask() -> None:
        async with served(settings.model_copy(update={"max_outstanding": 8})) as client:
            body = {"text": "Ab go!\n" * 400, "split": "sentence", "max_length": 9, "stream": stream}
            long = asyncio.create_task(client.post("/v1/generate", json=body))
            others = 0
            while not long.done():
                answer = await client.post("/v1/generate", json={"text": ["ab 01"] * 4})
                assert answer.status_code == 200
                others += 1
            assert others > 10
            assert long.result().status_code == 200
            told = long.result().text
            whole = json.loads(told.rsplit("data: ", 1)[1] if stream else told)
            assert len(whole["sentences"][0]) == 400
            if stream:
                deltas = [json.loads(line[6:]) for line in told.splitlines() if line.startswith('data: {"delta"')]
                assert "".join(delta["delta"] for delta in deltas) == whole["outputs"][0][0]["text"]

    asyncio.run(ask())


@pytest.mark.parametrize(
    "more", [{"max_length": 31}, {"min_length": 31}, {"prefix": "AB " * 40}, {"max_length": 10**9}]
)
@pytest.mark.parametrize("path", ["/v1/generate", "/v1/trace"])
def test_no_output_is_longer_than_the_server_s_limit(client: "Client", path: str, more: dict[str, Any]) -> None:
    answer = client.request("POST", path, json={"text": "ab 01", **more})
    assert answer.status_code == 422
    assert "at most 30 tokens" in sentence(path, answer)


# What the server says of itself


class Client:
    """Asks a server that runs in a thread, through a socket."""

    def __init__(self, address: str, settings: ServerSettings) -> None:
        self.address, self.settings = address, settings
        self.http = httpx.Client(base_url=address, timeout=PATIENCE)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"content-type": "application/json"} if "content" in more else {}
        return self.http.request(method, path, headers=headers, **more)


@contextmanager
def listening(settings: ServerSettings) -> Iterator[str]:
    """Its address."""
    app = create_app(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not app.state.service.is_ready:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(settings: ServerSettings) -> Iterator[str]:
    with listening(settings) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str, settings: ServerSettings) -> Iterator[Client]:
    client = Client(address, settings)
    with client.http:
        yield client


def test_the_document_of_the_api_is_true(address: str) -> None:
    """What it says may be sent, and what may not, has the answers that it says.

    Left out: that all it says may be sent is answered. How long a text may be, which models there are, and that each
    source has a target, are told by no schema; and 504 is what a tiny timeout asks for.
    """
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    few = hypothesis_settings(
        max_examples=40, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
    )
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 20
    with requests.Session() as session:

        def ask(case: schemathesis.Case) -> None:
            answer = case.call(session=session, timeout=PATIENCE)
            assert answer.status_code in FINE
            case.validate_response(answer, excluded_checks=[positive_data_acceptance, not_a_server_error])

        for operation in operations:
            few(given(case=operation.as_strategy())(ask))()
