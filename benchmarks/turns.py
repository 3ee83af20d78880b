"""Contenders that take turns, each in a process of its own.

Own processes, because an allocator remembers what was done before; turns, because other work on the machine
comes and goes. Only one contender runs at a time; the others wait for a line on their standard input. A contender may
have an interpreter of its own (a peer's), so this file needs the standard library only.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# glibc gives the memory of large tensors back, and faults it in again at every step; this stops it.
TUNED_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 32)}
# Threads that wait for work look for it ten times as long before they sleep; for ever would disturb others' turns.
SPINNING = {"GOMP_SPINCOUNT": "3000000"}


class Turns:
    """The contender's side: a loop asks `wanted` before every step, and tells `count` what a step did.

    At the end of a turn `wanted` answers with what was counted, and waits for the next turn. What libraries print
    goes to standard error from here on: standard output carries the answers.
    """

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.left = 0
        self.counts: dict[str, Any] | None = None

    def wanted(self) -> bool:
        if self.left == 0:
            if self.counts is not None:
                self.counts["seconds"] = time.perf_counter() - self.start
                self.counts["cpu_seconds"] = cpu_seconds() - self.cpu_start
                self.counts["peak_mib"] = peak_mib()
                print(json.dumps(self.counts), file=self.answers, flush=True)
            line = sys.stdin.readline()
            if not line:
                return False
            self.left, self.counts = int(line), {}
            self.start, self.cpu_start = time.perf_counter(), cpu_seconds()
        self.left -= 1
        return True

    def count(self, **counts: float) -> None:
        assert self.counts is not None
        for name, value in counts.items():
            self.counts[name] = self.counts.get(name, 0) + value

    def collect(self, **values: float) -> None:
        """As `count`, but each value is kept."""
        assert self.counts is not None
        for name, value in values.items():
            self.counts.setdefault(name, []).append(value)


def cpu_seconds() -> float:
    """Of this process and its living children: a contender may have workers."""
    ticks = os.sysconf("SC_CLK_TCK")
    return time.process_time() + sum(sum(map(int, stat[11:13])) / ticks for stat in _children())


def peak_mib() -> float:
    """Most memory that was resident, of this process and its living children; pages that they share count twice."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return own + sum(_peak_kib(stat[-1]) for stat in _children()) / 1024


def _children() -> list[list[str]]:
    """The fields of /proc/PID/stat after the name, and the PID, of each living child; none where there is no /proc."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        for pid in task.read_text(encoding="ascii").split():
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            found.append([*stat.rpartition(")")[2].split(), pid])
    return found


def _peak_kib(pid: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


@dataclass(frozen=True)
class Entry:
    """What a contender is: a script and what it is told, the environment it is given, and the Python that runs it."""

    script: str
    spec: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = sys.executable


class Contender:
    """The referee's side of one process: `python SCRIPT --contender SPEC`."""

    def __init__(self, name: str, entry: Entry) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [entry.interpreter, entry.script, "--contender", json.dumps(entry.spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **entry.environment},
        )

    def turn(self, steps: int) -> dict[str, Any]:
        """So many steps; what was counted, with the seconds they took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended: so it is said below
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name}: stopped with code {self.process.wait()}; its message is above.")
        counts: dict[str, Any] = json.loads(answer)
        return counts

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def environment(threads: int | None, malloc: str) -> dict[str, str]:
    """Threads of a process (None: its own choice); malloc and the waiting of threads as they come, or tuned."""
    chosen = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return chosen | (TUNED_MALLOC | SPINNING if malloc == "tuned" else {})


def play(
    entries: Mapping[str, Entry], rounds: int, steps: Mapping[str, int], warmup: Mapping[str, int], fresh: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """A warm-up that does not count, then `rounds` of a turn for each, in alternating order; what each counted.

    fresh: a new process and a new warm-up for each turn, where all together would not fit into memory.
    """
    counted: dict[str, list[dict[str, Any]]] = {name: [] for name in entries}
    with ExitStack() as kept:
        waiting = (
            {} if fresh else {name: kept.enter_context(_warm(name, entries[name], warmup[name])) for name in entries}
        )
        for number in range(rounds):
            for name in entries if number % 2 == 0 else reversed(entries):
                with ExitStack() as one:
                    player = waiting.get(name) or one.enter_context(_warm(name, entries[name], warmup[name]))
                    counted[name].append(player.turn(steps[name]))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return counted


@contextmanager
def _warm(name: str, entry: Entry, steps: int) -> Iterator[Contender]:
    contender = Contender(name, entry)
    try:
        contender.turn(steps)
        yield contender
    finally:
        contender.close()


def write_json(file: Path, record: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
