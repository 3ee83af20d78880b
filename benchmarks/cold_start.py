"""Cold start: how long until a new process has answered, beside what `import torch` takes alone.

    python benchmarks/cold_start.py RUN
    python benchmarks/cold_start.py RUN --peers ctranslate2 huggingface

RUN is a folder that `antiphon train` or `antiphon demo` wrote; without it, a small model of the demo's size
(its weights random, its output cut short) is written to a temporary folder. The commands take turns. Peers get the
same model, exported, with no more imports than a first answer needs: Hugging Face with its tokenizer, text in and text
out; CTranslate2 with pieces in and out, so without a tokenizer.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from machine import facts, print_facts
from peers import export, interpreter
from tables import columns, spread
from turns import write_json

SENTENCE = "The cat ate the mouse."
IMPORT, HELP, GENERATE = 'python -c "import torch"', "antiphon --help", "antiphon generate RUN, one sentence"


PEERS = {
    "huggingface": """
import sys
from transformers import AutoTokenizer, M2M100ForConditionalGeneration
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = M2M100ForConditionalGeneration.from_pretrained(sys.argv[1])
found = model.generate(**tokenizer(sys.stdin.readline().strip(), return_tensors="pt"))
print(tokenizer.batch_decode(found, skip_special_tokens=True)[0])
""",
    "ctranslate2": """
import sys
import ctranslate2
translator = ctranslate2.Translator(sys.argv[1])
print(*translator.translate_batch([sys.stdin.readline().split()], beam_size=1)[0].hypotheses[0])
""",
}


@dataclass(frozen=True)
class Command:
    """A process, and the line it is given."""

    words: Sequence[str]
    line: str = SENTENCE


def commands(run: Path, peers: Sequence[str], exports: Path) -> dict[str, Command]:
    antiphon = [str(Path(sys.executable).parent / "antiphon")]
    found = {
        "python -c pass": Command([sys.executable, "-c", "pass"]),
        IMPORT: Command([sys.executable, "-c", "import torch"]),
        HELP: Command([*antiphon, "--help"]),
        GENERATE: Command([*antiphon, "generate", str(run), "-"]),
    }
    for peer in peers:
        line = pieces(run) if peer == "ctranslate2" else SENTENCE
        found[f"{peer}, one sentence"] = Command(
            [interpreter(peer), "-c", PEERS[peer], export(run, peer, exports)], line
        )
    return found


def pieces(run: Path) -> str:
    """The sentence as the names of its tokens."""
    import antiphon

    source = antiphon.load(run).tokenizers.source
    names = {token: name for name, token in source.vocabulary.items()}
    return " ".join(names[token] for token in source.encode(SENTENCE))


def seconds(command: Command) -> tuple[float, str]:
    """The wall time of a process that is given one sentence, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command.words, input=command.line + "\n", capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command.words)}: ended with code {done.returncode}:\n{done.stderr}")
    return taken, done.stdout


def small_run(folder: Path) -> Path:
    """An untrained model of the demo's size, saved as a run."""
    from antiphon.config import load_config
    from antiphon.run import Model
    from antiphon.text_side import Facts
    from antiphon.tokenizer import train_tokenizers

    config = load_config("tiny", None, ("generation.max_length=8", "tokenizer.vocab_size=2000"))
    words = ["the", "cat", "a", "dog", "ate", "saw", "mouse", "bird", "small", "big", "never", "always"]
    pairs = [(f"{a} {b} {c}.", f"{c} {b} {a}.") for a in words for b in words for c in words]
    facts = Facts(len(pairs), 0, 0, 0, 16, 16, 1.0, 0.0, "")
    Model.new(config, train_tokenizers(pairs, config.tokenizer), facts).save(folder)
    return folder


def measure(asked: Mapping[str, Command], rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round; a first round fills the disk's cache and does not count."""
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(rounds + 1):
        for name, command in asked.items():
            found, printed = seconds(command)
            if number:
                taken[name].append(found)
            elif name.endswith("one sentence"):
                print(f"{name}: {command.line} -> {printed.strip()}")
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
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help="that peers.py has installed")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write everything here")
    args = parser.parse_args()
    print_facts()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or small_run(Path(folder) / "run")
        print(f"run: {args.run or 'untrained, of the preset tiny'}; {args.rounds} rounds, medians", flush=True)
        taken = measure(commands(run, args.peers, Path(folder)), args.rounds)
    print_results(taken)
    if args.json:
        write_json(args.json, {"machine": facts(), "run": str(run), "seconds": taken})


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
