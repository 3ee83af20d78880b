"""The best settings of a peer, found by trying: a few short turns for each, one at a time.

CTranslate2's many settings are searched one after the other, each with the best found so far of the others, and what
goes deepest (compute type, workers and threads) once more at the end. The fastest is kept whatever its BLEU: that is
in the final table. For Hugging Face all that is offered is tried.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from peers import interpreter
from tables import columns
from turns import SPINNING, TUNED_MALLOC, Contender, Entry

HERE = Path(__file__).resolve().parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
COMPUTE_TYPES = ("float32", "int8", "int8_float32", "bfloat16", "int8_bfloat16")
THREADS = tuple({(CORES, 1): None, (1, CORES): None})  # workers x threads of each
BATCHES = (
    *(("examples", size) for size in (16, 32, 64, 128)),
    *(("tokens", size) for size in (512, 1024, 2048, 4096)),
)
VARIABLES: tuple[tuple[dict[str, str], ...], ...] = (
    tuple({"CT2_FORCE_CPU_ISA": isa} for isa in ("AVX512", "AVX2", "GENERIC")),
    ({"CT2_USE_MKL": "0"}, {"CT2_USE_MKL": "1"}, {"CT2_USE_MKL": "1", "CT2_PACKED_GEMM": "1"}),
    (TUNED_MALLOC,),
    (SPINNING,),
)


@dataclass(frozen=True)
class Settings:
    """What is set for a peer. spec: for its script. environment: variables over what is there."""

    spec: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> str:
        """In a few words."""
        spec = self.spec
        words = [spec.get("precision", ""), spec.get("settings", {}).get("compute_type", "")]
        if "settings" in spec:
            words.append("{inter_threads}x{intra_threads}".format(**spec["settings"]))
            batches = spec["batches"]
            words.append(f"{batches['batch_type']} {batches['max_batch_size']}" if batches else "")
        elif spec["workers"] > 1:
            words.append(f"{spec['workers']} processes of 1 thread")
        words += [f"{name}={value}" for name, value in self.environment.items() if name.startswith("CT2")]
        words.append("malloc tuned" if TUNED_MALLOC.keys() <= self.environment.keys() else "")
        words.append("spinning" if SPINNING.keys() <= self.environment.keys() else "")
        return " ".join(word for word in words if word)


def entry(peer: str, settings: Settings, task: Mapping[str, Any]) -> Entry:
    """A peer with its settings, asked for a task."""
    spec = {"task": "translate", **task, **settings.spec}
    return Entry(str(HERE / f"{peer}_peer.py"), spec, settings.environment, interpreter(peer))


def rate(peer: str, settings: Settings, task: Mapping[str, Any], bar: float) -> float:
    """Sentences a second: the better of two turns after a warm-up, which does where it does not reach a third of `bar`.

    Alone, 40 sentences a turn; 0 when it cannot run so.
    """
    contender = Contender(settings.told(), entry(peer, settings, task))
    try:
        found = _rate(contender, task)
        return found if found < bar / 3 else max(_rate(contender, task) for _ in range(2))
    except SystemExit as error:
        print(error, file=sys.stderr)
        return 0.0
    finally:
        contender.close()


def _rate(contender: Contender, task: Mapping[str, Any]) -> float:
    if task["alone"]:
        return 1000 / median(contender.turn(40)["ms"])
    turn = contender.turn(1)
    return float(turn["sentences"] / turn["seconds"])


class Trials:
    """What was tried of a peer for a task, and the best of it."""

    def __init__(self, peer: str, task: Mapping[str, Any]) -> None:
        self.peer, self.task = peer, task
        self.rates: dict[str, float] = {}
        self.best: Settings | None = None

    def attempt(self, choices: Iterable[Settings]) -> None:
        for settings in choices:
            if settings.told() in self.rates:
                continue
            bar = self.rates[self.best.told()] if self.best else 0.0
            found = rate(self.peer, settings, self.task, bar)
            if self.best is None or found > bar:
                self.best = settings
            self.rates[settings.told()] = found
            print(f"{self.peer}, {settings.told()}: {found:,.1f} sentences/s", file=sys.stderr, flush=True)

    def print_results(self) -> None:
        ranked = sorted(self.rates.items(), key=lambda item: item[1], reverse=True)
        rows = [["settings tried", "sentences/s"], *([name, f"{found:,.1f}"] for name, found in ranked)]
        print(columns(rows), flush=True)


def search_ctranslate2(task: Mapping[str, Any]) -> Trials:
    """One sentence alone needs no workers and no batches: threads only."""
    trials = Trials("ctranslate2", task)
    start = Contender("supported", Entry(**_supported()))
    known = [name for name, has in start.turn(1).items() if name in COMPUTE_TYPES and has]
    start.close()
    threads = [(1, 1), (1, CORES)] if task["alone"] else THREADS
    first = Settings(_ctranslate2("int8", *threads[0], {} if task["alone"] else _batches("examples", 32)))
    trials.attempt(_deepest(first, known, threads))
    assert trials.best is not None
    if not task["alone"]:
        trials.attempt(
            replace(trials.best, spec={**trials.best.spec, "batches": _batches(*batch)}) for batch in BATCHES
        )
    for variables in VARIABLES:
        best = trials.best
        trials.attempt(replace(best, environment={**best.environment, **chosen}) for chosen in variables)
    trials.attempt(_deepest(trials.best, known, threads))
    return trials


def _deepest(settings: Settings, known: Iterable[str], threads: Iterable[tuple[int, int]]) -> list[Settings]:
    return [
        replace(settings, spec=_ctranslate2(compute_type, *pair, settings.spec["batches"]))
        for pair in threads
        for compute_type in known
    ]


def _ctranslate2(compute_type: str, workers: int, threads: int, batches: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"compute_type": compute_type, "inter_threads": workers, "intra_threads": threads}
    return {"settings": settings, "batches": batches}


def _batches(kind: str, size: int) -> dict[str, Any]:
    return {"batch_type": kind, "max_batch_size": size}


def _supported() -> dict[str, Any]:
    spec = {"task": "supported", "compute_types": COMPUTE_TYPES}
    return {
        "script": str(HERE / "ctranslate2_peer.py"),
        "spec": spec,
        "interpreter": interpreter("ctranslate2"),
    }


def search_huggingface(task: Mapping[str, Any], tuned: bool) -> Trials:
    """As it comes, in either precision; or with the allocator and the threads set as for others."""
    trials = Trials("huggingface", task)
    ways: list[tuple[int, Mapping[str, str]]] = [(1, {})]
    if tuned:
        ways = [(1, TUNED_MALLOC | SPINNING), *([] if task["alone"] or CORES == 1 else [(CORES, TUNED_MALLOC)])]
    trials.attempt(
        Settings({"precision": precision, "workers": workers}, variables)
        for workers, variables in ways
        for precision in ("bfloat16", "float32")
    )
    return trials
