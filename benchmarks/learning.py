"""How fast a translator learns: Antiphon's recipe for Multi30k beside a plain transformer trained as published.

    python benchmarks/learning.py --target de --model recurrent --minutes 45

Both learn at the same time, one core each, from the same pairs; at the end a table tells after how many minutes each
first reached a BLEU on the dev set. Published is what gave 41.02 and 61.8 BLEU on test_2016 (Wu and others, 2021): 4+4
layers, 128 wide, post-norm, 10,000 shared tokens, batches of 4,096, Adam at 5e-3, risen over 2,000 updates and falling
with the inverse square root, label smoothing, dropout of 0.3 between layers alone; in torch's `nn.Transformer` and a
plain loop. Antiphon is recipes/multi30k/MODEL.toml. Outputs are greedy, of all dev sources, and measured with
sacreBLEU on the text as it is; the time that measuring takes does not count, for either.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from bare_transformer import BareTransformer, learn_as_published, translate
from machine import print_facts
from tables import columns

import antiphon
from antiphon.config import ModelConfig, TokenizerConfig, changed, load_config
from antiphon.data.batches import Batch, EncodedPairs
from antiphon.data.pairs import Pair, read_pairs
from antiphon.ids import EOS
from antiphon.metrics import bleu
from antiphon.tokenizer import train_tokenizers

RECIPE = Path(__file__).parent.parent / "recipes" / "multi30k"
KINDS = ("antiphon", "published")
PUBLISHED = ModelConfig(d_model=128, d_ff=256, num_heads=4, encoder_layers=4, decoder_layers=4, dropout=0.3)
TOKENS, BATCH_TOKENS, LONGEST = 10_000, 4096, 256
STEP = 2  # BLEU between the lines of the table

Curve = list[tuple[float, float]]  # minutes of training, BLEU


def learn_published(pairs: Sequence[Pair], dev: Sequence[Pair], minutes: float, every: float) -> Curve:
    """A plain transformer; measured whenever so many minutes of training are over."""
    torch.manual_seed(1)
    tokenizers = train_tokenizers(pairs, TokenizerConfig(source="bpe", target="bpe", joint=True, vocab_size=TOKENS))
    data = EncodedPairs(pairs, tokenizers, LONGEST)
    model = BareTransformer(PUBLISHED, tokenizers.target.vocab_size)
    sources, curve, spent = [[*tokenizers.source.encode(pair.source), EOS] for pair in dev], [], 0.0
    steps = learn_as_published(model, _endless(data))
    while spent < 60 * minutes:
        start = time.perf_counter()
        next(steps)
        spent += time.perf_counter() - start
        if spent >= 60 * every * (len(curve) + 1):
            outputs = [tokenizers.target.decode(ids) for ids in translate(model, sources)]
            curve.append((spent / 60, _score(outputs, dev)))
    return curve


def _endless(data: EncodedPairs) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from data.batches(BATCH_TOKENS, 1, epoch)
        epoch += 1


def _score(outputs: Sequence[str], dev: Sequence[Pair]) -> float:
    return bleu(outputs, [[pair.target] for pair in dev])[0]


def learn_antiphon(pairs: Sequence[Pair], dev: Sequence[Pair], model: str, minutes: float, every: float) -> Curve:
    """As `antiphon train --config` does it. Minutes are its own, with the time for validations."""
    limits = {
        "max_steps": 0,
        "max_minutes": minutes,
        "validations": round(minutes / every),
        "eval_pairs": len(dev),
        "metric": "bleu",
    }
    config = changed(load_config(None, RECIPE / f"{model}.toml"), {"training": limits})
    with tempfile.TemporaryDirectory() as folder:
        antiphon.train(pairs, folder, dev=dev, config=config)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").open(encoding="utf-8")]
    curve, spent = [], 0.0
    for line in lines:
        if "tokens_per_second" in line:
            spent += line["target_tokens"] / line["tokens_per_second"]
        elif "dev_bleu" in line:
            curve.append((spent / 60, line["dev_bleu"]))
    return curve


def reached(curve: Curve, level: float) -> float | None:
    """The minutes after which BLEU was first at least so high."""
    return next((minutes for minutes, score in curve if score >= level), None)


def print_curves(curves: dict[str, Curve]) -> None:
    """A line for each BLEU that Antiphon reached: the minutes of both."""
    ours, theirs = (curves[kind] for kind in KINDS)
    best = max(score for _, score in ours)
    rows = [["dev BLEU", "Antiphon, minutes", "as published, minutes", "times"]]
    for level in [*range(10, int(best) + 1, STEP), round(best, 2)]:
        mine, other = reached(ours, level), reached(theirs, level)
        assert mine is not None
        told = ("not yet", "") if other is None else (f"{other:.1f}", f"{other / mine:.1f}")
        rows.append([str(level), f"{mine:.1f}", *told])
    print(columns(rows))
    for kind, curve in curves.items():
        print(f"{kind}: " + " ".join(f"{minutes:.1f}:{score:.2f}" for minutes, score in curve))


def side_by_side(args: argparse.Namespace) -> dict[str, Curve]:
    """Both contenders at once, each in a process with a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    processes = {}
    for kind, core in zip(KINDS, cores[: len(KINDS)], strict=True):
        command = ["taskset", "-c", str(core), sys.executable, __file__, *sys.argv[1:], "--contender", kind]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        processes[kind] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    outputs = {kind: process.communicate()[0] for kind, process in processes.items()}
    for kind, process in processes.items():
        if process.returncode:
            sys.exit(f"learning.py: {kind} failed (see above).")
    return {kind: json.loads(text.splitlines()[-1]) for kind, text in outputs.items()}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="BLEU against minutes, beside a plain transformer.")
    parser.add_argument("--target", choices=("de", "fr"), default="de")
    parser.add_argument(
        "--model", choices=("recurrent", "transformer"), default="recurrent", help="of recipes/multi30k"
    )
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--every", type=float, default=3, help="minutes of training between measurements")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"))
    parser.add_argument("--contender", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if not args.contender:
        print_facts()
        print_curves(side_by_side(args))
        return
    pairs, dev = (
        read_pairs([args.data / f"{part}.{language}.gz" for language in ("en", args.target)])
        for part in ("train", "val")
    )
    if args.contender == "published":
        curve = learn_published(pairs, dev, args.minutes, args.every)
    else:
        curve = learn_antiphon(pairs, dev, args.model, args.minutes, args.every)
    print(json.dumps(curve))


if __name__ == "__main__":
    main()
