"""What goes wrong around a server, with real processes and sockets: clients that leave, do not read or send slowly,
engine processes that die or hang, models that break, and parents that are killed."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from letters import train_letters

from antiphon.config import GenerationConfig
from antiphon.engine import host, pool
from antiphon.engine.messages import Hosted
from antiphon.engine.request import Failure, Finished
from antiphon.ids import EOS
from antiphon.model.seq2seq import Seq2Seq
from antiphon.run import Model
from antiphon.serving.app import create_app
from antiphon.serving.settings import ServerSettings

pytestmark = pytest.mark.slow

# Takes a second or so, and would count as many tokens generated if it came to its end.
LONG = {"text": "ab 01", "beam_size": 4, "min_length": 1000, "max_length": 1000}
SHORT = {"text": "ab 02", "max_length": 5}
TELLS = {"text": "ab 01", "min_length": 1000, "max_length": 1000, "stream": True}
LINUX = sys.platform == "linux"


def message(body: dict[str, Any], path: str = "/v1/generate") -> bytes:
    """A request as it is sent."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    return head.encode() + text


class Server:
    """`antiphon serve`, and what can be seen of it from outside."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert process.stdout is not None
        address = re.search(r"http://127.0.0.1:(\d+)", process.stdout.readline())
        assert address is not None, self.errors
        self.port = int(address[1])
        self.client = httpx.Client(base_url=address[0], timeout=60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.errors += self.process.stderr

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()

    def ask(self, body: dict[str, Any], path: str = "/v1/generate") -> httpx.Response:
        return self.client.post(path, json=body)

    def number(self, name: str) -> float:
        """One of its metrics."""
        text = self.client.get("/metrics").text
        found = re.search(rf"^antiphon_{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    @property
    def is_idle(self) -> bool:
        return not any(self.number(f"engine_{name}") for name in ("waiting", "running", "rows", "tokens"))

    def connect(self, body: dict[str, Any], path: str = "/v1/generate") -> socket.socket:
        """A client that has sent its request."""
        sent = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        sent.sendall(message(body, path))
        return sent

    @property
    def engines(self) -> list[int]:
        """Their process ids."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def memory(self) -> int:
        """Bytes that the server itself holds, without its engines."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return 1024 * int(found[1])


@contextmanager
def serving(run: Path, *words: object, **environment: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "antiphon", "serve", str(run), "--port", "0", *map(str, words)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)
    server = Server(process)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def one(folder: Path) -> Iterator[Server]:
    """A server with one engine."""
    with serving(folder, "--workers", 1) as server:
        yield server


@pytest.fixture(scope="module")
def two(folder: Path) -> Iterator[Server]:
    """A server with two engines."""
    with serving(folder, "--workers", 2) as server:
        wait_until(lambda: server.number("engines_up") == 2)
        yield server


def wait_until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    """A process has ended, whether or not somebody has taken note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def events(text: str) -> list[tuple[str, Any]]:
    """Names and data of server-sent events."""
    found = []
    for block in filter(None, text.split("\n\n")):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines.get("event", "message"), json.loads(lines["data"])))
    return found


# Clients


def test_a_client_that_leaves_while_it_is_told_frees_its_rows(one: Server) -> None:
    before = one.number("engine_generated_total")
    with one.connect(TELLS) as client:
        while b"delta" not in client.recv(4096):
            pass
    wait_until(lambda: one.is_idle)
    assert one.number("engine_generated_total") == before  # it did not come to its end


@pytest.mark.parametrize(
    "more",
    [{}, {"text": ["ab 01", "ab 02"]}, {"text": "Ab 1. Ab 2.", "split": "sentence"}, {"stream": True}],
    ids=["one", "list", "sentences", "stream"],
)
def test_a_client_that_leaves_before_its_answer_frees_its_rows(one: Server, more: dict[str, Any]) -> None:
    before = one.number("engine_generated_total")
    with one.connect(LONG | more):
        wait_until(lambda: one.number("engine_running") > 0)
    wait_until(lambda: one.is_idle)
    assert one.number("engine_generated_total") == before


def test_a_client_that_leaves_while_it_waits_is_not_worked_for(one: Server) -> None:
    wide = LONG | {"sample": True, "n_best": 32, "beam_size": 1}
    before = one.number("engine_encoded_total")
    with ExitStack() as clients:
        for _ in range(8):  # two of which fill the batch
            clients.enter_context(one.connect(wide))
        wait_until(lambda: one.number("engine_waiting") >= 2)
    wait_until(lambda: one.is_idle)
    assert one.number("engine_encoded_total") < before + 8
    assert one.ask(SHORT).status_code == 200


def test_clients_that_come_and_go_leave_nothing_behind(one: Server) -> None:
    for number in range(60):
        with one.connect(LONG | {"stream": number % 2 == 0}) as client:
            if number % 3 == 0:
                wait_until(lambda: one.number("engine_running") > 0)
            if number % 5 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    wait_until(lambda: one.is_idle)
    limit = [one.ask(SHORT).status_code for _ in range(3)]
    assert limit == [200] * 3
    assert not [line for line in one.errors if "Traceback" in line]


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_who_does_not_read_costs_little_and_holds_nobody_up(one: Server) -> None:
    before = one.memory
    with ExitStack() as clients:
        for _ in range(20):
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", one.port))
            client.settimeout(0.1)
            with suppress(TimeoutError):  # when the server reads no more of it
                for _ in range(50):  # one after the other, without an answer being read
                    client.sendall(message(TELLS))
        assert all(one.ask(SHORT).status_code == 200 for _ in range(100))
        assert one.memory - before < 64 << 20
    wait_until(lambda: one.is_idle)


def test_who_sends_slowly_holds_nobody_up_and_is_answered(one: Server) -> None:
    whole = message(SHORT)
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as slow:
        for byte in range(len(whole)):
            slow.sendall(whole[byte : byte + 1])
            if byte % 20 == 0:
                assert one.ask(SHORT).status_code == 200
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200")


# Engines


def asked(
    server: Server, executor: ThreadPoolExecutor, bodies: Sequence[dict[str, Any]]
) -> list[Future[httpx.Response]]:
    """All of them run."""
    futures = [executor.submit(server.ask, body) for body in bodies]
    wait_until(lambda: server.number("engine_running") == len(bodies))
    return futures


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_when_an_engine_is_killed_its_requests_are_told_and_others_are_answered(two: Server) -> None:
    few, many = [LONG, LONG, TELLS, TELLS], [LONG | {"text": ["ab 01"] * 20}] * 2
    bodies = [*few, *many]
    with ThreadPoolExecutor(len(bodies)) as executor:
        answers = asked(two, executor, few)  # half of them at each engine
        answers += [executor.submit(two.ask, body) for body in many]  # so much that both have to do for long
        wait_until(lambda: two.number("engine_waiting") > 0)
        os.kill(two.engines[0], signal.SIGKILL)
        found = [answer.result() for answer in answers]
    lost = 0
    for body, answer in zip(bodies, found, strict=True):
        if "stream" in body and answer.status_code == 200:
            name, told = events(answer.text)[-1]
            assert name in ("answer", "error")
            failed = name == "error"
        else:
            told = answer.json()
            failed = answer.status_code != 200
            if failed:
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
        if failed:
            lost += 1
            assert told["error"]["reason"] == "unavailable"
            assert re.fullmatch(r"the engine ended .*\.", told["error"]["message"])
    assert 1 <= lost < len(bodies)
    wait_until(lambda: two.number("engines_up") == 2)
    assert len(two.engines) == 2
    assert two.is_idle
    assert all(two.ask(SHORT).status_code == 200 for _ in range(8))


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_without_any_engine_it_says_so_until_one_is_back(one: Server) -> None:
    generated = one.number("engine_generated_total")
    (before,) = one.engines
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: one.client.get("/readyz").status_code == 503)
    answer = one.ask(SHORT)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["message"].endswith(".")
    assert one.client.get("/healthz").status_code == 200
    wait_until(lambda: one.client.get("/readyz").status_code == 200)
    assert one.ask(SHORT).status_code == 200
    (after,) = one.engines
    assert after != before
    assert one.number("engine_generated_total") > generated  # counters never go back


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_model_that_is_broken_meanwhile_is_waited_for(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    with serving(run, "--workers", 1) as server:
        weights = run / "model.safetensors"
        weights.rename(run / "away")
        (before,) = server.engines
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: any("model.safetensors" in line for line in server.errors))
        assert server.ask(SHORT).status_code == 503
        (run / "away").rename(weights)
        wait_until(lambda: server.client.get("/readyz").status_code == 200)
        assert server.ask(SHORT).status_code == 200


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_when_the_server_is_killed_its_engines_end(folder: Path) -> None:
    with serving(folder, "--workers", 2) as server, ThreadPoolExecutor(2) as executor:
        wait_until(lambda: server.number("engines_up") == 2)
        engines = server.engines
        lost = asked(server, executor, [LONG, LONG])
        server.process.kill()
        wait_until(lambda: all(map(is_gone, engines)))
        for answer in lost:
            with pytest.raises(httpx.TransportError):
                answer.result()


def test_when_it_is_told_to_stop_all_that_has_come_is_answered(folder: Path) -> None:
    with serving(folder, "--workers", 2) as server, ThreadPoolExecutor(12) as executor:
        wait_until(lambda: server.number("engines_up") == 2)
        bodies = [LONG if number % 2 else TELLS for number in range(12)]
        answers = asked(server, executor, bodies)
        server.process.send_signal(signal.SIGTERM)
        found = [answer.result() for answer in answers]
        assert server.process.wait(60) == 0
    for body, answer in zip(bodies, found, strict=True):
        assert answer.status_code == 200
        whole = events(answer.text)[-1][1] if "stream" in body else answer.json()
        assert len(whole["outputs"][0][0]["tokens"]) == 1000


def test_an_engine_that_is_killed_while_it_loads_begins_again(folder: Path) -> None:
    async def begin() -> None:
        engines = pool.EnginePool(Hosted({"tiny": folder}), 2)
        starting = asyncio.create_task(engines.start())
        while len(engines.pids) < 2:
            await asyncio.sleep(0.001)
        first, second = engines.pids
        os.kill(first, signal.SIGKILL)
        await starting
        assert engines.ready == 1
        assert engines.pids == [second]
        while engines.ready < 2:
            await asyncio.sleep(0.01)
        await engines.close()
        starting = asyncio.create_task(engines.start())  # and where all of them are killed, it is told
        while len(engines.pids) < 2:
            await asyncio.sleep(0.001)
        for pid in engines.pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ValueError, match="ended while it loaded"):
            await starting

    asyncio.run(begin())


def test_an_engine_that_hangs_is_given_up_at_the_deadline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SILENT_SECONDS", 0.2)

    async def ask() -> list[Any]:
        engines = pool.EnginePool(Hosted({"tiny": folder}), 2)
        await engines.start()
        os.kill(engines.pids[0], signal.SIGSTOP)
        try:
            settings = GenerationConfig()
            deadline = time.monotonic() + 0.2
            wanted = {"model": "tiny", "source": (5, EOS), "settings": settings, "max_length": 9, "deadline": deadline}
            tickets = [engines.submit(**wanted), engines.submit(**wanted)]
            return [await ticket.end() for ticket in tickets]
        finally:
            os.kill(engines.pids[0], signal.SIGCONT)
            assert not engines.outstanding
            await engines.close()

    hung, answered = sorted(asyncio.run(ask()), key=lambda end: isinstance(end, Finished))
    assert isinstance(answered, Finished)
    assert isinstance(hung, Failure)
    assert hung.kind == "late"


@pytest.mark.parametrize("length", [1, 1 << 20])  # the second is more than lies in a pipe that nobody reads
def test_an_engine_that_hangs_is_killed_and_another_begins(
    length: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(pool, "HUNG_SECONDS", 0.5)

    async def ask() -> None:
        engines = pool.EnginePool(Hosted({"tiny": folder}), 1)
        await engines.start()
        (pid,) = engines.pids
        os.kill(pid, signal.SIGSTOP)
        wanted = {"model": "tiny", "settings": GenerationConfig(), "max_length": 9}
        source = (*[5] * length, EOS)
        ticket = engines.submit(**wanted, source=source, deadline=time.monotonic() + 0.1)
        assert isinstance(await ticket.end(), Failure)
        while engines.is_ready:  # until it is dead
            await asyncio.sleep(0.01)
        while not engines.is_ready:
            await asyncio.sleep(0.01)
        assert engines.pids != [pid]
        assert isinstance(await engines.submit(**wanted, source=(5, EOS)).end(), Finished)
        await engines.close()

    asyncio.run(ask())


# Models


class Failing:
    """Fails at a source of one letter twice, and after a sign that it never says by itself."""

    def __init__(self, network: Seq2Seq, letter: int, sign: int) -> None:
        self.network, self.letter, self.sign = network, letter, sign

    def start(self, sources: Sequence[Sequence[int]]) -> Any:
        if any(list(source).count(self.letter) > 1 for source in sources):
            raise RuntimeError("the encoder fails")
        return self.network.start(sources)

    def step(self, state: Any, tokens: Sequence[int]) -> Any:
        if self.sign in tokens:
            raise RuntimeError("the decoder fails")
        logits = self.network.step(state, tokens)
        logits[:, self.sign] -= 1e4
        return logits


def test_a_request_that_the_model_fails_at_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ['tokenizer.source="chars"', 'tokenizer.target="chars"', "tokenizer.joint=false"]
    train_letters(tmp_path / "run", *words, "training.max_length=256")
    load = host.Model.load

    def breaking(*arguments: Any) -> Model:
        model = load(*arguments)
        letter, sign = model.source_ids("a")[0], model.tokenizers.target.encode("9")[0]
        model.members = [Failing(model.network, letter, sign)]  # type: ignore[list-item]
        return model

    monkeypatch.setattr(host.Model, "load", breaking)
    monkeypatch.setattr(host, "_warm_up", lambda model: None)
    good = {"text": "ab 01", "max_length": 40, "min_length": 40}
    bad: list[dict[str, Any]] = [{"text": "aa"}, {"text": "ab", "prefix": "AB9"}, {"text": ["ab", "aba"]}]
    with TestClient(create_app(ServerSettings(runs={"tiny": tmp_path / "run"}))) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        expected = client.post("/v1/generate", json=good).json()
        with ThreadPoolExecutor(9) as executor:
            futures = [executor.submit(client.post, "/v1/generate", json=body) for body in [*[good] * 6, *bad]]
            found = [future.result() for future in futures]
        assert [answer.status_code for answer in found] == [200] * 6 + [500] * 3
        assert all(answer.json() == expected for answer in found[:6])
        for answer in found[6:]:
            assert answer.json()["error"]["reason"] == "failed"
            assert "the model failed at this request" in answer.json()["error"]["message"]
        streamed = client.post("/v1/generate", json=good | {"prefix": "AB AB AB9", "stream": True})
        assert [name for name, _ in events(streamed.text)][-1:] == ["error"]
        assert client.post("/v1/generate", json=good).json() == expected


# The machine


@pytest.mark.parametrize("state", ["a file", "no right", "full"])
def test_it_serves_without_a_place_for_its_cache(folder: Path, tmp_path: Path, state: str) -> None:
    """Where the kernels cannot be kept or built, the layers do without them."""
    cache = tmp_path / "cache"
    if state == "a file":
        cache.write_text("x")
    else:
        cache.mkdir(mode=0o500 if state == "no right" else 0o700)
    limited = ["prlimit", "--fsize=0"] if state == "full" else []
    if state == "full" and not shutil.which("prlimit"):
        pytest.skip("there is no prlimit")
    command = [*limited, sys.executable, "-m", "antiphon", "serve", str(folder), "--port", "0", "--workers", "0"]
    settings = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)
    server = Server(process)
    try:
        assert server.ask(SHORT).status_code == 200
    finally:
        server.close()


@pytest.mark.parametrize("state", ["half the weights", "no tokenizer", "no right to read", "gone"])
def test_a_model_that_cannot_be_had_ends_it_with_one_sentence(folder: Path, tmp_path: Path, state: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    if state == "half the weights":
        weights = (run / "model.safetensors").read_bytes()
        (run / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    elif state == "no tokenizer":
        for file in run.glob("*tokenizer.json"):
            file.unlink()
    elif state == "no right to read":
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        (run / "model.safetensors").chmod(0)
    else:
        shutil.rmtree(run)
    command = [sys.executable, "-m", "antiphon", "serve", str(run), "--port", "0", "--workers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("antiphon: ")
    assert str(run) in line
    assert ended.stdout == ""
