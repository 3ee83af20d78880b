"""Serving: Antiphon's server against CTranslate2 behind FastAPI, real processes under load, on the same weights.

    python benchmarks/peers.py ctranslate2
    python benchmarks/serving.py RUN --search --peer-settings runs/serving.json
    python benchmarks/serving.py RUN --mode mixed alone --peer-settings runs/serving.json --antiphon "workers=2"
    python benchmarks/serving.py RUN --mode endurance

RUN is a folder that `antiphon train` wrote with --set model.positions=sinusoidal. Only one server runs at a time; they
take turns, round after round, each a new process that is warmed up. The load comes from a process of its own: N clients
that send a text, wait for the answer, and send the next. Each text carries the longest output that Antiphon would allow
it, so that both cut alike. The modes:

    load        each number of --clients at each --beam: requests a second, latencies, memory
    mixed       16 clients with short texts, without and with one that sends long texts: what the short ones wait
    alone       one client, streamed, greedy: until the first piece of text and until the last
    endurance   Antiphon only, up to 256 clients, settings mixed: each answer must be what the same request got alone;
                any that is lost or differs ends the benchmark with code 1
"""

import argparse
import asyncio
import gzip
import http.client
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from best_settings import CORES
from peers import export, interpreter, told
from tables import columns, ratio, spread
from turns import SPINNING, TUNED_MALLOC, write_json

HERE = Path(__file__).resolve().parent
WARMUP = 2.0  # seconds of load before those that count
PATIENCE = 60.0  # seconds until an answer counts as lost
REFUSED = ("429", "503")  # by a server that has too much to do: asked again when it says
SEARCH_CLIENTS = 32
SHORT_CLIENTS, JOINED = 16, 8  # mixed: clients with short texts; sentences of a long one
ENDURANCE_CLIENTS = (1, 8, 32, 64, 256)
DISTINCT = 200  # requests that endurance asks again and again
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam": {"beam_size": 4},
    "sample": {"sample": True, "temperature": 0.8},
    "n-best": {"beam_size": 4, "n_best": 3},
    "stream": {"stream": True},
}
SAME_SCORE = 1e-3  # scores differ by no more than what the order of a float32 sum makes of them

Rounds = dict[str, list[dict[str, Any]]]  # what was measured of each contender, round by round


# The load generator: a process of its own, standard library only.

HEAD = b"POST /v1/generate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
FIRST_PIECE = re.compile(rb'"delta":\s*"(?!")')


@dataclass
class Answer:
    """status: of HTTP. first: seconds until the first piece of a streamed text, where there was one."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    first: float | None = None


class Connection:
    """One keep-alive connection of HTTP/1.1, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.buffer = bytearray()
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, body: bytes) -> Answer:
        """Posts a body. Raises OSError or ValueError when what comes back is no answer."""
        if self.buffer:
            raise ValueError(f"bytes after the end of an answer: {bytes(self.buffer[:80])!r}")
        if self.reader is None or self.reader.at_eof():
            self.close()
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.writer is not None
        begin = time.perf_counter()
        self.writer.write(HEAD + b"%d\r\n\r\n" % len(body) + body)
        answer = await self._head()
        if answer.headers.get("transfer-encoding") == "chunked":
            await self._chunks(answer, begin)
        else:
            answer.body = await self._take(int(answer.headers["content-length"]))
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None
        self.buffer.clear()

    async def _head(self) -> Answer:
        first, *lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.removeprefix("HTTP/1.1 ")[:3]), headers)

    async def _chunks(self, answer: Answer, begin: float) -> None:
        while size := int((await self._until(b"\r\n")).split(b";")[0], 16):
            answer.body += (await self._take(size + 2))[:-2]
            if answer.first is None and FIRST_PIECE.search(answer.body):
                answer.first = time.perf_counter() - begin
        await self._take(2)

    async def _until(self, mark: bytes) -> bytes:
        while (end := self.buffer.find(mark)) < 0:
            await self._read()
        found = bytes(self.buffer[:end])
        del self.buffer[: end + len(mark)]
        return found

    async def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self._read()
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    async def _read(self) -> None:
        assert self.reader is not None
        data = await self.reader.read(1 << 16)
        if not data:
            raise ConnectionResetError("closed before the end of an answer")
        self.buffer += data


@dataclass
class Tally:
    """What one group of clients saw in the seconds that count; faults, refusals and comparisons at any time.

    answers: of each request, the first one's body.
    """

    ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    status: "Counter[str]" = field(default_factory=Counter)
    done: "Counter[int]" = field(default_factory=Counter)
    answers: dict[int, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    compared: int = 0
    score_difference: float = 0.0


class Group:
    """Clients that share a list of requests: {"body": what is posted, "expected": what must come back, if known}."""

    def __init__(self, requests: Sequence[Mapping[str, Any]], clients: int, port: int) -> None:
        self.requests, self.port, self.clients = requests, port, clients
        self.bodies = [json.dumps(request["body"], ensure_ascii=False).encode() for request in requests]
        self.order: Iterator[int] = iter(range(0))
        self.start = self.end = math.inf
        self.tally = Tally()

    async def run(self, warmup: float, seconds: float | None) -> None:
        """For so many seconds, or (None) until each request has been asked once."""
        now = time.perf_counter()
        indices = range(len(self.requests))
        self.order = iter(indices) if seconds is None else cycle(indices)
        self.start, self.end = now + warmup, math.inf if seconds is None else now + warmup + seconds
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

    async def _client(self) -> None:
        connection = Connection(self.port)
        for index in self.order:
            while not await self._ask(connection, index):
                pass
            if time.perf_counter() >= self.end:
                break
        if connection.buffer:
            self._fault("surplus", f"bytes after the end of the last answer: {bytes(connection.buffer[:80])!r}")
        connection.close()

    async def _ask(self, connection: Connection, index: int) -> bool:
        """Whether the request need not be asked again: it was answered, or is lost."""
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await connection.ask(self.bodies[index])
        except (OSError, ValueError, KeyError) as error:  # a timeout is an OSError
            connection.close()
            await asyncio.sleep(0.05)
            self._fault(type(error).__name__, f"lost: {self._named(index)}: {type(error).__name__} {error}")
            return True
        self._count(index, answer, begin, time.perf_counter())
        if str(answer.status) in REFUSED:
            await asyncio.sleep(min(5.0, float(answer.headers.get("retry-after", 0.1))))
            return time.perf_counter() >= self.end
        return True

    def _count(self, index: int, answer: Answer, begin: float, now: float) -> None:
        status = str(answer.status)
        if answer.status != 200 and status not in REFUSED:
            self._fault(status, f"{self._named(index)}: {status} {answer.body[:200]!r}")
        elif answer.status == 200 and self.requests[index].get("expected") is not None:
            self._compare(index, answer)
        if answer.status == 200:
            self.tally.answers.setdefault(index, answer.body)
        if answer.status != 200 and status in REFUSED:
            self.tally.status[status] += 1
        elif answer.status == 200 and self.start <= now < self.end:
            self.tally.status[status] += 1
            self.tally.done[index] += 1
            self.tally.ms.append(1000 * (now - begin))
            if answer.first is not None:
                self.tally.first_ms.append(1000 * answer.first)

    def _compare(self, index: int, answer: Answer) -> None:
        expected = self.requests[index]["expected"]
        self.tally.compared += 1
        try:
            found = outputs_of(answer.body)
        except ValueError as error:
            self._fault("different", f"different: {self._named(index)}: {error}")
            return
        same = [output[:2] for output in found] == [output[:2] for output in expected]
        scores = [(a[2], b[2]) for a, b in zip(found, expected, strict=same) if None not in (a[2], b[2])]
        apart = max((abs(a - b) for a, b in scores), default=0.0) if same else 0.0
        self.tally.score_difference = max(self.tally.score_difference, apart)
        if not same or apart > SAME_SCORE:
            self._fault("different", f"different: {self._named(index)}: expected {expected}, found {found}")

    def _fault(self, status: str, what: str) -> None:
        self.tally.status[status] += 1
        self.tally.faults.append(what)

    def _named(self, index: int) -> str:
        return json.dumps(self.requests[index]["body"], ensure_ascii=False)


def outputs_of(body: bytes) -> list[list[Any]]:
    """[text, tokens, score] of each output in an answer, best first; what the server does not tell is None.

    A stream's last event counts; raises ValueError when the pieces before it are not its text.
    """
    if not body.lstrip().startswith((b"data:", b"event:", b"id:", b":", b"retry:")):
        return _outputs(json.loads(body))
    lines = [line.removeprefix("data:").strip() for line in body.decode().splitlines() if line.startswith("data:")]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    outputs = _outputs(events[-1])
    streamed = "".join(event.get("delta") or "" for event in events)
    if streamed != outputs[0][0]:
        raise ValueError(f"pieces came to {streamed!r}, the text is {outputs[0][0]!r}")
    return outputs


def _outputs(found: Mapping[str, Any]) -> list[list[Any]]:
    if "outputs" in found:
        outputs = found["outputs"]
        outputs = outputs[0] if outputs and isinstance(outputs[0], list) else outputs
        return [[output["text"], output.get("tokens"), output.get("score")] for output in outputs]
    if "text" in found:
        return [[found["text"], found.get("tokens"), found.get("score")]]
    raise ValueError(f"an answer without text: {json.dumps(found)[:200]}")


def generate_load(spec: Mapping[str, Any]) -> None:
    """spec: port, warmup, seconds, and a file of groups: requests and clients of each. Prints what each saw."""
    read = json.loads(Path(spec["groups"]).read_text(encoding="utf-8"))
    groups = {name: Group(group["requests"], group["clients"], spec["port"]) for name, group in read.items()}

    async def run() -> None:
        await asyncio.gather(*(group.run(spec["warmup"], spec["seconds"]) for group in groups.values()))

    asyncio.run(run())
    print(json.dumps({name: _told(group.tally) for name, group in groups.items()} | {"cpu": time.process_time()}))


def _told(tally: Tally) -> dict[str, Any]:
    answers: dict[int, Any] = {}
    for index, body in tally.answers.items():
        try:
            answers[index] = outputs_of(body)
        except ValueError as error:
            tally.faults.append(str(error))
    return {**vars(tally), "answers": answers, "faults": tally.faults[:20]}


# Servers: processes, and what they take of the machine.


@dataclass(frozen=True)
class Server:
    """How a server is started; it is told its port besides."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that answers. seconds: until it did."""

    pid: int
    port: int
    seconds: float


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """Starts a server, waits until it is ready, and ends it."""
    port, begin = _free_port(), time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*server.command, "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **server.environment},
            start_new_session=True,
        )
        try:
            while not _ready(port):
                if process.poll() is not None or time.perf_counter() - begin > 120:
                    log.seek(0)
                    said = log.read().decode(errors="replace")[-2000:]
                    raise SystemExit(f"{' '.join(server.command)}: does not get ready:\n{said}")
                time.sleep(0.05)
            yield Running(process.pid, port, time.perf_counter() - begin)
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        print(f"server {process.pid}: did not end within 20 s of SIGTERM, killed", file=sys.stderr)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its own group: what is left of its children too
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(port: int) -> bool:
    for path in ("/readyz", "/healthz"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if status != 404:
            return status == 200
    return False


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [one for child in task.read_text(encoding="ascii").split() for one in tree(int(child))]
    return found


def mib(pid: int, name: str) -> float:
    """VmRSS (resident now) or VmHWM (at most) of a process tree; pages that processes share count for each."""
    kib = 0
    for one in tree(pid):
        with suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text(encoding="utf-8", errors="replace")
            kib += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(name + ":"))
    return kib / 1024


def cpu_seconds(pid: int) -> float:
    """That a process tree has used so far."""
    ticks = 0
    for one in tree(pid):
        with suppress(OSError):
            stat = Path(f"/proc/{one}/stat").read_text(encoding="utf-8", errors="replace")
            ticks += sum(map(int, stat.rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def forget_peak(pid: int) -> None:
    """VmHWM counts from here on, where the system lets us."""
    for one in tree(pid):
        with suppress(OSError):
            Path(f"/proc/{one}/clear_refs").write_text("5", encoding="ascii")


# Measuring.

Groups = Mapping[str, tuple[Sequence[Mapping[str, Any]], int]]  # requests and clients, by name


def apply_load(server: Running, groups: Groups, seconds: float | None, warmup: float = WARMUP) -> dict[str, Any]:
    """What a load generator saw, by the name of the group, and under "machine" what the server took meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "groups.json"
        told = {name: {"requests": requests, "clients": clients} for name, (requests, clients) in groups.items()}
        file.write_text(json.dumps(told), encoding="utf-8")
        spec = {"port": server.port, "groups": str(file), "seconds": seconds, "warmup": warmup}
        forget_peak(server.pid)
        start, cpu, begin = mib(server.pid, "VmRSS"), cpu_seconds(server.pid), time.perf_counter()
        command = [sys.executable, __file__, "--contender", json.dumps(spec)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        taken = time.perf_counter() - begin
    found: dict[str, Any] = json.loads(done.stdout)
    found["machine"] = {
        "start_mib": start,
        "end_mib": mib(server.pid, "VmRSS"),
        "peak_mib": mib(server.pid, "VmHWM"),
        "cores": (cpu_seconds(server.pid) - cpu) / taken,
        "load_cores": found.pop("cpu") / taken,
    }
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed; not a number where there are none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def summed(group: Mapping[str, Any], seconds: float, lengths: "Lengths") -> dict[str, Any]:
    """A group's figures: rates, latencies and statuses."""
    texts = {int(index): outputs[0][0] for index, outputs in group["answers"].items()}
    counts = {int(index): number for index, number in group["done"].items()}
    tokens = sum(number * lengths.of(texts[index]) for index, number in counts.items() if index in texts)
    figures = {f"p{share}": percentile(group["ms"], share / 100) for share in (50, 95, 99)}
    if group["first_ms"]:
        figures |= {f"first_p{share}": percentile(group["first_ms"], share / 100) for share in (50, 95)}
    rates = {"requests/s": len(group["ms"]) / seconds, "tokens/s": tokens / seconds}
    return {**rates, **figures, "status": group["status"], "faults": group["faults"], "texts": texts}


class Lengths:
    """The tokenizers of a run and how long its outputs may be, read without the model."""

    def __init__(self, run: Path) -> None:
        from antiphon import tokenizer

        self.tokenizers = tokenizer.load(run)
        self.ratio = json.loads((run / "facts.json").read_text(encoding="utf-8"))["length_ratio"]
        training = json.loads((run / "config.json").read_text(encoding="utf-8"))["training"]
        self.limit = int(training["max_length"])

    def of(self, text: str) -> int:
        """Tokens of an output."""
        return len(self.tokenizers.target.encode(text))

    def source(self, text: str) -> int:
        return len(self.tokenizers.source.encode(text))

    def request(self, text: str, **settings: Any) -> dict[str, Any]:
        """A text with the longest output that Antiphon allows by default."""
        longest = math.ceil(1.25 * self.ratio * (self.source(text) + 1)) + 8
        return {"body": {"text": text, "max_length": longest, **settings}}

    def joined(self, texts: Sequence[str]) -> list[str]:
        """Long texts: some sentences each, as many as the model may be given."""
        found = []
        for start in range(0, len(texts) - JOINED + 1, JOINED):
            sentences = list(texts[start : start + JOINED])
            while self.source(" ".join(sentences)) > self.limit:
                sentences.pop()
            found.append(" ".join(sentences))
        return found


def read_texts(file: Path) -> list[str]:
    """One source a line, in an order that has nothing to do with the file's."""
    data = file.read_bytes()
    lines = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8").splitlines()
    texts = [line.strip() for line in lines if line.strip()]
    Random(1).shuffle(texts)
    return texts


# Contenders and their settings.


@dataclass(frozen=True)
class PeerSettings:
    """Of ctranslate2_server.py. environment: variables over what is there."""

    compute_type: str = "int8"
    inter_threads: int = CORES
    intra_threads: int = 1
    max_batch: int = 32
    delay_ms: float = 2.0
    environment: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> str:
        """In a few words."""
        threads = f"{self.inter_threads}x{self.intra_threads}"
        words = [self.compute_type, threads, f"batch {self.max_batch}", f"delay {self.delay_ms:g} ms"]
        words += [f"{name}={value}" for name, value in self.environment.items() if name.startswith("CT2")]
        words.append("malloc tuned" if TUNED_MALLOC.keys() <= self.environment.keys() else "")
        words.append("spinning" if SPINNING.keys() <= self.environment.keys() else "")
        return " ".join(word for word in words if word)

    def server(self, model: str) -> Server:
        """With these settings, for an exported model."""
        named = {name: value for name, value in asdict(self).items() if name != "environment"}
        flags = [word for name, value in named.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        command = [interpreter("ctranslate2"), str(HERE / "ctranslate2_server.py"), model, *flags]
        return Server(command, self.environment)


def antiphon_server(run: Path, words: str) -> Server:
    """name=value words: flags of `antiphon serve`, or another run; in capitals: environment variables."""
    pairs = dict(word.split("=", 1) for word in words.split())
    environment = {name: value for name, value in pairs.items() if name.isupper()}
    flags = [f"--{name}={value}" for name, value in pairs.items() if name not in (*environment, "run")]
    return Server([sys.executable, "-m", "antiphon", "serve", pairs.get("run", str(run)), *flags], environment)


def contenders(beam: int, clients: int, model: str, args: argparse.Namespace) -> dict[str, Server]:
    """By the name they are printed with, Antiphon's first; the peer with what is kept for such a beam and clients."""
    found = {f"Antiphon {words}".strip(): antiphon_server(args.run, words) for words in args.antiphon or [""]}
    if args.peers:
        settings = kept_settings(beam, clients, args)
        found[f"ctranslate2: {settings.told()}"] = settings.server(model)
    return found


def settings_key(beam: int, clients: int, args: argparse.Namespace) -> str:
    return f"{args.run} beam {beam} clients {clients}"


def kept_settings(beam: int, clients: int, args: argparse.Namespace) -> PeerSettings:
    """As a search found them for this or, failing that, for the many clients of `load`; else those to begin with."""
    kept = read_kept(args)
    for key in (settings_key(beam, clients, args), settings_key(beam, SEARCH_CLIENTS, args)):
        if key in kept:
            return PeerSettings(**kept[key]["settings"])
    return PeerSettings()


def read_kept(args: argparse.Namespace) -> dict[str, Any]:
    file: Path | None = args.peer_settings
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}
    return found


class Search:
    """Tries settings of the peer with so many clients, one kind of setting after the other, and keeps the fastest."""

    def __init__(self, model: str, requests: Sequence[Mapping[str, Any]], clients: int, seconds: float) -> None:
        self.model, self.groups, self.seconds = model, {"all": (requests, clients)}, seconds
        self.rates: dict[PeerSettings, float] = {}
        self.tried: dict[str, float] = {}
        self.best = PeerSettings()
        self.bar = 0.0
        self.compute_types = ["int8", "int8_float32", "int8_bfloat16"]

    def run(self) -> PeerSettings:
        """What goes deepest (compute type, workers and threads) first, and once more at the end."""
        self._attempt(self._deepest())
        self._attempt(replace(self.best, max_batch=size) for size in (16, 32, 64))
        self._attempt(replace(self.best, delay_ms=delay) for delay in (0.0, 2.0, 5.0))
        for variables in ({"CT2_FORCE_CPU_ISA": "AVX512"}, {"CT2_FORCE_CPU_ISA": "AVX2"}, TUNED_MALLOC, SPINNING):
            self._attempt([replace(self.best, environment={**self.best.environment, **variables})])
        self._attempt(self._deepest())
        return self.best

    def _deepest(self) -> list[PeerSettings]:
        return [
            replace(self.best, compute_type=compute_type, inter_threads=inter, intra_threads=intra)
            for inter, intra in dict.fromkeys([(CORES, 1), (1, CORES), (1, 1)])
            for compute_type in self.compute_types
        ]

    def _attempt(self, choices: Iterable[PeerSettings]) -> None:
        for settings in choices:
            if settings.told() in self.tried or settings.compute_type not in self.compute_types:
                continue
            found = self.tried[settings.told()] = self._rate(settings)
            print(f"ctranslate2, {settings.told()}: {found:,.1f} requests/s", file=sys.stderr, flush=True)
            if found > self.bar:
                self.best, self.bar = settings, found

    def _rate(self, settings: PeerSettings) -> float:
        """Requests a second: the better of two loads, or one that does not reach half of the best; 0: it cannot run."""
        try:
            with running(settings.server(self.model)) as server:
                found = self._load(server)
                return found if found < self.bar / 2 else max(found, self._load(server))
        except SystemExit as error:
            print(str(error).strip().rpartition("\n")[2], file=sys.stderr)
            if "compute type" in str(error):  # this processor has it not
                self.compute_types.remove(settings.compute_type)
            return 0.0

    def _load(self, server: Running) -> float:
        return len(apply_load(server, self.groups, self.seconds, WARMUP / 2)["all"]["ms"]) / self.seconds


def search_all(model: str, requests: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Settings for each beam with many clients, and for one client where `alone` is asked for; those kept are left."""
    wanted = [(beam, SEARCH_CLIENTS) for beam in args.beam if {"load", "mixed"} & set(args.mode)]
    wanted += [(1, 1)] if "alone" in args.mode else []
    for beam, clients in wanted:
        key, kept = settings_key(beam, clients, args), read_kept(args)
        if key in kept:
            continue
        print(f"\nsearching the best settings of ctranslate2: beam {beam}, {clients} clients", flush=True)
        how = {"beam_size": beam, "stream": clients == 1}
        asked = [{"body": {**request["body"], **how}} for request in requests]
        search = Search(model, asked, clients, args.search_seconds)
        best = search.run()
        ranked = sorted(search.tried.items(), key=lambda item: item[1], reverse=True)
        print(columns([["settings tried", "requests/s"], *([name, f"{rate:,.1f}"] for name, rate in ranked)]))
        kept[key] = {"settings": asdict(best), "tried": search.tried}
        write_json(args.peer_settings, kept)


# The modes.


def play_load(beam: int, data: "Data", args: argparse.Namespace) -> dict[str, Rounds]:
    """Each number of clients, at one beam."""
    requests = data.requests(beam_size=beam)
    levels: dict[str, Groups] = {f"{clients} clients": {"all": (requests, clients)} for clients in args.clients}
    return play(contenders(beam, SEARCH_CLIENTS, data.model, args), levels, data, args)


def play_mixed(beam: int, data: "Data", args: argparse.Namespace) -> dict[str, Rounds]:
    """Short texts, without and with one client that sends long ones."""
    short = (data.requests(beam_size=beam), SHORT_CLIENTS)
    long = ([data.lengths.request(text, beam_size=beam) for text in data.long], 1)
    levels: dict[str, Groups] = {"short texts only": {"all": short}, "beside long texts": {"all": short, "long": long}}
    return play(contenders(beam, SEARCH_CLIENTS, data.model, args), levels, data, args)


def play_alone(data: "Data", args: argparse.Namespace) -> dict[str, Rounds]:
    """One client, streamed."""
    levels: dict[str, Groups] = {"1 client": {"all": (data.requests(stream=True), 1)}}
    return play(contenders(1, 1, data.model, args), levels, data, args)


@dataclass(frozen=True)
class Data:
    """What is asked. model: as exported for the peer."""

    texts: Sequence[str]
    long: Sequence[str]
    lengths: Lengths
    model: str

    def requests(self, **settings: Any) -> list[dict[str, Any]]:
        return [self.lengths.request(text, **settings) for text in self.texts]


def play(
    servers: Mapping[str, Server], levels: Mapping[str, Groups], data: Data, args: argparse.Namespace
) -> dict[str, Rounds]:
    """Every contender starts in each round, and goes through all levels; what was measured, by level."""
    found: dict[str, Rounds] = {level: {name: [] for name in servers} for level in levels}
    for number in range(args.rounds):
        for name, server in servers.items():
            with running(server) as ready:
                for level, groups in levels.items():
                    seen = apply_load(ready, groups, args.seconds)
                    told = {group: summed(seen[group], args.seconds, data.lengths) for group in groups}
                    for fault in [fault for group in groups for fault in told[group]["faults"][:1]]:
                        print(f"{name}, {level}: {fault}", file=sys.stderr)
                    found[level][name].append({**told, **seen["machine"], "seconds_until_ready": ready.seconds})
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
    return found


def middle(rounds: Sequence[Mapping[str, Any]], name: str, group: str = "all", digits: int = 1) -> str:
    return f"{median(turn[group][name] for turn in rounds):,.{digits}f}"


def faults(rounds: Sequence[Mapping[str, Any]], group: str = "all") -> str:
    """Answers other than 200, by status."""
    total: Counter[str] = Counter()
    for turn in rounds:
        total.update({status: number for status, number in turn[group]["status"].items() if status != "200"})
    return " ".join(f"{status}:{number}" for status, number in total.items()) or "0"


def same_share(rounds: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]) -> str:
    """How many of the first round's answers are those of the first contender."""
    ours, theirs = rounds[0]["all"]["texts"], first[0]["all"]["texts"]
    common = ours.keys() & theirs.keys()
    return f"{100 * sum(ours[index] == theirs[index] for index in common) / max(1, len(common)):.1f}%"


def taken(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cores used by the server and by the load; MiB at the start, at the end and at most."""
    values = {name: median(turn[name] for turn in rounds) for name in rounds[0] if name.endswith(("cores", "mib"))}
    memory = " ".join(f"{values[name]:,.0f}" for name in ("start_mib", "end_mib", "peak_mib"))
    return [f"{values['cores']:.2f}+{values['load_cores']:.2f}", memory]


def print_load(level: str, found: Rounds) -> None:
    """Rates and latencies of each contender."""
    rows = [[level, "requests/s", "min-max", "tokens/s", "p50 ms", "p95", "p99", "errors", "same output"]]
    rows[0] += ["cores", "MiB start, end, peak"]
    for name, rounds in found.items():
        rates = spread([turn["all"]["requests/s"] for turn in rounds], 1)
        middles = [middle(rounds, "tokens/s", digits=0), *(middle(rounds, f"p{share}") for share in (50, 95, 99))]
        same = same_share(rounds, next(iter(found.values())))
        rows.append([name, *rates, *middles, faults(rounds), same, *taken(rounds)])
    print("\n" + columns(rows))
    print_ratios(found, "requests/s", "requests/s")
    print_ratios(found, "p95", "1 / p95", inverse=True)


def print_mixed(levels: Mapping[str, Rounds]) -> None:
    """What short texts wait, without and with long ones beside them."""
    without, beside = levels.values()
    rows = [["short texts, beside long ones", "p50 ms", "p95", "min-max", "p99", "p95 without", "requests/s"]]
    rows[0] += ["long ones/s", "their p50", "errors"]
    for name, rounds in beside.items():
        p95 = spread([turn["all"]["p95"] for turn in rounds], 1)
        short = [middle(rounds, "p50"), *p95, middle(rounds, "p99"), middle(without[name], "p95")]
        long = [middle(rounds, "requests/s", "long", 2), middle(rounds, "p50", "long")]
        rows.append(
            [
                name,
                *short,
                middle(rounds, "requests/s"),
                *long,
                faults(rounds),
            ]
        )
    print("\n" + columns(rows))
    print_ratios(beside, "p95", "1 / p95 of the short ones", inverse=True)


def print_alone(found: Rounds) -> None:
    """Until the first piece of text, and until the last."""
    if any("first_p50" not in turn["all"] for rounds in found.values() for turn in rounds):
        for name, rounds in found.items():
            print(f"{name}: errors {faults(rounds)}", *rounds[0]["all"]["faults"][:1])
        print("alone: at least one server did not stream; nothing can be compared.")
        return
    rows = [["one client, streamed", "first piece, p50 ms", "min-max", "p95", "end, p50", "min-max", "p95", "errors"]]
    for name, rounds in found.items():
        first, end = (spread([turn["all"][figure] for turn in rounds], 1) for figure in ("first_p50", "p50"))
        rows.append([name, *first, middle(rounds, "first_p95"), *end, middle(rounds, "p95"), faults(rounds)])
    print("\n" + columns(rows))
    print_ratios(found, "first_p50", "1 / first piece", inverse=True)
    print_ratios(found, "p50", "1 / end", inverse=True)


def print_ratios(found: Rounds, figure: str, unit: str, inverse: bool = False) -> None:
    """Antiphon's best over each of the others; higher is better."""
    rates = {
        name: [1 / value if inverse else value for value in (turn["all"][figure] for turn in rounds)]
        for name, rounds in found.items()
    }
    best = max((name for name in rates if name.startswith("Antiphon")), key=lambda name: median(rates[name]))
    for name, theirs in rates.items():
        if name != best and min(theirs) > 0:
            print(f"{unit}: {best} / {name.partition(':')[0]}: {ratio(rates[best], theirs)}")


def endure(data: Data, args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Answers among many must be those that each request gets alone, from the same process. Whether all were."""
    requests = [
        {"body": {"text": text, **KINDS[kind], **({"seed": seed} if kind == "sample" else {})}}
        for seed, (text, kind) in enumerate(zip(data.texts[:DISTINCT], cycle(args.kinds), strict=False))
    ]
    rows = [
        ["clients", "compared", "requests/s", "refused", "lost or different", "p50 ms", "p99", "MiB start, end, peak"]
    ]
    record: dict[str, Any] = {}
    wrong: list[str] = []
    with running(antiphon_server(args.run, (args.antiphon or [""])[0])) as server:
        asked = ask_alone(server, requests)
        print(f"\n{len(asked)} requests ({', '.join(args.kinds)}) were asked alone", flush=True)
        for clients in ENDURANCE_CLIENTS:
            seen = apply_load(server, {"all": (asked, clients)}, args.seconds, warmup=0)
            rows.append(endurance_row(clients, seen, args.seconds))
            left_out = ("answers", "ms", "first_ms", "done")
            group = {name: value for name, value in seen["all"].items() if name not in left_out}
            record[f"{clients} clients"] = {"all": group, "machine": seen["machine"]}
            wrong += seen["all"]["faults"]
    print(columns(rows))
    apart = max(found["all"]["score_difference"] for found in record.values())
    print(f"scores differ by {apart:.1e} at most from those alone", *wrong[:5], sep="\n")
    return record, not wrong


def ask_alone(server: Running, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each request, with what it gets while nothing else is asked; not streamed."""
    bodies = [{name: value for name, value in request["body"].items() if name != "stream"} for request in requests]
    seen = apply_load(server, {"all": ([{"body": body} for body in bodies], 1)}, None, warmup=0)["all"]
    if seen["faults"]:
        raise SystemExit("alone already, not all is well:\n" + "\n".join(seen["faults"]))
    return [{**request, "expected": seen["answers"][str(index)]} for index, request in enumerate(requests)]


def endurance_row(clients: int, seen: Mapping[str, Any], seconds: float) -> list[str]:
    group = seen["all"]
    refused = sum(group["status"].get(status, 0) for status in REFUSED)
    wrong = sum(number for status, number in group["status"].items() if status not in ("200", *REFUSED))
    latency = [f"{percentile(group['ms'], share):,.1f}" for share in (0.5, 0.99)]
    counts = [f"{group['compared']:,}", f"{len(group['ms']) / seconds:,.1f}", f"{refused:,}", f"{wrong:,}"]
    return [str(clients), *counts, *latency, taken([seen["machine"]])[1]]


def run_modes(data: Data, args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """All that is asked for, each with its table, and whether the answers endured."""
    record: dict[str, Any] = {}
    well = True
    for beam in args.beam:
        if "load" in args.mode:
            record[f"load, beam {beam}"] = levels = play_load(beam, data, args)
            for level, found in levels.items():
                print_load(f"Beam {beam}, {level}", found)
        if "mixed" in args.mode:
            record[f"mixed, beam {beam}"] = levels = play_mixed(beam, data, args)
            print(f"\nBeam {beam}")
            print_mixed(levels)
    if "alone" in args.mode:
        record["alone"] = levels = play_alone(data, args)
        print_alone(levels["1 client"])
    if "endurance" in args.mode:
        record["endurance"], well = endure(data, args)
    return record, well


def without_texts(found: Any) -> Any:
    """A record fit to be kept."""
    if isinstance(found, dict):
        return {str(name): without_texts(value) for name, value in found.items() if name != "texts"}
    return [without_texts(value) for value in found] if isinstance(found, list) else found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Servers under load, in turns with a peer on the same weights.")
    parser.add_argument("run", type=Path, nargs="?", help="a run folder that `antiphon train` wrote")
    parser.add_argument("--mode", nargs="+", choices=("load", "mixed", "alone", "endurance"), default=["load"])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64], help="load: texts asked at once")
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 4], help="1: greedy")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load, after a warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="0: only the search")
    parser.add_argument("--peers", nargs="*", choices=["ctranslate2"], default=["ctranslate2"])
    words = (
        'how Antiphon is served: flags, e.g. "workers=2 precision=int8", "run=FOLDER" for another model, or '
        "VARIABLE=value; may be repeated; the first is the reference, and is what endures"
    )
    parser.add_argument("--antiphon", action="append", metavar="SETTINGS", help=words)
    parser.add_argument("--peer-settings", type=Path, help="a file that the peer's best settings are kept in")
    parser.add_argument("--search", action="store_true", help="search those that are not in --peer-settings yet")
    parser.add_argument("--search-seconds", type=float, default=3.0, help="of each load of a search")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/multi30k/test_2016_flickr.en.gz"))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="endurance: requests mixed")
    parser.add_argument("--exports", type=Path, help="a folder that exports are kept in and taken from")
    parser.add_argument("--save", type=Path, help="also write everything here, as JSON")
    parser.add_argument("--contender", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.search and not (args.peers and args.peer_settings):
        parser.error("--search needs a peer, and --peer-settings FILE to keep what it finds.")
    if args.run is None and args.contender is None:
        parser.error("RUN is missing: a run folder that `antiphon train` wrote.")
    return args


def main() -> None:
    args = parse()
    if args.contender:
        generate_load(args.contender)
        return
    from machine import facts, print_facts

    print_facts()
    for peer in args.peers:
        print(told(peer))
    lengths, texts = Lengths(args.run), read_texts(args.texts)
    long = lengths.joined(texts)
    with tempfile.TemporaryDirectory() as folder:
        model = export(args.run, "ctranslate2", args.exports or Path(folder)) if args.peers else ""
        data = Data(texts, long, lengths, model)
        about = f"{len(texts):,} texts of {sum(map(lengths.source, texts)) / len(texts):.1f} tokens"
        print(f"{about}, joined {median(map(lengths.source, long)):.0f}; {args.run}; {args.rounds} rounds", flush=True)
        if args.search:
            search_all(model, data.requests(), args)
        record, well = run_modes(data, args) if args.rounds else ({}, True)
    if args.save:
        asked = {name: str(value) for name, value in vars(args).items()}
        versions = [told(peer) for peer in args.peers]
        found = without_texts(record)
        write_json(args.save, {"machine": facts(), "peers": versions, "asked": asked, "found": found})
    if not well:
        raise SystemExit("endurance: some answers were lost, or differed from those alone.")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
