"""Recipes: each is whole, and the command that makes a table of one does what it says, on toy data."""

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from types import ModuleType
from typing import Any, TextIO

import pytest

from antiphon.config import load_config
from antiphon.text_side import members_of

RECIPES = Path(__file__).parent.parent / "recipes"
FOLDERS = sorted(file.parent for file in RECIPES.glob("*/recipe.toml"))


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """recipes/table.py, which keeps and writes everything in a folder of the test's own."""
    monkeypatch.syspath_prepend(str(RECIPES))
    for name in ("recipe", "running", "table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module, recipe = importlib.import_module("table"), importlib.import_module("recipe")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text("# Results\n\n## Speed\n", encoding="utf-8")
    for one in (module, recipe):
        monkeypatch.setattr(one, "ROOT", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "docs" / "results.md")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield module
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_recipe_is_whole(folder: Path, table: ModuleType) -> None:
    recipe = table.read_recipe(folder)
    models = [file for file in folder.glob("*.toml") if file.name != "recipe.toml"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    commands = [f"python recipes/table.py recipes/{folder.name} --model {model.stem} " for model in models]
    assert any(command in readme for command in commands)
    for model in models:
        load_config(None, model)
    for figures in recipe.published.values():
        assert figures.keys() <= {*recipe.tasks, "mean"}
    for model in [name for pair in recipe.begin_from.items() for name in pair]:
        assert (folder / f"{model}.toml").exists()


TOY = """
title = "Letters"
folder = "letters"
train = "{task}.txt"
measured = "{task}.txt"
measure = "share"
others = ["wer"]
line = "(.+) = (.+)"
tasks = ["upper", "lower"]
tags = ["U", "L"]
note = "A toy."
[published.somebody]
upper = 12.5
mean = 50.0
"""
SCORE = """
import json, sys
from pathlib import Path
from antiphon.data.pairs import read_pairs
pairs, outputs = read_pairs(sys.argv[1]), Path(sys.argv[2]).read_text().splitlines()
tags = {pair.source[0] for pair in pairs if pair.source[1] == " "}
print(json.dumps({"share": len(outputs) / len(pairs), "tags": sorted(tags)}))
"""
SMALL = """
[model]
d_model = 16
d_ff = 16
num_heads = 2
encoder_layers = 1
decoder_layers = 1
[training]
max_steps = 3
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A recipe, and its data in `data` beside it."""
    (tmp_path / "toy").mkdir()
    for name, text in {"recipe.toml": TOY, "score.py": SCORE, "transformer.toml": SMALL}.items():
        (tmp_path / "toy" / name).write_text(text, encoding="utf-8")
    (tmp_path / "data" / "letters").mkdir(parents=True)
    for task in ("upper", "lower"):
        lines = "".join(f"{task} {i:02d} = {task} {i:02d}\n" for i in range(20))
        (tmp_path / "data" / "letters" / f"{task}.txt").write_text(lines, encoding="utf-8")
    return tmp_path / "toy"


def make(table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What docs/results.md holds after the command."""
    monkeypatch.setattr(sys, "argv", ["table.py", str(toy), "--data", str(toy.parent / "data"), *words])
    table.main()
    return str(table.RESULTS.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_table_is_made_once_with_what_was_measured(
    table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = make(table, toy, monkeypatch, "--seeds", "1", "2", "--ensemble")
    kept = toy.parent / "runs" / "recipes" / "toy"
    reports = {file.parent.name: json.loads(file.read_text()) for file in kept.glob("transformer/*/report.json")}
    assert reports.keys() == {"upper-1", "upper-2", "lower-1", "lower-2"}
    assert len(list(kept.glob("ensembles/*.json"))) == 2
    assert {report["share"] for report in reports.values()} == {1.0}
    cells = {line.split(" | ")[0][2:]: line.strip("| ").split(" | ") for line in written.splitlines() if "|" in line}
    assert cells["upper"][1] == "1.00 ± 0.00"
    assert cells["upper"][-1] == "12.50"
    assert cells["mean"][-1] == "50.00"
    assert "--seeds 1 2 --ensemble" in written
    weights = {file: file.stat().st_mtime_ns for file in kept.rglob("model.safetensors")}
    assert make(table, toy, monkeypatch, "--seeds", "1", "2", "--ensemble") == written
    recipe = toy / "recipe.toml"
    recipe.write_text(TOY.replace("[published", "[search]\nbeam = 2\n[published"), encoding="utf-8")
    assert "beam 2" in make(table, toy, monkeypatch, "--seeds", "1", "2", "--ensemble")
    assert {
        json.loads(file.read_text())["search"]["beam"] for file in kept.rglob("*.json") if "report" in file.name
    } == {2}
    assert {file: file.stat().st_mtime_ns for file in kept.rglob("model.safetensors")} == weights
    upper = toy.parent / "data" / "letters" / "upper.txt"
    learned = upper.read_text(encoding="utf-8")
    upper.write_text(learned + "z = Z\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"upper-1: was begun with other pairs than its recipe names now; "):
        make(table, toy, monkeypatch, "--seeds", "1")
    upper.write_text(learned, encoding="utf-8")
    (toy / "transformer.toml").write_text(SMALL.replace("max_steps = 3", "max_steps = 4"), encoding="utf-8")
    with pytest.raises(
        SystemExit, match=r"upper-1: was begun with training.max_steps 3, and in .*transformer.toml it is 4; "
    ):
        make(table, toy, monkeypatch, "--seeds", "1")


@pytest.mark.slow
def test_one_model_for_all_tasks_is_measured_on_each(
    table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = make(table, toy, monkeypatch, "--together", "--seeds", "1", "2", "--ensemble")
    kept = toy.parent / "runs" / "recipes" / "toy"
    assert {folder.name for folder in kept.glob("transformer/*")} == {"together-1", "together-2"}
    assert json.loads((kept / "transformer" / "together-1" / "facts.json").read_text())["train_pairs"] == 40
    for task, tag in (("upper", "U"), ("lower", "L")):
        for report in (
            kept / "transformer" / "together-2" / f"report-{task}.json",
            kept / "ensembles" / f"{task}-together-transformer-1+transformer-2.json",
        ):
            assert json.loads(report.read_text())["tags"] == [tag]
    assert "transformer, one for all: share" in written
    assert "--seeds 1 2 --together --ensemble" in written
    assert "<!-- table: toy transformer together -->" in written


@pytest.mark.slow
def test_a_model_that_begins_from_the_one_for_all_is_trained_after_it(
    table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = TOY.replace("[published", '[begin_from]\ntuned = "transformer"\n[published')
    found = found.replace('["upper", "lower"]', '["up/one"]\nalso = ["lower"]').replace("upper =", '"up/one" =')
    (toy / "recipe.toml").write_text(found, encoding="utf-8")
    (toy / "tuned.toml").write_text("[training]\nmax_steps = 2\n", encoding="utf-8")
    letters = toy.parent / "data" / "letters"
    (letters / "up").mkdir()
    (letters / "upper.txt").rename(letters / "up" / "one.txt")
    written = make(table, toy, monkeypatch, "--model", "tuned", "--seeds", "1")
    kept = toy.parent / "runs" / "recipes" / "toy"
    origin, tuned = kept / "transformer" / "together-1", kept / "tuned" / "up-one-1"
    assert json.loads((origin / "facts.json").read_text())["train_pairs"] == 40
    facts = json.loads((tuned / "facts.json").read_text())
    assert (facts["begun_from"], facts["train_pairs"]) == (str(origin), 20)
    assert {file.name for file in origin.glob("report*.json")} == {"report-up-one.json"}
    assert json.loads((tuned / "report.json").read_text())["tags"] == ["U"]
    assert "| up/one | 1.00 | " in written
    origin.rename(origin.with_name("removed"))
    with pytest.raises(SystemExit, match=r"up-one-1: was begun from another model than is in .*together-1 now; remove"):
        make(table, toy, monkeypatch, "--model", "tuned", "--seeds", "1")


def test_models_of_other_vocabularies_are_no_ensemble(
    table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before anything is trained. Other seeds, and other shapes, are one."""
    (toy / "recipe.toml").write_text(TOY.replace("[published", '[begin_from]\ntuned = "transformer"\n[published'))
    told = "--ensemble: transformer and {} learn from other pairs, or with other .* settings, what their tokens are"
    for name, changed in (("tuned", "[training]\nmax_steps = 2\n"), ("other", '[tokenizer]\nsource = "bytes"\n')):
        (toy / f"{name}.toml").write_text(changed, encoding="utf-8")
        with pytest.raises(SystemExit, match=told.format(name)):
            make(table, toy, monkeypatch, "--model", "transformer", name, "--seeds", "1", "--ensemble")
    assert not [*toy.parent.glob("runs/**/config.json")]
    (toy / "tuned.toml").write_text("[training]\nown_tokens = true\n", encoding="utf-8")
    (toy / "again.toml").write_text("[training]\nown_tokens = true\n", encoding="utf-8")
    begun = '[begin_from]\ntuned = "transformer"\nagain = "transformer"\n[published'
    (toy / "recipe.toml").write_text(TOY.replace("[published", begun), encoding="utf-8")
    wide = (toy / "transformer.toml").read_text(encoding="utf-8").replace("d_model = ", "d_model = 1")
    (toy / "wide.toml").write_text(wide, encoding="utf-8")
    for models in (("transformer", "wide"), ("tuned", "again")):
        table.refuse_other_vocabularies(
            [
                table.Training(table.read_recipe(toy), toy / f"{model}.toml", (task,), seed, toy.parent / "data")
                for model in models
                for task in ("upper", "lower")
                for seed in (1, 2)
            ]
        )


def test_what_cannot_be_is_told(table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"recurrent\.toml: there is no such model"):
        make(table, toy, monkeypatch, "--model", "recurrent")
    (toy / "broken.toml").write_text("[model]\nd_modle = 3\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"broken\.toml: setting 'model\.d_modle' is not known"):
        make(table, toy, monkeypatch, "--model", "broken")
    recipe = toy / "recipe.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace('"U", ', ""), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"recipe\.toml: one model for all needs a tag for each of 2 tasks"):
        make(table, toy, monkeypatch, "--together")
    with pytest.raises(SystemExit, match="nothing: is no task of the recipe; there are upper"):
        make(table, toy, monkeypatch, "--only", "nothing")
    upper = toy.parent / "data" / "letters" / "upper.txt"
    upper.unlink()
    with pytest.raises(SystemExit, match=r"upper\.txt: there is no such file; name the folder of the data"):
        make(table, toy, monkeypatch)
    upper.write_text("a = b\nno pair\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"upper\.txt, line 2: is not written as recipe\.toml tells: 'no pair'"):
        make(table, toy, monkeypatch)


def test_a_measure_that_does_not_work_is_told_before_anything_is_trained(
    table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "run_all", lambda *_: pytest.fail("something was trained"))
    (toy / "score.py").write_text("import sacrebleu_of_mars\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"score\.py ended with 1; what it says above tells why\."):
        make(table, toy, monkeypatch)


STUB = """#!/bin/sh
trap 'trap "exit 130" INT; told=1' INT
echo begun
for i in $(seq 100); do
    if [ $told ]; then sleep 0.3; echo saved; exit; fi
    sleep 0.02
done
"""


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM], ids=lambda one: one.name)
def test_a_table_that_is_stopped_waits_until_what_it_trains_is_saved(
    one: signal.Signals, table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (toy / "score.py").unlink()
    stub = toy.parent / "stub"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    monkeypatch.setattr(sys.modules["running"], "LOOK", 0.05)
    if one != signal.SIGINT:
        signal.signal(one, lambda *_: None)  # where main() leaves it alone, this test fails, and no more
    log = toy.parent / "runs" / "recipes" / "toy" / "transformer" / "upper-1" / "log.txt"

    def stop() -> None:
        while not (log.exists() and log.read_text(encoding="utf-8")):
            time.sleep(0.01)
        time.sleep(0.3)  # on a busy core the stub may be quicker than the thread pool that starts it
        os.kill(os.getpid(), one)

    Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit, match="Not all is done; the same command goes on from here"):
        make(table, toy, monkeypatch, "--only", "upper", "--seeds", "1")
    assert log.read_text(encoding="utf-8").split() == ["begun", "saved"]


def test_any_failure_stops_the_other_trainings(table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = sys.modules["running"]
    was_stopped: list[bool] = []
    begun = Event()

    def train(job: object, stopped: Event) -> None:
        if job is jobs[1]:
            begun.wait(60)
            sys.exit("There is no such file.")
        begun.set()
        was_stopped.append(stopped.wait(60))

    monkeypatch.setattr(running, "train", train)
    jobs = jobs_of(table, toy, "upper")
    with pytest.raises(SystemExit, match="There is no such file"):
        running.run_all(jobs, 2)
    assert was_stopped == [True]


def test_a_dev_file_that_is_not_there_is_told_before_anything_is_trained(
    table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "run_all", lambda *_: pytest.fail("something was trained"))
    (toy / "recipe.toml").write_text('dev = "{task}.dev"\n' + TOY, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"upper\.dev: there is no such file"):
        make(table, toy, monkeypatch)


def jobs_of(table: ModuleType, toy: Path, *tasks: str) -> list[Any]:
    """Trainings of seeds 1 and 2."""
    recipe = table.read_recipe(toy)
    return [table.Training(recipe, toy / "transformer.toml", tasks, seed, toy.parent / "data") for seed in (1, 2)]


def test_a_report_counts_for_what_it_was_made_from(
    table: ModuleType, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = sys.modules["running"]

    def evaluate(command: list[str], stopped: Event, *, stdout: TextIO, stderr: TextIO) -> bool:
        print('{"wer": 1.0}', file=stdout, flush=True)
        return False

    monkeypatch.setattr(running, "_watched", evaluate)
    monkeypatch.setattr(running, "score", lambda *_: {"share": 1.0})

    def measured() -> Any:
        return table.Measurement(tuple(jobs_of(table, toy, "upper")), "upper")

    first, second = measured().members
    pairs = toy.parent / "data" / "letters" / "upper.txt"
    for file, text in (
        (first.out / "model.safetensors", "weights"),
        (second.out / "model.safetensors", "others"),
        (second.out / "model.safetensors", "trained anew"),
        (toy / "score.py", "other = 1"),
        (pairs, "other = other\n"),
        (toy / "recipe.toml", TOY.replace("(.+) = ", "(.).* = ")),
        (toy / "recipe.toml", TOY.replace("[published", "[search]\nbeam = 2\n[published")),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        assert not measured().done
        running.measure(measured(), Event())
        assert measured().done
    (toy / "recipe.toml").write_text(text.replace('"wer"', '"wer", "per"'), encoding="utf-8")
    assert not measured().done
    with pytest.raises(RuntimeError, match=r"recipe\.toml: there is no measure 'per'; name one of wer, share\."):
        running.measure(measured(), Event())


def test_rewritten_pairs_are_those_of_their_file_and_recipe(table: ModuleType, toy: Path) -> None:
    letters = toy.parent / "data" / "letters"
    for task in ("up", "low"):
        (letters / task).mkdir()
        (letters / task / "train.txt").write_text(f"{task} = {task}\n", encoding="utf-8")

    def kept() -> list[str]:
        recipe = table.read_recipe(toy)
        files = [recipe.file(toy.parent / "data", "{task}/train.txt", task) for task in ("up", "low")]
        return [Path(file).read_text(encoding="utf-8") for file in files]

    assert kept() == ["up\tup\n", "low\tlow\n"]
    (toy / "recipe.toml").write_text(TOY.replace("(.+) = ", "(.).* = "), encoding="utf-8")
    assert kept() == ["u\tup\n", "l\tlow\n"]


def test_models_of_some_tasks_can_be_named_as_an_ensemble(table: ModuleType, toy: Path) -> None:
    folders = [job.out for job in jobs_of(table, toy, "lower", "upper")]
    assert folders[0].name == "lower-and-upper-1"
    assert members_of("+".join(map(str, folders))) == folders
