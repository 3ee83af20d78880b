"""How cost grows: time and memory of decoding, memory of training and of reading pairs, each against what drives it.

    python benchmarks/growth.py --out growth                        # some minutes
    python benchmarks/growth.py --out growth --only data --pairs 10000 100000 1000000 10000000

Each point is measured in a process of its own, the others at their usual value. Memory is what was resident at most
during the work, over what was resident before it. Weights and pairs are made up. Into the folder go decoding.png,
training.png, data.png, and growth.json with all points; the tables are printed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from machine import facts, print_facts
from tables import columns
from turns import write_json
from workload import SIZES

Point = dict[str, Any]

USUAL = {"source length": 20, "target length": 20, "beam": 1, "sentences": 32}
DECODING = {
    "source length": (10, 20, 40, 80, 160, 320),
    "target length": (10, 20, 40, 80, 160, 320),
    "beam": (1, 2, 4, 8, 16),
    "sentences": (1, 8, 32, 64, 128),
}
TRAINING = {"tokens a batch": (1024, 2048, 4096, 8192), "vocabulary": (2000, 8000, 32000, 64000)}
USUAL_TRAINING = {"tokens a batch": 4096, "vocabulary": 8000}
UPDATES = 3
WORDS, WORDS_A_SIDE = 5000, 12  # of made-up text


class Meter:
    """What a piece of work took: seconds, and MiB over what was there before."""

    seconds = 0.0
    mib = 0.0


@contextmanager
def measured() -> Iterator[Meter]:
    meter = Meter()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts here
    before, begin = _resident("VmRSS"), time.perf_counter()
    yield meter
    meter.seconds = time.perf_counter() - begin
    meter.mib = _resident("VmHWM") - before


def _resident(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status: tells no resident memory; this benchmark needs Linux.")


def measure_decoding(spec: Mapping[str, Any]) -> Point:
    """A decode of random sentences after a smaller one to warm up; EOS is never chosen."""
    from decoding import Endless
    from workload import VOCABULARY, config, network

    from antiphon.config import GenerationConfig
    from antiphon.decoding.generate import decode
    from antiphon.decoding.search import make_search
    from antiphon.ids import EOS

    dice = random.Random(1)
    model = Endless(network(config(spec["size"], spec["kind"], 4096, "float32").model))
    settings = GenerationConfig(beam_size=spec["beam"])
    length = spec["source length"] - 1
    sources = [[*dice.choices(range(4, VOCABULARY), k=length), EOS] for _ in range(spec["sentences"])]
    decode(model, sources[:1], [make_search(settings, 4)])
    with measured() as meter:
        decode(model, sources, [make_search(settings, spec["target length"]) for _ in sources])
    return {"seconds": meter.seconds, "mib": meter.mib}


def measure_training(spec: Mapping[str, Any]) -> Point:
    """A few updates of Antiphon's loop, the model and its optimiser included."""
    from training import Counting
    from workload import config, read_ids

    from antiphon.model.seq2seq import build
    from antiphon.training.loop import Trainer, Validation

    settings = config(spec["size"], spec["kind"], spec["tokens a batch"], spec["precision"])
    dice, left = random.Random(1), iter(range(UPDATES))
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.tsv"
        ids.write_text("".join(_line_of_ids(dice, spec["vocabulary"]) for _ in range(6000)), encoding="utf-8")
        data = read_ids(ids)
        with measured() as meter:
            model = build(settings.model, spec["vocabulary"], spec["vocabulary"], joint=True, seed=1)
            Trainer(
                model=model,
                data=data,
                config=settings.training,
                checkpoints=Path(folder) / "checkpoints",
                metrics=Path(folder) / "metrics.jsonl",
                validate=lambda: Validation(0.0, "loss", 0.0, 0.0),
                keep_best=lambda: None,
                listener=Counting(Deaf()),
                wanted=lambda: next(left, None) is not None,
            ).fit()
    return {"seconds": meter.seconds, "mib": meter.mib}


class Deaf:
    """A referee that nobody asks."""

    def wanted(self) -> bool:
        return True

    def count(self, **counts: float) -> None:
        pass


def _line_of_ids(dice: random.Random, vocabulary: int) -> str:
    length = min(60, max(3, int(dice.lognormvariate(2.6, 0.35))))
    sides = (" ".join(map(str, dice.choices(range(4, vocabulary), k=length))) for _ in range(2))
    return "\t".join(sides) + "\n"


def measure_data(spec: Mapping[str, Any]) -> Point:
    """From a file of text to batches: tokenizers are trained on its first pairs, before."""
    from itertools import islice

    from antiphon.config import TokenizerConfig
    from antiphon.data.batches import EncodedPairs
    from antiphon.data.pairs import iter_pairs, read_pairs
    from antiphon.tokenizer import train_tokenizers

    file = Path(spec["file"])
    first = list(islice(iter_pairs(file), 10_000))
    tokenizers = train_tokenizers(first, TokenizerConfig(source="bpe", target="bpe", vocab_size=8000))
    with measured() as meter:
        data = EncodedPairs(read_pairs(file), tokenizers, 256)
        next(data.batches(4096, 1, 0))
    return {"seconds": meter.seconds, "mib": meter.mib}


def write_text(file: Path, count: int) -> None:
    """Pairs of made-up words, the frequent ones as frequent as in language."""
    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))) for _ in range(WORDS)]
    weights = list(accumulate(1 / rank for rank in range(1, WORDS + 1)))
    with file.open("w", encoding="utf-8") as out:
        for _ in range(count):
            found = dice.choices(words, cum_weights=weights, k=2 * WORDS_A_SIDE)
            out.write(f"{' '.join(found[:WORDS_A_SIDE])}\t{' '.join(found[WORDS_A_SIDE:])}\n")


MEASURES: dict[str, Callable[[Mapping[str, Any]], Point]] = {
    "decoding": measure_decoding,
    "training": measure_training,
    "data": measure_data,
}


def elsewhere(what: str, spec: Mapping[str, Any]) -> Point:
    """Measures in a new process; the smaller of two times, for a decode."""
    found = []
    for _ in range(2 if what == "decoding" else 1):
        command = [sys.executable, __file__, "--measure", json.dumps({"what": what, **spec})]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{what}: {spec}: {found[-1]}", file=sys.stderr, flush=True)
    return {**spec, "seconds": min(one["seconds"] for one in found), "mib": min(one["mib"] for one in found)}


def swept(
    what: str, usual: Mapping[str, int], sweeps: Mapping[str, Sequence[int]], fixed: Sequence[Mapping[str, Any]]
) -> list[Point]:
    """Each variable over its values, the others as usual, for each of `fixed`."""
    return [
        {"variable": name, "value": value, **elsewhere(what, {**one, **usual, name: value})}
        for one in fixed
        for name, values in sweeps.items()
        for value in values
    ]


def decoding_points(args: argparse.Namespace) -> list[Point]:
    kinds = [{"size": args.size, "kind": kind} for kind in ("transformer", "recurrent")]
    return swept("decoding", USUAL, DECODING, kinds)


def training_points(args: argparse.Namespace) -> list[Point]:
    kinds = [
        {"size": args.size, "kind": kind, "precision": precision}
        for kind in ("transformer", "recurrent")
        for precision in ("float32", "bfloat16")
    ]
    return swept("training", USUAL_TRAINING, TRAINING, kinds)


def data_points(args: argparse.Namespace) -> list[Point]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for count in args.pairs:
            file = Path(folder) / "pairs.tsv"
            write_text(file, count)
            point = elsewhere("data", {"file": str(file)})
            found.append({"variable": "pairs", "value": count, "kind": "from text to batches", **point})
    return found


POINTS = {"decoding": decoding_points, "training": training_points, "data": data_points}


def print_points(points: Sequence[Point]) -> None:
    rows = [["", "", "seconds", "MiB"]]
    for point in points:
        name = f"{series(point)}, {point['variable']}"
        rows.append([name, f"{point['value']:,}", f"{point['seconds']:.3f}", f"{point['mib']:,.0f}"])
    print(columns(rows), flush=True)


def series(point: Point) -> str:
    return ", ".join(point[name] for name in ("kind", "precision") if name in point)


def draw(points: Sequence[Point], measures: Mapping[str, str], title: str, file: Path) -> None:
    """Small multiples: a column for each variable, a row for each measure, a line for each series."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    from antiphon.plots import COLORS

    variables = list(dict.fromkeys(point["variable"] for point in points))
    size = (3 + 2.6 * len(variables), 1.2 + 2.4 * len(measures))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(measures), len(variables), sharex="col", sharey="row", squeeze=False)
    names = list(dict.fromkeys(map(series, points)))
    for row, (measure, label) in zip(grid, measures.items(), strict=True):
        for axes, variable in zip(row, variables, strict=True):
            for name, color in zip(names, COLORS, strict=False):
                line = [point for point in points if point["variable"] == variable and series(point) == name]
                values = [point["value"] for point in line]
                axes.plot(values, [point[measure] for point in line], "o-", label=name, color=color, markersize=3)
            axes.set_xscale("log", base=10 if variable == "pairs" else 2)
            axes.set_yscale("log")
            axes.grid(alpha=0.25)
        lowest, highest = (end(point[measure] for point in points) for end in (min, max))
        row[0].set_ylim(0.8 * max(lowest, highest / 100), 1.25 * highest)  # less is as good as nothing
        row[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        row[0].yaxis.set_minor_locator(NullLocator())
        row[0].yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
        row[0].set_ylabel(label)
    for axes, variable in zip(grid[-1], variables, strict=True):
        axes.set_xlabel(variable)
        values = sorted({point["value"] for point in points if point["variable"] == variable})
        axes.set_xticks(values, [f"{value:,}" for value in values], rotation=45, ha="right")
        axes.minorticks_off()
    figure.suptitle(title)
    lines, _ = grid[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False)
    figure.savefig(file, format="png")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time and memory against lengths, beams, batches, vocabulary and pairs."
    )
    parser.add_argument("--out", type=Path, default=Path("runs/growth"), help="the folder of the plots")
    parser.add_argument("--only", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--pairs", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.measure:
        print(json.dumps(MEASURES[args.measure["what"]](args.measure)))
        return
    print_facts()
    args.out.mkdir(parents=True, exist_ok=True)
    both = {"seconds": "seconds", "mib": "peak memory over before (MiB)"}
    usual, usual_training = (
        ", ".join(f"{name} {value:,}" for name, value in values.items()) for values in (USUAL, USUAL_TRAINING)
    )
    titles = {
        "decoding": f"Decoding, size {args.size}, float32; else: {usual}",
        "training": f"Training, size {args.size}: {UPDATES} updates; else: {usual_training}",
        "data": f"Reading and encoding pairs of {WORDS_A_SIDE} words a side",
    }
    found = {}
    for what in args.only:
        found[what] = POINTS[what](args)
        print(f"\n{titles[what]}")
        print_points(found[what])
        measures = {"mib": both["mib"]} if what == "training" else both
        draw(found[what], measures, titles[what], args.out / f"{what}.png")
    write_json(args.out / "growth.json", {"machine": facts(), "points": found})


if __name__ == "__main__":
    main()
