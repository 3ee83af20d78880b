"""Contenders that take turns, each in a process of its own.

Own processes, because an allocator remembers what was done before; turns, because other work on the machine
comes and goes. Only one contender runs at a time; the others wait for a line on their standard input.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# glibc gives the memory of large tensors back, and faults it in again at every step; this stops it.
TUNED_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 32)}


class Turns:
    """The contender's side: a loop asks `wanted` before every step, and tells `count` what a step did.

    At the end of a turn `wanted` answers with what was counted, and waits for the next turn.
    """

    def __init__(self) -> None:
        self.left = 0
        self.counts: dict[str, float] | None = None

    def wanted(self) -> bool:
        if self.left == 0:
            if self.counts is not None:
                self.counts["seconds"] = time.perf_counter() - self.start
                self.counts["cpu_seconds"] = time.process_time() - self.cpu_start
                self.counts["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(json.dumps(self.counts), flush=True)
            line = sys.stdin.readline()
            if not line:
                return False
            self.left, self.counts = int(line), {}
            self.start, self.cpu_start = time.perf_counter(), time.process_time()
        self.left -= 1
        return True

    def count(self, **counts: float) -> None:
        assert self.counts is not None
        for name, value in counts.items():
            self.counts[name] = self.counts.get(name, 0) + value


class Contender:
    """The referee's side of one process: `python SCRIPT --contender SPEC`."""

    def __init__(self, name: str, script: str, spec: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, script, "--contender", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def turn(self, steps: int) -> dict[str, float]:
        """So many steps; what was counted, with the seconds they took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name}: stopped with code {self.process.wait()}; its message is above.")
        counts: dict[str, float] = json.loads(answer)
        return counts

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def contenders(
    script: str, specs: Mapping[str, Mapping[str, Any]], environment: Mapping[str, str]
) -> Iterator[list[Contender]]:
    """A process for each; all are stopped at the end, also after an error."""
    started: list[Contender] = []
    try:
        for name, spec in specs.items():
            started.append(Contender(name, script, spec, environment))
        yield started
    finally:
        for contender in started:
            contender.close()


def environment(threads: int | None, malloc: str) -> dict[str, str]:
    """What is set for all contenders alike."""
    chosen = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return chosen | (TUNED_MALLOC if malloc == "tuned" else {})


def play(
    players: Iterable[Contender], rounds: int, steps: Mapping[str, int], warmup: Mapping[str, int]
) -> dict[str, list[dict[str, float]]]:
    """A warm-up that does not count, then `rounds` of a turn for each; what each counted, by round."""
    players = list(players)
    for player in players:
        player.turn(warmup[player.name])
    counted: dict[str, list[dict[str, float]]] = {player.name: [] for player in players}
    for number in range(rounds):
        for player in players if number % 2 == 0 else players[::-1]:
            counted[player.name].append(player.turn(steps[player.name]))
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return counted


def write_json(file: Path, record: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
