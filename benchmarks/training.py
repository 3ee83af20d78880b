"""Training throughput: Antiphon's own loop against a plain loop around `nn.Transformer`, and against peers.

    python benchmarks/training.py --size small --rounds 5 --steps 8
    python benchmarks/peers.py huggingface joeynmt eole
    python benchmarks/training.py --size base --peers huggingface huggingface-eager joeynmt eole --malloc both

Each contender has a process of its own and they take turns (turns.py). What runs for Antiphon is
`Trainer.fit` itself, batches, logging and all; for nn.Transformer, bare_transformer.py with the same batches made
by the same code; for a peer, its model, loss and optimiser with the same batches, which it is given ready made.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from bare_transformer import BareTransformer, train_steps
from machine import EDGE, facts, matrix_products, print_facts
from operators import print_operators, profiler
from peers import interpreter, told
from tables import columns, ratio, spread
from tasks import write_batches
from turns import Entry, Turns, environment, play, write_json
from workload import SIZES, VOCABULARY, config, flops_per_target_token, network, read_ids, write_ids

from antiphon.data.batches import EncodedPairs
from antiphon.ids import PAD
from antiphon.training.loop import StepReport, Trainer, Validation

PRECISIONS = ("float32", "bfloat16")
KINDS = ("bare", "transformer", "recurrent")
TITLES = {
    "bare": "nn.Transformer",
    "transformer": "Antiphon transformer",
    "recurrent": "Antiphon recurrent",
    "huggingface": "Hugging Face Marian",
    "huggingface-eager": "Hugging Face Marian, eager attention",
    "joeynmt": "Joey NMT transformer",
    "joeynmt-recurrent": "Joey NMT recurrent",
    "eole": "Eole transformer",
    "peak": f"product of {EDGE} x {EDGE}",
}
PEERS = tuple(list(TITLES)[3:-1])
MAX_BATCHES = 200  # that a peer is given; then the first again


@dataclass(frozen=True)
class Row:
    """A line of the table. tuned: with malloc and the waiting of threads as turns.py sets them."""

    kind: str
    precision: str
    tuned: bool

    @property
    def name(self) -> str:
        return f"{TITLES[self.kind]}, {self.precision}{', tuned' if self.tuned else ''}"

    @property
    def architecture(self) -> str:
        return "recurrent" if "recurrent" in self.kind else "transformer"


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


def rows(args: argparse.Namespace) -> list[Row]:
    tuned = {"default": [False], "tuned": [True], "both": [False, True]}[args.malloc]
    kinds = [*args.kinds, *args.peers]
    found = []
    for precision in args.precision:
        found += [Row(kind, precision, how) for kind in kinds for how in tuned]
        found.append(Row("peak", precision, tuned[0]))
    return found


def entry(row: Row, args: argparse.Namespace, ids: Path, batches: Path) -> Entry:
    """The process of a row."""
    variables = environment(args.threads, "tuned" if row.tuned else "default")
    if row.tuned:
        variables |= dict(word.split("=", 1) for word in args.also)
    spec: dict[str, Any] = {"kind": row.kind, "precision": row.precision}
    if row.kind not in PEERS:
        spec |= {"size": args.size, "batch_tokens": args.batch_tokens, "ids": str(ids)}
        return Entry(__file__, spec, variables)
    peer = row.kind.partition("-")[0]
    model = config(args.size, row.architecture, args.batch_tokens, row.precision).model
    spec |= {
        "task": "train",
        "kind": row.architecture,
        "attention": "eager" if row.kind.endswith("eager") else "sdpa",
        "batches": str(batches),
        "vocabulary": VOCABULARY,
        "width": model.d_model,
        "inner_width": model.d_ff,
        "layers": model.encoder_layers,
        "attention_heads": model.num_heads,
        "dropout": model.dropout,
        "label_smoothing": 0.1,
    }
    return Entry(str(Path(__file__).with_name(f"{peer}_peer.py")), spec, variables, interpreter(peer))


def write_peer_batches(data: EncodedPairs, batch_tokens: int, file: Path) -> None:
    """The batches of Antiphon's first epoch, without padding."""
    seed = config("small", "transformer", batch_tokens, "float32").training.seed
    batches = islice(data.batches(batch_tokens, seed, 0), MAX_BATCHES)
    write_batches(file, ((unpadded(batch.source), unpadded(batch.target_out)) for batch in batches))


def unpadded(rows: torch.Tensor) -> list[list[int]]:
    return [[token for token in row if token != PAD] for row in rows.tolist()]


def compare(args: argparse.Namespace, ids: Path) -> dict[Row, dict[str, Any]]:
    """Runs all rounds; what each contender counted, with its figures of merit."""
    data = read_ids(ids)
    batches = ids.with_name("batches.jsonl")
    write_peer_batches(data, args.batch_tokens, batches)
    asked = {row.name: row for row in rows(args)}
    steps = {name: 2 if row.kind == "peak" else args.steps for name, row in asked.items()}
    warmup = {name: 1 if row.kind == "peak" else args.warmup for name, row in asked.items()}
    entries = {name: entry(row, args, ids, batches) for name, row in asked.items()}
    counted = play(entries, args.rounds, steps, warmup, args.fresh)
    return {row: figures(row, counted[name], data, args) for name, row in asked.items()}


def figures(row: Row, turns: list[dict[str, Any]], data: EncodedPairs, args: argparse.Namespace) -> dict[str, Any]:
    if row.kind == "peak":
        return {"rates": [turn["flops"] / turn["seconds"] for turn in turns]}
    model = config(args.size, row.architecture, args.batch_tokens, row.precision).model
    return {
        "rates": [turn["tokens"] / turn["seconds"] for turn in turns],
        "per_cpu_second": [turn["tokens"] / turn["cpu_seconds"] for turn in turns],
        "peak_mib": turns[-1]["peak_mib"],
        "flops": flops_per_target_token(network(model), model, data),
    }


def print_results(found: Mapping[Row, Mapping[str, Any]]) -> None:
    lines = [["", "target tokens/s", "min-max", "GFLOP/s", "of the peak", "peak MiB", "tokens/CPU s"]]
    peaks = {row.precision: one["rates"] for row, one in found.items() if row.kind == "peak"}
    for row, one in found.items():
        if row.kind == "peak":
            speeds = [rate / 1e9 for rate in one["rates"]]
            lines.append([row.name, "", "", spread(speeds)[0], "100%", "", ""])
            continue
        speed = median(one["rates"]) * one["flops"]
        share = f"{100 * speed / median(peaks[row.precision]):.0f}%"
        cells = [f"{speed / 1e9:,.0f}", share, f"{one['peak_mib']:,.0f}", spread(one["per_cpu_second"])[0]]
        lines.append([row.name, *spread(one["rates"]), *cells])
    print(columns(lines))
    print_ratios({row: one["rates"] for row, one in found.items() if row.kind != "peak"})


def print_ratios(rates: Mapping[Row, list[float]]) -> None:
    """Antiphon over each other of its architecture: as they come, as it comes over tuned, and both tuned."""
    lines = [
        ["", *sorted({row.precision for row in rates}, reverse=True), "each in its faster precision, round by round"]
    ]
    for kind, tuned in dict.fromkeys((row.kind, row.tuned) for row in rates if row.kind not in KINDS[1:]):
        theirs = fastest(rates, kind, tuned)
        for how in dict.fromkeys((False, tuned)):
            ours = fastest(rates, theirs.architecture, how)
            if ours is None:
                continue
            name = f"Antiphon{', tuned' * how} / {TITLES[kind]}{', tuned' * tuned}"
            pairs = [(Row(ours.kind, precision, how), Row(kind, precision, tuned)) for precision in lines[0][1:-1]]
            single = [f"{median(rates[a]) / median(rates[b]):.2f}" for a, b in pairs]
            lines.append([name, *single, ratio(rates[ours], rates[theirs])])
    print(columns(lines))


def fastest(rates: Mapping[Row, list[float]], kind: str, tuned: bool) -> Row | None:
    """Of all precisions."""
    found = [row for row in rates if row.kind == kind and row.tuned == tuned]
    return max(found, key=lambda row: median(rates[row])) if found else None


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
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help="that peers.py has installed")
    words = "malloc and waiting threads: as they come, tuned, or a row of each for every contender"
    parser.add_argument("--malloc", choices=("default", "tuned", "both"), default="default", help=words)
    parser.add_argument("--also", nargs="*", default=[], metavar="NAME=VALUE", help="variables for tuned rows")
    words = "a new process for each turn: where all together do not fit into memory"
    parser.add_argument("--fresh", action="store_true", help=words)
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
    installed = [told(peer) for peer in dict.fromkeys(kind.partition("-")[0] for kind in args.peers)]
    print(*installed, sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.tsv"
        source = write_ids(args.data, ids)
        print(
            f"data: {source}; size {args.size}; batches of {args.batch_tokens} tokens; malloc {args.malloc}",
            flush=True,
        )
        if args.profile:
            profile(args, ids)
            return
        found = compare(args, ids)
    print_results(found)
    if args.json:
        asked = {name: str(value) for name, value in vars(args).items()}
        named = {row.name: one for row, one in found.items()}
        write_json(args.json, {"machine": facts(), "data": source, "peers": installed, "asked": asked, "found": named})


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
