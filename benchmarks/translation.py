"""Translation with a trained model: Antiphon against CTranslate2 and Hugging Face's `generate`, on the same weights.

    python benchmarks/peers.py ctranslate2 huggingface
    python benchmarks/translation.py RUN --antiphon "precision=float32" --antiphon "precision=int8 workers=2"

RUN is a folder that `antiphon train` wrote with --set model.positions=sinusoidal, which every peer knows; it is
exported for each. All get the same 1,000 sentences: peers as token ids or pieces and give such back, Antiphon as text,
so that its tokenizing counts and theirs does not. Loading does not count. The peers' best settings are searched first,
for each mode (best_settings.py; --settings FILE keeps them); then all take turns (turns.py). The BLEU of what each put
out, and how much of it is what Antiphon's first contender (float32) put out, show that quality is alike.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from best_settings import Settings, entry, search_ctranslate2, search_huggingface
from machine import facts, print_facts
from peers import export, told
from tables import columns, ratio, spread
from tasks import translate_in_turns, write_sentences
from turns import Entry, Turns, play, write_json

import antiphon
from antiphon.data.pairs import Pair, read_pairs
from antiphon.metrics import bleu

MODES = {"greedy": (False, False), "beam": (True, False), "greedy-alone": (False, True), "beam-alone": (True, True)}
TITLES = {
    "greedy": "Greedy",
    "beam": "Beam {}",
    "greedy-alone": "Greedy, one sentence by itself",
    "beam-alone": "Beam {}, one sentence by itself",
}
ALONE = 100  # sentences in a turn of a mode that takes them one by one
SEARCHED = {"ctranslate2": 512, "huggingface": 256}  # sentences that settings are searched with


def translate_antiphon(spec: Mapping[str, Any], turns: Turns) -> None:
    """The text of each sentence in, text out. spec["settings"]: how the model is loaded."""
    if "threads" in spec:
        torch.set_num_threads(spec["threads"])
    model = antiphon.load(spec["run"], **spec["settings"])
    wanted = {name: spec[name] for name in ("length_penalty", "max_length")}

    def call(lines: Sequence[str]) -> list[Any]:
        return [found[0] for found in model.outputs(lines, beam_size=spec["beam"], **wanted)]

    lines = Path(spec["lines"]).read_text(encoding="utf-8").splitlines()
    translate_in_turns(spec, turns, lines, call, lambda output: len(output.tokens), lambda output: output.text)


def write_inputs(pairs: Sequence[Pair], model: antiphon.Model, folder: Path) -> dict[str, dict[str, str]]:
    """All sentences, some of them to search each peer's settings with, and few for those alone: as text and as ids."""
    files = {}
    for name, number in (("all", len(pairs)), *SEARCHED.items(), ("few", ALONE)):
        chosen = pairs[:: max(1, len(pairs) // number)][:number]
        lines, sentences = folder / f"{name}.txt", folder / f"{name}.ids"
        lines.write_text("".join(pair.source + "\n" for pair in chosen), encoding="utf-8")
        write_sentences(sentences, (model.source_ids(pair.source) for pair in chosen))
        files[name] = {"lines": str(lines), "sentences": str(sentences)}
    return files


def best_of(peer: str, mode: str, task: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Settings]:
    """A peer's settings in a mode, by the words they are printed with: as kept in a file, or searched now."""
    kept = json.loads(args.settings.read_text(encoding="utf-8")) if args.settings and args.settings.exists() else {}
    key = f"{args.run} {TITLES[mode].format(args.beam)} {peer}"
    if key not in kept:
        print(f"\n{mode}: searching the best settings of {peer}", flush=True)
        if peer == "ctranslate2":
            searched = {"best": search_ctranslate2(task)}
        else:
            searched = {"as it comes": search_huggingface(task, False), "tuned": search_huggingface(task, True)}
        for trials in searched.values():
            trials.print_results()
        kept[key] = {name: asdict(trials.best) for name, trials in searched.items() if trials.best is not None}
        if args.settings:
            write_json(args.settings, kept)
    return {name: Settings(**found) for name, found in kept[key].items()}


def entries(
    mode: str, files: Mapping[str, Mapping[str, str]], exports: Path, args: argparse.Namespace
) -> dict[str, Entry]:
    """The contenders of a mode, by the name they are printed with; Antiphon's first."""
    wide, alone = MODES[mode]
    asked = {"beam": args.beam if wide else 1, "alone": alone, "length_penalty": 1.0, "max_length": args.max_length}
    task = {**asked, **files["few" if alone else "all"]}
    found = {
        f"Antiphon {words}".strip(): Entry(__file__, {**task, "run": str(args.run), **settings(words)})
        for words in args.antiphon or [""]
    }
    for peer in args.peers:
        exported = {**task, "model": export(args.run, peer, exports)}
        searched = exported if alone else {**exported, **files[peer]}
        for how, chosen in best_of(peer, mode, searched, args).items():
            found[f"{peer} {how}: {chosen.told()}"] = entry(peer, chosen, exported)
    return found


def with_outputs(contestants: Mapping[str, Entry], folder: Path) -> dict[str, Entry]:
    """Each with a file of its own for what it puts out."""
    return {
        name: replace(one, spec={**one.spec, "outputs": str(folder / f"outputs.{number}.json")})
        for number, (name, one) in enumerate(contestants.items())
    }


def settings(words: str) -> dict[str, Any]:
    """name=value words -> another run and threads, where they are named, and what else `antiphon.load` is told."""
    pairs = [word.partition("=") for word in words.split()]
    found = {name: int(value) if value.isdigit() else value for name, _, value in pairs}
    own = {name: found.pop(name) for name in ("run", "threads") if name in found}
    return {**own, "settings": found}


def texts_of(one: Entry, model: antiphon.Model) -> list[str]:
    """What a contender put out in its first pass."""
    outputs = json.loads(Path(one.spec["outputs"]).read_text(encoding="utf-8"))
    return [output if isinstance(output, str) else model.tokenizers.target.decode(output) for output in outputs]


def print_throughput(
    found: Mapping[str, Sequence[Mapping[str, Any]]], texts: Mapping[str, Sequence[str]], references: Sequence[str]
) -> None:
    rows = [["", "sentences/s", "min-max", "tokens/s", "BLEU", "same output", "peak MiB"]]
    rates = {name: [turn["sentences"] / turn["seconds"] for turn in turns] for name, turns in found.items()}
    first = next(iter(texts.values()))
    for name, turns in found.items():
        tokens = spread([turn["tokens"] / turn["seconds"] for turn in turns])[0]
        score = bleu(texts[name], [[reference] for reference in references])[0]
        same = sum(a == b for a, b in zip(texts[name], first, strict=True)) / len(first)
        memory = f"{turns[-1]['peak_mib']:,.0f}"
        rows.append([name, *spread(rates[name], 1), tokens, f"{score:.2f}", f"{100 * same:.1f}%", memory])
    print(columns(rows))
    print_ratios(rates, "sentences/s")


def print_latency(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    rows = [["", "ms, median", "of rounds", "95th percentile", "peak MiB"]]
    middles = {name: [median(turn["ms"]) for turn in turns] for name, turns in found.items()}
    for name, turns in found.items():
        highest = quantiles([ms for turn in turns for ms in turn["ms"]], n=20)[-1]
        rows.append([name, *spread(middles[name], 1), f"{highest:,.1f}", f"{turns[-1]['peak_mib']:,.0f}"])
    print(columns(rows))
    print_ratios({name: [1 / ms for ms in found] for name, found in middles.items()}, "1 / ms")


def print_ratios(rates: Mapping[str, Sequence[float]], unit: str) -> None:
    """Antiphon's fastest over each of the others."""
    best = max((name for name in rates if name.startswith("Antiphon")), key=lambda name: median(rates[name]))
    for name, theirs in rates.items():
        if name != best:
            print(f"{unit}: {best} / {name.partition(':')[0]}: {ratio(rates[best], theirs)}")


def compare(mode: str, contestants: Mapping[str, Entry], args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    steps = dict.fromkeys(contestants, ALONE if MODES[mode][1] else 1)
    return play(contestants, args.rounds, steps, steps)


def run_mode(
    mode: str,
    files: Mapping[str, Mapping[str, str]],
    folder: Path,
    pairs: Sequence[Pair],
    model: antiphon.Model,
    args: argparse.Namespace,
) -> dict[str, list[dict[str, Any]]]:
    """All rounds of a mode, and its table."""
    with tempfile.TemporaryDirectory() as outputs:
        contestants = with_outputs(entries(mode, files, args.exports or folder, args), Path(outputs))
        found = compare(mode, contestants, args)
        print(f"\n{TITLES[mode].format(args.beam)}")
        if MODES[mode][1]:
            print_latency(found)
        else:
            texts = {name: texts_of(one, model) for name, one in contestants.items()}
            print_throughput(found, texts, [pair.target for pair in pairs])
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Translation of a test set, in turns with peers on the same weights.")
    parser.add_argument("run", type=Path, nargs="?", help="a run folder that `antiphon train` wrote")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="alone: one by one, for latency")
    parser.add_argument("--peers", nargs="*", choices=SEARCHED, default=list(SEARCHED))
    words = (
        'how Antiphon is loaded, e.g. "precision=int8 threads=1", or "run=FOLDER" for another model; '
        "may be repeated; the first is the reference"
    )
    parser.add_argument("--antiphon", action="append", metavar="SETTINGS", help=words)
    parser.add_argument("--pairs", help="test pairs, as `antiphon evaluate` reads them; left out: of --data")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"))
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=128, help="tokens of an output, for all alike")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", type=Path, help="a file that the peers' best settings are kept in and taken from")
    parser.add_argument("--exports", type=Path, help="a folder that exports are kept in and taken from")
    parser.add_argument("--json", type=Path, help="also write everything here")
    parser.add_argument("--contender", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.contender:
        translate_antiphon(args.contender, Turns())
        return
    print_facts()
    print(" | ".join(told(peer) for peer in args.peers))
    sides = [args.data / f"test_2016_flickr.{language}.gz" for language in ("en", "de")]
    pairs = read_pairs(args.pairs or sides)[: args.sentences]
    model = antiphon.load(args.run)
    print(f"{len(pairs):,} sentences; {args.run}; at most {args.max_length} tokens an output; {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        files = write_inputs(pairs, model, Path(folder))
        record = {mode: run_mode(mode, files, Path(folder), pairs, model, args) for mode in args.modes}
    if args.json:
        asked = {name: str(value) for name, value in vars(args).items()}
        versions = [told(peer) for peer in args.peers]
        write_json(args.json, {"machine": facts(), "peers": versions, "asked": asked, "found": record})


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
