"""Training throughput: Antiphon's own loop against a plain loop around `nn.Transformer`, on the same batches.

    python benchmarks/training.py --size small --rounds 5 --steps 8

Each contender has a process of its own and they take turns (turns.py). What runs for Antiphon is
`Trainer.fit` itself, batches, logging and all; for the other, bare_transformer.py with the same batches made
by the same code.
"""

import argparse
import json
import os
import tempfile
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from bare_transformer import BareTransformer, train_steps
from machine import EDGE, facts, matrix_products, print_facts
from operators import print_operators, profiler
from tables import columns, ratio, spread
from turns import Turns, contenders, environment, play, write_json
from workload import SIZES, VOCABULARY, config, flops_per_target_token, network, read_ids, write_ids

from antiphon.training.loop import StepReport, Trainer, Validation

PRECISIONS = ("float32", "bfloat16")
KINDS = ("bare", "transformer", "recurrent")


class Referee(Protocol):
    """Says when another step is wanted, and is told of each."""

    def wanted(self) -> bool: ...

    def count(self, **counts: float) -> None: ...


class Counting:
    """A listener that passes on what it hears."""

    def __init__(self, referee: Referee) -> None:
        self.referee = referee

    def stepped(self, report: StepReport) -> None:
        self.referee.count(tokens=report.target_tokens)

    def validated(self, step: int, validation: Validation, best: bool) -> None:
        pass


def train_antiphon(spec: dict[str, Any], referee: Referee) -> None:
    """The loop that `antiphon train` runs, without validations."""
    settings = config(spec["size"], spec["kind"], spec["batch_tokens"], spec["precision"])
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=network(settings.model),
            data=read_ids(Path(spec["ids"])),
            config=settings.training,
            checkpoints=Path(folder) / "checkpoints",
            metrics=Path(folder) / "metrics.jsonl",
            validate=lambda: Validation(0.0, "loss", 0.0, 0.0),
            keep_best=lambda: None,
            listener=Counting(referee),
            wanted=referee.wanted,
        ).fit()


def train_bare(spec: dict[str, Any], referee: Referee) -> None:
    settings = config(spec["size"], "transformer", spec["batch_tokens"], spec["precision"])
    training = settings.training
    data = read_ids(Path(spec["ids"]))
    batches = (batch for epoch in count() for batch in data.batches(training.batch_tokens, training.seed, epoch))
    torch.manual_seed(1)
    model = BareTransformer(settings.model, VOCABULARY)
    steps = train_steps(model, batches, spec["precision"], training.learning_rate / 100, training.clip_norm)
    while referee.wanted():
        referee.count(tokens=next(steps))


def multiply(spec: dict[str, Any], referee: Referee) -> None:
    products = matrix_products(getattr(torch, spec["precision"]))
    while referee.wanted():
        referee.count(flops=next(products))


CONTENDERS = {
    "bare": train_bare,
    "transformer": train_antiphon,
    "recurrent": train_antiphon,
    "peak": multiply,
}


def compare(args: argparse.Namespace, ids: Path) -> dict[str, Any]:
    """Runs all rounds; what each contender counted, with its figures of merit."""
    shared = {"size": args.size, "batch_tokens": args.batch_tokens, "ids": str(ids)}
    specs = {
        f"{kind} {precision}": {**shared, "kind": kind, "precision": precision}
        for precision in args.precision
        for kind in (*args.kinds, "peak")
    }
    steps = {name: 2 if spec["kind"] == "peak" else args.steps for name, spec in specs.items()}
    warmup = {name: 1 if spec["kind"] == "peak" else args.warmup for name, spec in specs.items()}
    with contenders(__file__, specs, environment(args.threads, args.malloc)) as players:
        counted = play(players, args.rounds, steps, warmup)
    data = read_ids(ids)
    found: dict[str, Any] = {}
    for name, spec in specs.items():
        rounds = counted[name]
        if spec["kind"] == "peak":
            rates = [turn["flops"] / turn["seconds"] for turn in rounds]
            found[name] = {"rates": rates}
            continue
        rates = [turn["tokens"] / turn["seconds"] for turn in rounds]
        settings = config(args.size, spec["kind"], args.batch_tokens, spec["precision"])
        flops = flops_per_target_token(network(settings.model), settings.model, data)
        found[name] = {
            "rates": rates,
            "per_cpu_second": [turn["tokens"] / turn["cpu_seconds"] for turn in rounds],
            "peak_mib": rounds[-1]["peak_mib"],
            "flops": flops,
        }
    return found


def print_results(found: dict[str, Any], args: argparse.Namespace) -> None:
    rows = [["", "target tokens/s", "min-max", "GFLOP/s", "of the peak", "peak MiB", "tokens/CPU s"]]
    for precision in args.precision:
        peak = median(found[f"peak {precision}"]["rates"])
        for kind in args.kinds:
            one = found[f"{kind} {precision}"]
            speed = median(one["rates"]) * one["flops"]
            name = f"nn.Transformer, {precision}" if kind == "bare" else f"Antiphon {kind}, {precision}"
            cells = [f"{speed / 1e9:,.0f}", f"{100 * speed / peak:.0f}%", f"{one['peak_mib']:,.0f}"]
            rows.append([name, *spread(one["rates"]), *cells, spread(one["per_cpu_second"])[0]])
        rates = [rate / 1e9 for rate in found[f"peak {precision}"]["rates"]]
        rows.append([f"product of {EDGE} x {EDGE}, {precision}", "", "", spread(rates)[0], "100%", "", ""])
    print(columns(rows))
    if not {"bare", "transformer"} <= set(args.kinds):
        return
    for precision in args.precision:
        ours, theirs = (found[f"{kind} {precision}"]["rates"] for kind in ("transformer", "bare"))
        print(f"Antiphon / nn.Transformer, {precision}: {ratio(ours, theirs)}")
    ours, theirs = (
        max((found[f"{kind} {precision}"]["rates"] for precision in args.precision), key=median)
        for kind in ("transformer", "bare")
    )
    print(f"Antiphon / nn.Transformer, each in its faster precision: {ratio(ours, theirs)}")


class Profiled:
    """A referee for one loop alone: some steps to warm up, then `steps` under the profiler."""

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps, self.done = warmup, steps, 0
        self.profiler = profiler()

    def wanted(self) -> bool:
        if self.done == self.warmup:
            self.profiler.start()
        if self.done == self.warmup + self.steps:
            self.profiler.stop()
            return False
        return True

    def count(self, **counts: float) -> None:
        self.done += 1


def profile(args: argparse.Namespace, ids: Path) -> None:
    for precision in args.precision:
        for kind in args.kinds:
            referee = Profiled(args.warmup, args.steps)
            spec = {"size": args.size, "batch_tokens": args.batch_tokens, "ids": str(ids)}
            CONTENDERS[kind]({**spec, "kind": kind, "precision": precision}, referee)
            print(f"\n{kind}, {precision}")
            print_operators(referee.profiler, args.steps)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training throughput, in turns with a bare nn.Transformer loop.")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="who takes part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="updates in a turn")
    parser.add_argument("--warmup", type=int, default=4, help="updates that do not count")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"))
    parser.add_argument("--malloc", choices=("default", "tuned"), default="default", help="glibc's, for all alike")
    parser.add_argument("--profile", action="store_true", help="operators of each loop instead of a comparison")
    parser.add_argument("--threads", type=int, help="of each contender; left out: torch's own choice")
    parser.add_argument("--json", type=Path, help="also write everything here")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.contender:
        spec = json.loads(args.contender)
        CONTENDERS[spec["kind"]](spec, Turns())
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    print_facts()
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.tsv"
        told = write_ids(args.data, ids)
        print(
            f"data: {told}; size {args.size}; batches of {args.batch_tokens} tokens; malloc {args.malloc}",
            flush=True,
        )
        if args.profile:
            profile(args, ids)
            return
        found = compare(args, ids)
    print_results(found, args)
    if args.json:
        asked = {name: str(value) for name, value in vars(args).items()}
        write_json(args.json, {"machine": facts(), "data": told, "asked": asked, "found": found})


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
