"""Cold start: how long until a new process has answered, beside what `import torch` takes alone.

    python benchmarks/cold_start.py RUN

RUN is a folder that `antiphon train` or `antiphon demo` wrote; without it, a small model of the demo's size
(its weights random, its output cut short) is written to a temporary folder. The commands take turns.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from machine import facts, print_facts
from tables import columns, spread
from turns import write_json

SENTENCE = "The cat ate the mouse."
IMPORT, HELP, GENERATE = 'python -c "import torch"', "antiphon --help", "antiphon generate RUN, one sentence"


def commands(run: Path) -> dict[str, list[str]]:
    antiphon = [str(Path(sys.executable).parent / "antiphon")]
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        IMPORT: [sys.executable, "-c", "import torch"],
        HELP: [*antiphon, "--help"],
        GENERATE: [*antiphon, "generate", str(run), "-"],
    }


def seconds(command: Sequence[str]) -> tuple[float, str]:
    """The wall time of a process that is given one sentence, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, input=SENTENCE + "\n", capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with code {done.returncode}:\n{done.stderr}")
    return taken, done.stdout


def small_run(folder: Path) -> Path:
    """An untrained model of the demo's size, saved as a run."""
    from antiphon.config import load_config
    from antiphon.run import Facts, Model
    from antiphon.tokenizer import train_tokenizers

    config = load_config("tiny", None, ("generation.max_length=8", "tokenizer.vocab_size=2000"))
    words = ["the", "cat", "a", "dog", "ate", "saw", "mouse", "bird", "small", "big", "never", "always"]
    pairs = [(f"{a} {b} {c}.", f"{c} {b} {a}.") for a in words for b in words for c in words]
    facts = Facts(len(pairs), 0, 0, 0, 16, 16, 1.0, 0.0, "")
    Model.new(config, train_tokenizers(pairs, config.tokenizer), facts).save(folder)
    return folder


def measure(run: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round; a first round fills the disk's cache and does not count."""
    taken: dict[str, list[float]] = {name: [] for name in commands(run)}
    for number in range(rounds + 1):
        for name, command in commands(run).items():
            found, printed = seconds(command)
            if number:
                taken[name].append(found)
            elif name == GENERATE:
                print(f"{SENTENCE} -> {printed.strip()}")
    return taken


def print_results(taken: dict[str, list[float]]) -> None:
    rows = [["", "seconds", "min-max", "over import torch"]]
    for name, found in taken.items():
        over = [a - b for a, b in zip(found, taken[IMPORT], strict=True)]
        rows.append([name, *spread(found, 3), f"{median(over):+.3f}"])
    print(columns(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="Wall time of cold commands, taking turns.")
    parser.add_argument("run", type=Path, nargs="?", help="a run folder; left out: an untrained model")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write everything here")
    args = parser.parse_args()
    print_facts()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or small_run(Path(folder) / "run")
        print(f"run: {args.run or 'untrained, of the preset tiny'}; {args.rounds} rounds, medians", flush=True)
        taken = measure(run, args.rounds)
    print_results(taken)
    if args.json:
        write_json(args.json, {"machine": facts(), "run": str(run), "seconds": taken})


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
