"""What contenders are asked to do, the same for all, and the files it travels in.

Standard library only: peers import it, with an interpreter of their own. Sentences are files of token ids, a line each,
EOS included; batches are JSON lines of ids without padding. Ids are Antiphon's: 0 PAD, 1 UNK, 2 BOS, 3 EOS.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from turns import Turns

PAD, UNK, BOS, EOS = 0, 1, 2, 3
Ids = list[list[int]]


def contend(tasks: Mapping[str, Callable[[dict[str, Any], Turns], None]]) -> None:
    """The main function of a peer's script: does what `--contender SPEC` asks for under "task"."""
    parser = argparse.ArgumentParser(description="A contender; training.py, translation.py and cold_start.py start it.")
    parser.add_argument("--contender", required=True, type=json.loads, help="what to do, as JSON")
    spec = parser.parse_args().contender
    tasks[spec["task"]](spec, Turns())


def write_sentences(file: Path, sentences: Iterable[Sequence[int]]) -> None:
    file.write_text("".join(" ".join(map(str, ids)) + "\n" for ids in sentences), encoding="utf-8")


def read_sentences(file: str) -> Ids:
    return [[int(word) for word in line.split()] for line in Path(file).read_text(encoding="utf-8").splitlines()]


def write_batches(file: Path, batches: Iterable[tuple[Ids, Ids]]) -> None:
    """Sources and targets, both ending with EOS."""
    file.write_text("".join(json.dumps(batch) + "\n" for batch in batches), encoding="utf-8")


def read_batches(file: str) -> list[tuple[Ids, Ids]]:
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [(source, target) for source, target in map(json.loads, lines)]


def padded(rows: Ids, fill: int = PAD) -> Ids:
    """Rows of one length."""
    longest = max(map(len, rows))
    return [[*row, *[fill] * (longest - len(row))] for row in rows]


def num_tokens(rows: Ids) -> int:
    return sum(map(len, rows))


def groups_by_length(sentences: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Indices of so many sentences of like lengths, the longest first."""
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]), reverse=True)
    return [order[start : start + size] for start in range(0, len(order), size)]


def translate_in_turns(
    spec: Mapping[str, Any],
    turns: Turns,
    sources: Sequence[Any],
    translate: Callable[[Sequence[Any]], Sequence[Any]],
    length: Callable[[Any], int] = len,
    shown: Callable[[Any], Any] = lambda output: output,
) -> None:
    """A step is a pass over all sources; with spec["alone"], one source by itself, whose milliseconds are collected.

    length: tokens of an output, without EOS. shown: an output as JSON; the first pass is written to spec["outputs"].
    """
    alone = cycle(sources)
    while turns.wanted():
        asked = [next(alone)] if spec["alone"] else sources
        begin = time.perf_counter()
        outputs = translate(asked)
        seconds = time.perf_counter() - begin
        turns.count(sentences=len(asked), tokens=sum(map(length, outputs)))
        if spec["alone"]:
            turns.collect(ms=1000 * seconds)
        elif spec.get("outputs") and not Path(spec["outputs"]).exists():
            Path(spec["outputs"]).write_text(json.dumps(list(map(shown, outputs))), encoding="utf-8")
