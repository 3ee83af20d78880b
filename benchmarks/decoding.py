"""Decoding throughput: Antiphon's running batch against a plain greedy loop around `nn.Transformer`.

    python benchmarks/decoding.py --size small --sentences 200

All decode the same sentences to the same number of tokens (EOS is never chosen), with random weights: what is
measured is the machinery and not the language. Antiphon's time is told apart by what it went into: encoding,
the model's steps, and everything else (choosing tokens, moving rows). Processes and turns as in training.py.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bare_transformer import BareTransformer, greedy
from machine import facts, print_facts
from operators import print_operators, profiler
from tables import columns, ratio, spread
from torch import Tensor
from turns import Entry, Turns, environment, play, write_json
from workload import SIZES, VOCABULARY, config, network, read_ids, write_ids

from antiphon.config import GenerationConfig
from antiphon.decoding.generate import MAX_ROWS, decode
from antiphon.decoding.search import make_search
from antiphon.ids import EOS
from antiphon.model.seq2seq import Seq2Seq
from antiphon.model.state import DecodeState

KINDS = ("bare", "transformer", "recurrent")


class Endless:
    """A network that never chooses EOS, and that keeps the time of its starts and steps."""

    def __init__(self, network: Seq2Seq) -> None:
        self.network = network.eval()
        self.seconds = {"start": 0.0, "step": 0.0}
        self.num_steps = 0

    def start(self, sources: Sequence[Sequence[int]]) -> DecodeState:
        begin = time.perf_counter()
        state = self.network.start(sources)
        self.seconds["start"] += time.perf_counter() - begin
        return state

    def step(self, state: DecodeState, tokens: Sequence[int]) -> Tensor:
        begin = time.perf_counter()
        logits = self.network.step(state, tokens)
        logits[:, EOS] = -torch.inf
        self.seconds["step"] += time.perf_counter() - begin
        self.num_steps += 1
        return logits


def sentences(spec: dict[str, Any]) -> list[list[int]]:
    """Source ids with EOS, spread over the whole file."""
    data = read_ids(Path(spec["ids"]))
    stride = max(1, len(data) // spec["sentences"])
    return [data.sources[index] for index in range(0, len(data), stride)][: spec["sentences"]]


def decode_antiphon(spec: dict[str, Any], turns: Turns) -> None:
    sources = sentences(spec)
    model = Endless(network(config(spec["size"], spec["kind"], 4096, "float32").model))
    settings = GenerationConfig(beam_size=spec["beam"])
    groups = [[source] for source in sources] if spec["alone"] else [sources]
    while turns.wanted():
        before = dict(model.seconds)
        for group in groups:
            decode(model, group, [make_search(settings, spec["length"]) for _ in group])
        spent = {name: seconds - before[name] for name, seconds in model.seconds.items()}
        turns.count(sentences=len(sources), **spent)


def decode_bare(spec: dict[str, Any], turns: Turns) -> None:
    """Batches of like lengths, as large as Antiphon's."""
    sources = sorted(sentences(spec), key=len)
    torch.manual_seed(1)
    model = BareTransformer(config(spec["size"], "transformer", 4096, "float32").model, VOCABULARY).eval()
    while turns.wanted():
        for begin in range(0, len(sources), MAX_ROWS):
            greedy(model, sources[begin : begin + MAX_ROWS], spec["length"])
        turns.count(sentences=len(sources))


def named_specs(args: argparse.Namespace, ids: Path) -> dict[str, dict[str, Any]]:
    """The contenders, by the name they are printed with."""
    shared = {"size": args.size, "ids": str(ids), "length": args.length, "sentences": args.sentences}
    specs = {}
    if "bare" in args.kinds:
        specs["nn.Transformer without a cache, greedy"] = {**shared, "kind": "bare"}
    for kind in args.kinds:
        if kind != "bare":
            for beam in args.beam:
                how = "greedy" if beam == 1 else f"beam {beam}"
                specs[f"Antiphon {kind}, {how}"] = {**shared, "kind": kind, "beam": beam, "alone": False}
    if "transformer" in args.kinds:
        alone = {"kind": "transformer", "beam": 1, "alone": True, "sentences": min(args.sentences, 20)}
        specs["Antiphon transformer, greedy, one by one"] = {**shared, **alone}
    return specs


def print_results(counted: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> None:
    rows = [["", "sentences/s", "min-max", "tokens/s", "encode", "step", "rest", "ms a sentence"]]
    rates = {}
    for name, turns in counted.items():
        rates[name] = [turn["sentences"] / turn["seconds"] for turn in turns]
        total = sum(turn["seconds"] for turn in turns)
        parts = [sum(turn.get(part, 0.0) for turn in turns) / total for part in ("start", "step")]
        shares = [f"{100 * part:.0f}%" for part in (*parts, 1 - sum(parts))]
        tokens = spread([rate * args.length for rate in rates[name]])[0]
        latency = spread([1000 / rate for rate in rates[name]], 1)[0]
        rows.append([name, *spread(rates[name], 1), tokens, *(shares if sum(parts) else [""] * 3), latency])
    print(columns(rows))
    first, *others = rates
    if first.startswith("nn.Transformer"):
        for name in others:
            print(f"{name} / {first}: {ratio(rates[name], rates[first])}")


def profile(args: argparse.Namespace, ids: Path) -> None:
    """Operators of a decode in this process, a step of the running batch."""
    for name, spec in named_specs(args, ids).items():
        if spec["kind"] == "bare":
            continue
        sources = sentences(spec)[:MAX_ROWS]
        model = Endless(network(config(args.size, spec["kind"], 4096, "float32").model))
        settings = GenerationConfig(beam_size=spec["beam"])
        groups = [[source] for source in sources] if spec["alone"] else [sources]
        run = partial(decode, model)
        run(groups[0], [make_search(settings, spec["length"]) for _ in groups[0]])
        model.num_steps = 0
        with profiler() as found:
            for group in groups:
                run(group, [make_search(settings, spec["length"]) for _ in group])
        print(f"\n{name}; {len(sources)} sentences, encoding included")
        print_operators(found, model.num_steps)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Decoding throughput, in turns with a bare nn.Transformer.")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="who takes part")
    parser.add_argument("--beam", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--length", type=int, default=20, help="tokens of each output")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"))
    parser.add_argument("--malloc", choices=("default", "tuned"), default="default", help="glibc's, for all alike")
    parser.add_argument("--threads", type=int, help="of each contender; left out: torch's own choice")
    parser.add_argument("--profile", action="store_true", help="operators of each decode instead of a comparison")
    parser.add_argument("--json", type=Path, help="also write everything here")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.contender:
        spec = json.loads(args.contender)
        (decode_bare if spec["kind"] == "bare" else decode_antiphon)(spec, Turns())
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    print_facts()
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.tsv"
        told = write_ids(args.data, ids)
        asked = f"{args.sentences} sentences to {args.length} tokens each, random weights, float32"
        print(f"data: {told}; size {args.size}; {asked}; malloc {args.malloc}", flush=True)
        if args.profile:
            profile(args, ids)
            return
        specs = named_specs(args, ids)
        once = dict.fromkeys(specs, 1)
        variables = environment(args.threads, args.malloc)
        entries = {name: Entry(__file__, spec, variables) for name, spec in specs.items()}
        counted = play(entries, args.rounds, once, once)
    print_results(counted, args)
    if args.json:
        asked_all = {name: str(value) for name, value in vars(args).items()}
        write_json(args.json, {"machine": facts(), "data": told, "asked": asked_all, "found": counted})


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
