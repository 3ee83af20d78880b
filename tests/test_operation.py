"""What keeps a server going: ids, logs, keys, limits, metrics, spans, and how it begins and ends; over real sockets
where the network is what matters."""

import hashlib
import hmac
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from letters import train_letters
from prometheus_client.parser import text_string_to_metric_families

from antiphon.serving import keys as keys_module
from antiphon.serving import server as server_module
from antiphon.serving.app import create_app
from antiphon.serving.errors import RefusedError
from antiphon.serving.keys import VARIABLE, Keys, find_key, read_keys
from antiphon.serving.middleware import tracing
from antiphon.serving.settings import ServerSettings

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"
LONG = {"text": "ab 01", "beam_size": 4, "min_length": 1000, "max_length": 1000}  # takes a while
SECRET = "ab 17 ab 23"
HEAD = "POST /v1/generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_letters(tmp_path_factory.mktemp("served") / "tiny-en-fr")


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """The application by itself, ready."""
    app = create_app(ServerSettings(runs={"tiny-en-fr": folder}, **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        yield client


@contextmanager
def listening(folder: Path, **settings: Any) -> Iterator[tuple[str, int, Any]]:
    """The application behind a socket: host, port, and its state."""
    app = create_app(ServerSettings(runs={"tiny-en-fr": folder}, **settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        server = server_module._Server(app, f"http://{host}:{port}", drain_seconds=1)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: app.state.service.is_ready)
            yield host, port, app.state
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def process(folder: Path, *words: object, environment: dict[str, str] | None = None) -> Iterator["Process"]:
    """`antiphon serve`, ready."""
    command = [sys.executable, "-m", "antiphon", "serve", str(folder), "--port", "0", "--workers", "1"]
    running = subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        assert running.stdout is not None
        address = re.search(r"http://127.0.0.1:(\d+)", running.stdout.readline())
        assert address is not None
        yield Process(running, int(address[1]))
    finally:
        running.kill()
        running.communicate()


class Process:
    """A server that runs by itself. Its stderr is read all the time, for it would wait else."""

    def __init__(self, running: "subprocess.Popen[str]", port: int) -> None:
        self.running, self.port, self.url = running, port, f"http://127.0.0.1:{port}"
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.running.stderr is not None
        for line in self.running.stderr:
            self.lines.append(line)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.running.send_signal(number)

    def end(self, seconds: float = 30) -> int:
        """Its exit code; all that it has written is in `lines` then."""
        code = self.running.wait(seconds)
        self._reader.join()
        return code

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]


def wait_until(done: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def metrics_of(text: str) -> dict[tuple[str, ...], float]:
    """Each number by its name and the values of its labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# Ids and headers


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with serving(folder, max_body=2000) as client:
        yield client


def test_a_sane_request_id_is_kept_and_any_other_replaced(client: TestClient) -> None:
    for sane in ("abc-123", "00-4bf9:7/x+y=="):
        assert client.get("/healthz", headers={"x-request-id": sane}).headers["x-request-id"] == sane
    for other in ("", "a b", "x" * 200, 'a"b', "é"):
        found = client.get("/healthz", headers={"x-request-id": other.encode()}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", found)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/healthz", None, 200),
        ("GET", "/docs", None, 200),
        ("POST", "/v1/generate", b'{"text": "ab 01"}', 200),
        ("POST", "/v1/generate", b'{"text": "ab 01", "stream": true}', 200),
        ("POST", "/v1/generate", b"{", 400),
        ("POST", "/v1/generate", b"{}", 422),
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/generate", None, 405),
        ("POST", "/v1/generate", b" " * 3000, 413),
    ],
)
def test_every_answer_has_an_id_and_headers_that_keep_browsers_safe(
    client: TestClient, method: str, path: str, body: bytes | None, status: int
) -> None:
    headers = {"origin": "https://evil.example", "content-type": "application/json"}
    found = client.request(method, path, content=body, headers=headers)
    assert found.status_code == status
    assert found.headers["x-request-id"]
    assert found.headers["content-security-policy"].startswith("default-src 'self'")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in found.headers
    if status == 405:
        assert found.headers["allow"] == "POST"


def test_a_mistake_of_ours_is_an_answer_that_names_the_line_of_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(ServerSettings(runs={"tiny-en-fr": folder}))

    @app.get("/v1/models/broken/on-purpose")
    def broken() -> None:
        raise RuntimeError("on purpose")

    with TestClient(app) as client:
        found = client.get("/v1/models/broken/on-purpose", headers={"x-request-id": "here"})
    assert found.status_code == 500
    assert "here" in found.json()["error"]["message"]
    assert found.json()["error"]["type"] == "server_error"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "on purpose" in caplog.text


def test_other_origins_may_ask_when_they_are_named(folder: Path) -> None:
    origin = {"origin": "https://page.example"}
    with serving(folder, cors_origins=("https://page.example",), api_keys=key_file(folder)) as client:
        ask = origin | {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,x-stainless-os",
        }
        found = client.options("/v1/generate", headers=ask)  # carries no key
        assert found.status_code == 200
        assert found.headers["access-control-allow-origin"] == "https://page.example"
        refused = client.post("/v1/generate", json={"text": "ab"}, headers=origin)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://page.example"
        assert (
            "access-control-allow-origin" not in client.get("/healthz", headers={"origin": "https://x.example"}).headers
        )
    with pytest.raises(ValueError, match=r"CORS origin 'page\.example'"):
        ServerSettings(runs={"a": folder}, cors_origins=("page.example",))


def test_the_page_of_the_api_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert not re.search(r"<script|https?://(?!127)|style=", page)
    described = client.get("/openapi.json").json()
    for path in described["paths"]:
        assert path in page
    assert "beam_size" in page
    assert all(part.count("<th>body</th>") <= 1 for part in page.split("<h2>"))
    for linked in re.findall(r'href="([^"]+)"', page):
        assert client.get(f"/{linked}").status_code == 200


# Bodies


def test_below_a_path_of_its_own_a_refusal_still_has_the_form_of_its_dialect(folder: Path) -> None:
    app = create_app(ServerSettings(runs={"tiny": folder}, max_body=1000))
    with TestClient(app, root_path="/mt") as client:
        large = "a" * 2000
        assert client.post("/mt/v1/completions", content=large).json()["error"]["type"] == "invalid_request_error"
        translated = client.post("/mt/translate", content=large)
        assert (translated.status_code, type(translated.json()["error"])) == (400, str)
        assert client.get("/mt/v1/completions").json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_too_large_is_told_in_a_sentence(client: TestClient) -> None:
    whole = client.post("/v1/generate", content=b" " * 2001)
    pieces = client.post("/v1/generate", content=(b" " * 500 for _ in range(5)))
    for found in (whole, pieces):
        assert found.status_code == 413
        assert found.json()["error"]["reason"] == "too_large"
        assert "at most 2,000 bytes" in found.json()["error"]["message"]
    assert client.post("/v1/generate", json={"text": ["ab 01"] * 100}).status_code == 200


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while more := connection.recv(65536):
        found += more
    return found


def test_a_sender_of_too_much_reads_why_and_is_cut_off(folder: Path) -> None:
    with listening(folder, max_body=2000) as (host, port, _):
        for how in (b"content-length: 90000000", b"transfer-encoding: chunked"):
            with socket.create_connection((host, port), timeout=20) as connection:
                connection.sendall(b"POST /v1/generate HTTP/1.1\r\nhost: a\r\n" + how + b"\r\n\r\n")
                piece = b"x" * 1000 if b"length" in how else b"3e8\r\n" + b"x" * 1000 + b"\r\n"
                for _ in range(200):
                    connection.sendall(piece)
                found = read_all(connection)
            assert found.startswith(b"HTTP/1.1 413"), found[:200]
            assert b"at most 2,000 bytes" in found
            assert b"connection: close" in found


def test_a_body_that_does_not_come_is_not_waited_for(folder: Path) -> None:
    with listening(folder, body_seconds=0.2) as (host, port, _), socket.create_connection((host, port)) as connection:
        connection.sendall(b'POST /v1/generate HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"te')
        found = read_all(connection)
    assert found.startswith(b"HTTP/1.1 408")
    assert b"longer than 0.2 seconds" in found


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_client_holds_is_free_when_it_leaves(folder: Path, stream: bool) -> None:
    with listening(folder) as (host, port, state):
        body = json.dumps(LONG | {"stream": stream, "beam_size": 1 if stream else 4}).encode()
        with socket.create_connection((host, port)) as connection:
            head = HEAD.format(len(body))
            connection.sendall(head.encode() + body)
            wait_until(lambda: state.service.pool.outstanding > 0)
        left = time.monotonic()
        wait_until(lambda: state.service.pool.outstanding == 0 and state.traffic.open == 0)
        assert time.monotonic() - left < 0.2
        found = metrics_of(httpx.get(f"http://{host}:{port}/metrics").text)
        assert found["antiphon_requests_total", "tiny-en-fr", "left"] == 1


def test_a_connection_on_which_nothing_comes_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "QUIET_SECONDS", 1)
    with listening(folder) as (host, port, state), ThreadPoolExecutor(1) as pool:
        long = pool.submit(
            httpx.post, f"http://{host}:{port}/v1/generate", json=LONG | {"text": ["ab 01"] * 3}, timeout=60
        )
        wait_until(lambda: state.traffic.open > 0)
        with socket.create_connection((host, port), timeout=20) as silent:
            assert read_all(silent) == b""
        with socket.create_connection((host, port), timeout=20) as slow:
            slow.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /healthz HTTP/1.1\r\nhost:")
            assert read_all(slow).count(b"HTTP/1.1 200") == 1
        assert long.result().status_code == 200
        assert long.result().elapsed.total_seconds() > 1


# Keys


def key_file(folder: Path, text: str | None = None) -> Path:
    """One with alice's key, and bob's as its digest."""
    file = folder.parent / "keys.toml"
    digest = hashlib.sha256(BOB.encode()).hexdigest()
    file.write_text(
        f'[[keys]]\nname = "alice"\nkey = "{ALICE}"\n\n'
        f'[[keys]]\nname = "bob"\nsha256 = "{digest}"\npriority = "batch"\nmax_outstanding = 2\n'
        if text is None
        else text
    )
    return file


def test_who_has_a_key_is_let_in_and_nobody_else(folder: Path) -> None:
    with serving(folder, api_keys=key_file(folder)) as client:

        def asked(headers: dict[str, str]) -> httpx.Response:
            return client.post("/v1/generate", json={"text": "ab 01"}, headers=headers)

        assert asked({"authorization": f"Bearer {ALICE}"}).status_code == 200
        assert asked({"authorization": f"bearer {BOB}"}).status_code == 200
        assert asked({"x-api-key": BOB}).status_code == 200
        for headers in ({}, {"x-api-key": BOB + "x"}, {"authorization": "Bearer"}, {"authorization": f"Basic {ALICE}"}):
            found = asked(headers)
            assert found.status_code == 401
            assert found.headers["www-authenticate"] == "Bearer"
            assert found.json()["error"]["reason"] == "unauthorized"
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/languages"):
            assert client.get(path).status_code == 200, path
        for path in ("/metrics", "/v1/models", "/v2/models/tiny-en-fr"):
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers={"x-api-key": ALICE}).status_code == 200, path


def test_a_refusal_has_the_form_of_the_dialect(folder: Path) -> None:
    with serving(folder, api_keys=key_file(folder)) as client:
        assert client.post("/v1/score", json={}).json()["error"].keys() == {"reason", "message", "parameter"}
        for path in ("/v1/completions", "/v1/chat/completions"):
            assert client.post(path, json={}).json()["error"].keys() == {"message", "type", "param", "code"}
        for path in ("/v2/models/tiny-en-fr/infer", "/detect"):
            headers = {"x-api-key": "wrong"}
            assert isinstance(client.post(path, json={"q": "a"}, headers=headers).json()["error"], str)


def test_a_key_may_come_in_the_body_where_the_dialect_has_it_there(folder: Path) -> None:
    with serving(folder, api_keys=key_file(folder)) as client:
        ask = {"q": "ab 01", "source": "en", "target": "fr"}
        assert client.post("/translate", json=ask | {"api_key": BOB}).status_code == 200
        assert client.post("/translate", json=ask, headers={"x-api-key": BOB}).status_code == 200
        for wrong in ({}, {"api_key": "wrong"}, {"api_key": ""}):
            assert client.post("/translate", json=ask | wrong).status_code == 403  # as LibreTranslate
        assert client.post("/detect", json={"q": "ab 01"}).status_code == 403


def no_right(file: Path) -> list[keys_module.Known]:
    raise ValueError(f"{file}: the file of API keys cannot be read (no right).")


def test_keys_that_could_not_be_read_are_when_they_can(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(folder, api_keys=key_file(folder)) as client:
        file = key_file(folder, '[[keys]]\nname = "carol"\nkey = "carol-0123456789abcdef"\n')
        with monkeypatch.context() as refusing:
            refusing.setattr(keys_module, "read_keys", no_right)
            assert client.get("/v1/models", headers={"x-api-key": ALICE}).status_code == 200
        time.sleep(0.05)  # a file system's clock ticks more slowly than a request is answered
        file.chmod(0o600)
        assert client.get("/v1/models", headers={"x-api-key": "carol-0123456789abcdef"}).status_code == 200


def test_keys_change_without_a_new_start(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(folder, api_keys=key_file(folder)) as client:

        def status(key: str) -> int:
            return client.get("/v1/models", headers={"x-api-key": key}).status_code

        assert (status(ALICE), status("carol-0123456789abcdef")) == (200, 401)
        file = key_file(folder, '[[keys]]\nname = "carol"\nkey = "carol-0123456789abcdef"\n')
        assert (status(ALICE), status("carol-0123456789abcdef")) == (401, 200)
        for broken in ("[[keys]\n", "", '[[keys]]\nname = "x"\n'):
            key_file(folder, broken)
            caplog.clear()
            assert (status(ALICE), status("carol-0123456789abcdef"), status("no")) == (401, 200, 401)
            assert caplog.text.count("The keys stay as they were.") == 1
        file.unlink()
        assert (status("carol-0123456789abcdef"), status("carol-0123456789abcdef")) == (200, 200)
        key_file(folder, "keys = []\n")
        assert status("carol-0123456789abcdef") == 401
        key_file(folder)
        assert status(ALICE) == 200
        assert ALICE not in caplog.text


def test_keys_that_may_not_be_read_any_more_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys(key_file(tmp_path / "run"))

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", forbidden)
    assert [keys.admit(ALICE).name, keys.admit(ALICE).name] == ["alice", "alice"]
    assert caplog.text.count("The keys stay as they were.") == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('[[keys]]\nname = "a"\nkey = "short"', "keys[0].key"),
        ('[[keys]]\nname = "a"\nkey = "0123456789abcdef"\nsha256 = "0"', "keys[0].sha256"),
        ('[[keys]]\nname = "a"', "one of key and sha256"),
        ('[[keys]]\nname = "a"\nkye = "0123456789abcdef"', "keys[0].kye: not known"),
        (2 * '[[keys]]\nname = "a"\nkey = "0123456789abcdef"\n', "'a'"),
        ('[[keys]]\nname = "a"\nkey = "0123456789abcdef"\npriority = "high"', "keys[0].priority"),
        (
            '[[keys]]\nname = "a"\nkey = "0123456789abcdef"\n[[keys]]\nname = "b"\n'
            f'sha256 = "{hashlib.sha256(b"0123456789abcdef").hexdigest()}"',
            "'a' and 'b' have the same key",
        ),
        ("[[keys", "TOML"),
        ("", "keys"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_told(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(part)) as error:
        read_keys(file)
    assert str(file) in str(error.value)
    assert "0123456789abcdef" not in str(error.value)


def test_a_key_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, ALICE)
    with serving(folder) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"x-api-key": ALICE}).status_code == 200
    for wrong, told in (("short", "expected at least 16"), ("", "unset it, or give at least 16")):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"ANTIPHON_API_KEY: {told}"):
            create_app(ServerSettings(runs={"tiny": folder}))


def test_all_keys_are_compared_whichever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = read_keys(key_file(tmp_path / "run"))
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(keys_module, "hmac", type("Watched", (), {"compare_digest": staticmethod(compare)}))
    for key, name in ((ALICE, "alice"), (BOB, "bob"), ("neither of them", None), ("é", None)):
        compared.clear()
        found = find_key(known, key)
        assert (found and found.client.name) == name
        assert compared == [one.digest for one in known]


def test_a_key_may_ask_so_often_in_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'[[keys]]\nname = "alice"\nkey = "{ALICE}"\nrequests_per_minute = 3\n'
    keys = Keys(key_file(tmp_path / "run", text))

    def pause(now: float, counted: bool = True) -> int | None:
        """The seconds that a refusal names, where there is one."""
        monkeypatch.setattr(keys_module.time, "monotonic", lambda: now)
        try:
            keys.admit(ALICE, counted)
        except RefusedError as refused:
            return refused.retry_after if refused.status == 429 else -1
        return None

    assert [pause(now) for now in (1000.0, 1010.0, 1020.0)] == [None] * 3
    assert pause(1030.5) == 30
    assert pause(1030.5, counted=False) is None
    assert pause(1060.5) is None
    assert pause(1060.5) == 10


def test_a_key_has_so_many_requests_open(folder: Path) -> None:
    with listening(folder, api_keys=key_file(folder)) as (host, port, state):
        url = f"http://{host}:{port}/v1/generate"
        with ThreadPoolExecutor(2) as pool, httpx.Client(timeout=60) as client:
            bobs = [pool.submit(client.post, url, json=LONG, headers={"x-api-key": BOB}) for _ in range(2)]
            wait_until(lambda: state.service.pool.outstanding == 2)
            refused = client.post(url, json={"text": "ab"}, headers={"x-api-key": BOB})
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert "this key" in refused.json()["error"]["message"]
            assert client.post(url, json={"text": "ab"}, headers={"x-api-key": ALICE}).status_code == 200
            assert [bob.result().status_code for bob in bobs] == [200, 200]
            texts = LONG | {"text": ["ab 01"] * 5, "min_length": 50, "max_length": 50}
            bob, seen = pool.submit(client.post, url, json=texts, headers={"x-api-key": BOB}), set()
            while not bob.done():
                seen.add(state.service.pool.outstanding)
                time.sleep(0.001)
            assert bob.result().status_code == 200
            assert max(seen) == 2


# Metrics


def test_metrics_add_up(folder: Path) -> None:
    with serving(folder, max_texts=4) as client, serving(folder) as other:
        texts = ["ab 01", "ab 02 ab 03", "ab 04"]
        answers = client.post("/v1/generate", json={"text": texts, "beam_size": 3, "n_best": 2, "max_length": 4}).json()
        client.post("/v1/generate", json={"text": "ab 05", "stream": True, "max_length": 4})
        client.post("/v1/score", json={"source": "ab 01", "target": "AB 01"})
        for _ in range(2):
            client.post("/v1/generate", json={"text": "ab 01", "beam_size": 0})  # refused before it is about a model
        client.post("/v1/generate", json={"text": ["a"] * 5})
        client.post("/v1/generate", json={"text": "a", "model": "none"})
        client.get("/healthz")
        wait_until(lambda: client.app.state.service.pool.statistics.encoded == 4)  # type: ignore[attr-defined]
        found = metrics_of(client.get("/metrics").text)
        elsewhere = metrics_of(other.get("/metrics").text)
    name = "tiny-en-fr"
    assert found["antiphon_requests_total", name, "answered"] == 3
    assert found["antiphon_requests_total", name, "invalid"] == 1
    assert found["antiphon_rejections_total", "invalid"] == 3
    assert found["antiphon_rejections_total", "not_found"] == 1
    assert found["antiphon_request_seconds_count", name] == 3
    for histogram in ("queue", "first_token", "token"):
        assert found[f"antiphon_{histogram}_seconds_count", name] == 4
    ended = [found.get(("antiphon_finished_total", name, how), 0) for how in ("stop", "length")]
    assert sum(ended) == 4
    told = sum(len(output["tokens"]) for outputs in answers["outputs"] for output in outputs)
    assert told <= found["antiphon_output_tokens_total", name] <= told + 4  # the stream's
    assert found["antiphon_source_tokens_total", name] > 0
    assert found["antiphon_engine_encoded_total",] == 4
    assert found["antiphon_engine_generated_total",] >= told
    assert found["antiphon_engine_steps_total",] >= 4
    assert found["antiphon_engine_decode_seconds_total",] > 0
    assert found["antiphon_engine_waiting",] == found["antiphon_engine_running",] == found["antiphon_engine_rows",] == 0
    assert found["antiphon_engines_up",] == found["antiphon_ready",] == 1
    assert ("antiphon_requests_total", name, "answered") not in elsewhere


def test_metrics_may_be_had_as_openmetrics(client: TestClient) -> None:
    found = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert found.headers["content-type"].startswith("application/openmetrics-text")
    assert found.text.endswith("# EOF\n")


# Spans


def test_a_span_for_each_request_in_the_trace_of_its_client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    monkeypatch.setattr(tracing, "make_exporter", lambda: memory)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with serving(folder, trace=True) as client:
        parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "x-request-id": "mine"}
        client.post("/v1/generate", json={"text": "ab 01"}, headers=parent)
        client.post("/v1/generate", json={"text": "ab 01", "stream": True})
        client.post("/v1/generate", json={"text": "ab 01", "beam_size": 0})
    first, streamed, refused = memory.get_finished_spans()
    assert first.name == "POST /v1/generate"
    assert f"{first.context.trace_id:032x}" == trace
    assert f"{first.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert streamed.parent is None
    for span in (first, streamed):
        found = span.attributes
        assert found["antiphon.model"] == "tiny-en-fr"
        assert found["http.response.status_code"] == 200
        assert found["antiphon.source_tokens"] > 0
        assert found["antiphon.output_tokens"] > 0
        times = [found[f"antiphon.{what}_seconds"] for what in ("queue", "first_token", "engine")]
        assert times == sorted(times)
        assert times[0] > 0
    assert first.attributes["antiphon.request_id"] == "mine"
    assert refused.attributes["antiphon.outcome"] == "invalid"
    assert "antiphon.model" not in refused.attributes


def test_opentelemetry_is_not_imported_unless_it_is_wanted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert tracing.make_provider(False) is None
    with pytest.raises(ValueError, match=re.escape('pip install "antiphon[otel]"')):
        tracing.make_provider(True)
    code = "import sys, antiphon.serving.app; print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# Logs


def test_each_request_is_a_line_of_json_without_texts(folder: Path) -> None:
    environment = {VARIABLE: ALICE}
    with process(folder, environment=environment) as server, httpx.Client(base_url=server.url) as client:
        client.headers["x-api-key"] = ALICE
        client.post("/v1/generate", json={"text": SECRET}, headers={"x-request-id": "one"})
        client.post("/v1/generate", json={"text": SECRET * 9}, headers={"x-request-id": "long"})
        client.post("/v1/generate", content=SECRET, headers={"x-request-id": "broken"})
        client.get(f"/nowhere?text={SECRET}", headers={"x-request-id": "query"})
        client.get("/v1/models", headers={"x-request-id": "stranger", "x-api-key": SECRET})
        client.get("/healthz", headers={"x-request-id": "health"})
        server.signal()
        assert server.end() == 0
    assert all(line.startswith("{") for line in server.lines), server.lines
    assert SECRET not in "".join(server.lines)
    lines = {line["request_id"]: line for line in server.logged() if line["logger"] == "antiphon.access"}
    assert lines.keys() == {"one", "long", "broken", "query", "stranger"}
    one = lines["one"]
    assert one["ms"] > 0
    assert one["bytes"] > 0
    assert one["source_tokens"] > 0
    wanted = {"method": "POST", "path": "/v1/generate", "status": 200, "key": "default", "model": "tiny-en-fr"}
    assert one.items() >= (wanted | {"level": "info"}).items()
    assert time.time() - 60 < datetime.fromisoformat(one["time"]).timestamp() <= time.time()
    assert {name: (line["status"], line["outcome"]) for name, line in lines.items() if name != "one"} == {
        "long": (422, "too_long"),
        "broken": (422, "invalid"),
        "query": (404, "not_found"),
        "stranger": (401, "unauthorized"),
    }
    assert lines["query"]["path"] == "/nowhere"


def test_texts_are_logged_when_asked_for(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "antiphon.access"), serving(folder, log_texts=True) as client:
        asked = {"text": SECRET}
        found = client.post("/v1/generate", json=asked).json()["outputs"][0][0]["text"]
        client.post("/v1/generate", json=asked | {"alignments": True})
        client.post("/v1/alternatives", json=asked | {"count": 2})
        client.post("/v1/trace", json=asked)
        client.post("/v1/score", json={"source": SECRET, "target": "AB"})
    records = [one.fields for one in caplog.records if one.name == "antiphon.access"]  # type: ignore[attr-defined]
    answered = [record for record in records if record["path"].startswith("/v1/")]
    assert [record["texts"] for record in answered] == [[SECRET]] * 5
    assert [record["outputs"] for record in answered[:2]] == [[found]] * 2


# Beginning and ending


@pytest.mark.slow
def test_what_cannot_begin_ends_with_one_sentence(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nonsense" * 8)
    (tmp_path / "keys.toml").write_text("keys = 3")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, part in (
            ([tmp_path / "broken", "--port", 0], "model.safetensors"),
            ([tmp_path / "broken", "--port", 0, "--workers", 0], "model.safetensors"),
            ([tmp_path / "missing", "--port", 0], "missing"),
            ([folder, "--port", port], "taken"),
            ([folder, "--port", 0, "--api-keys", tmp_path / "keys.toml"], "keys.toml"),
            ([folder, "--port", 0, "--cors-origin", "here"], "CORS origin 'here'"),
            ([f"a ={folder}", "--port", 0], "model name 'a '"),
        ):
            command = [sys.executable, "-m", "antiphon", "serve", *map(str, words)]
            found = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert found.returncode == 2, found.stderr
            assert len(found.stderr.strip().splitlines()) == 1, found.stderr
            assert found.stderr.startswith("antiphon: ")
            assert part in found.stderr


def ask_until_it_ends(server: Process, number: int, found: "Counter[str]") -> None:
    """One client, over a connection that it keeps as long as the server does."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        while True:
            body = {"text": "ab 01", "min_length": 60, "max_length": 60, "stream": number % 2 == 1}
            try:
                answer = client.post("/v1/generate", json=body)
            except httpx.ConnectError:
                return  # it is gone, and has taken nothing
            if answer.status_code == 503:
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["error"]["reason"] == "unavailable"
                assert answer.headers["connection"] == "close"
                found["refused"] += 1
                return
            assert answer.status_code == 200
            whole = answer.text.count("event: answer") == 1 if number % 2 else len(answer.json()["outputs"]) == 1
            found["answered" if whole else "cut"] += 1


def test_at_the_first_signal_nothing_is_lost(folder: Path) -> None:
    found: Counter[str] = Counter()
    with process(folder) as server, ThreadPoolExecutor(9) as pool, httpx.Client(timeout=60) as client:
        clients = [pool.submit(ask_until_it_ends, server, number, found) for number in range(8)]
        long = pool.submit(client.post, f"{server.url}/v1/generate", json=LONG)
        wait_until(lambda: found["answered"] > 30)
        server.signal()
        for one in clients:
            one.result()
        assert long.result().status_code == 200
        assert server.end() == 0
    assert found["refused"] > 0
    assert found["cut"] == 0
    logged = Counter(line["status"] for line in server.logged() if line["logger"] == "antiphon.access")
    assert logged == {200: found["answered"] + 1, 503: found["refused"]}


def test_while_it_stops_it_answers_and_says_that_it_is_not_ready(folder: Path) -> None:
    with process(folder) as server, ThreadPoolExecutor(1) as pool, httpx.Client(timeout=60) as client:
        long = pool.submit(client.post, f"{server.url}/v1/generate", json=LONG)
        running = f"{server.url}/metrics"
        wait_until(lambda: metrics_of(httpx.get(running).text)["antiphon_engine_running",] == 1)
        server.signal()
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        assert httpx.get(f"{server.url}/readyz").json() == {"status": "stopping"}
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert httpx.post(f"{server.url}/v1/score", json={"source": "ab", "target": "AB"}).status_code == 503
        assert long.result().status_code == 200
        assert server.end() == 0


def test_a_connection_that_is_kept_does_not_hold_the_server_up(folder: Path) -> None:
    with process(folder) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/healthz").status_code == 200  # and the connection stays
        with socket.create_connection(("127.0.0.1", server.port)) as half:
            half.sendall(b"POST /v1/generate HTTP/1.1\r\nhost:")
            start = time.monotonic()
            server.signal(signal.SIGINT)
            assert server.end() == 0
    assert time.monotonic() - start < 5


def test_at_the_second_signal_it_ends_at_once(folder: Path) -> None:
    with process(folder) as server, ThreadPoolExecutor(1) as pool, httpx.Client(timeout=60) as client:
        long = pool.submit(client.post, f"{server.url}/v1/generate", json=LONG | {"text": ["ab 01"] * 30})
        wait_until(lambda: metrics_of(httpx.get(f"{server.url}/metrics").text)["antiphon_engine_running",] > 0)
        engines = children(server.running.pid)
        assert engines
        server.signal()
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        start = time.monotonic()
        server.signal()
        assert server.end() == 1
        assert time.monotonic() - start < 2
        with pytest.raises(httpx.TransportError):
            long.result()
    assert "stopped at once" in server.lines[-1]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engines))


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text() if sys.platform == "linux" else ""
    return [int(child) for child in found.split()]


def test_who_does_not_read_does_not_hold_the_server_up_for_ever(folder: Path) -> None:
    with process(folder, "--drain-seconds", 1) as server, socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", server.port))
        lazy.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n" * 500)
        lazy.recv(1)  # the answers have begun, and are never read on
        time.sleep(1)
        start = time.monotonic()
        server.signal()
        assert server.end() == 1
        assert time.monotonic() - start < 6
    assert any("cut off" in line for line in server.lines)


# The container


ROOT = Path(__file__).parent.parent


def dockerfile() -> list[dict[str, str]]:
    parse = pytest.importorskip("dockerfile_parse")
    structure = parse.DockerfileParser(path=str(ROOT / "Dockerfile"), cache_content=True).structure
    return [one for one in structure if one["instruction"] != "COMMENT"]


def copied() -> list[str]:
    """What the image takes from the repository."""
    values = [one["value"] for one in dockerfile() if one["instruction"] == "COPY"]
    return [source for value in values for source in value.split()[:-1]]


def test_the_image_is_small_and_runs_without_rights() -> None:
    steps = dockerfile()
    names = [one["instruction"] for one in steps]
    value = {one["instruction"]: one["value"] for one in steps}
    assert re.fullmatch(r"python:3\.\d+-slim", value["FROM"])
    assert value["USER"] == "antiphon"
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))
    for run in (one["value"] for one in steps if one["instruction"] == "RUN"):
        assert ("apt-get" in run) == ("rm -rf /var/lib/apt/lists/*" in run)
        assert "torch" not in run or "https://download.pytorch.org/whl/cpu" in run
    probe = json.loads(value["HEALTHCHECK"].partition("CMD ")[2])
    compile(probe[2], "HEALTHCHECK", "exec")
    assert "/readyz" in probe[2]
    assert json.loads(value["ENTRYPOINT"])[:2] == ["antiphon", "serve"]


def test_the_image_has_what_it_copies_and_nothing_private() -> None:
    first, *rules = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"  # all is left out but what is named
    assert sorted(copied()) == sorted(rule[1:] for rule in rules if rule.startswith("!"))
    for source in copied():
        assert (ROOT / source).exists()
    torch = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if '"torch' in line)
    assert torch.strip().strip(",") in (ROOT / "Dockerfile").read_text()


@pytest.mark.slow
def test_what_the_image_copies_is_enough_to_install_and_serve(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    import shutil

    for source in copied():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / source)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(tmp_path)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = "import antiphon.serving.app, antiphon.kernels as k; print(k.__file__, all(s.exists() for s in k.SOURCES))"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.split() == [str(tmp_path / "site" / "antiphon" / "kernels" / "__init__.py"), "True"]
    entry = next(one["value"] for one in dockerfile() if one["instruction"] == "ENTRYPOINT")
    command = [sys.executable, "-m", *json.loads(entry), "--help"]
    assert subprocess.run(command, env=environment, capture_output=True, check=True, cwd=tmp_path).stdout
