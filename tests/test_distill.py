"""Distillation: a student learns what its teacher answers and nothing held out; stopped anywhere, it goes on."""

import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from antiphon.cli import main
from antiphon.config import Config, changed
from antiphon.data.pairs import Pair, read_pairs, split_pairs
from antiphon.run import LONGEST, WEIGHTS, Model
from antiphon.text_side import Output
from antiphon.training import distill as distillation
from antiphon.training.distill import PAIRS, RECORD, distill
from antiphon.training.train import train

SMALL = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
TRAINING = {
    "batch_tokens": 128,
    "max_steps": 6,
    "validations": 1,
    "metric": "loss",
    "average": 1,
    "dev_pairs": 4,
    "precision": "float32",
    "device": "cpu",
}
WORDS = {"source": "words", "target": "words", "joint": False}
CONFIG = Config.model_validate({"tokenizer": WORDS, "model": SMALL, "training": TRAINING})


def random_pairs(count: int, seed: int = 1) -> list[Pair]:
    """Different sources of letters, reversed."""
    dice = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(dice.choices("abcdef", k=dice.randint(2, 6)))] = None
    return [Pair(text, text[::-1]) for text in texts]


TRUE = random_pairs(44)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that has learned a little: it answers, and is often wrong."""
    out = tmp_path_factory.mktemp("teacher")
    train(random_pairs(300, seed=2), out, config=changed(CONFIG, {"training": {"max_steps": 60, "warmup_steps": 5}}))
    return out


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Model:
    return Model.load(folder)


@pytest.fixture(scope="module")
def whole(teacher: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distillation that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    distill(teacher, TRUE, out, config=CONFIG)
    return out


@pytest.fixture(autouse=True)
def small_chunks_and_no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "CHUNK", 16)
    monkeypatch.setattr("antiphon.plots.loss_curve", lambda *paths: None)


class Recorder:
    """A listener that remembers what it was told of the decoding."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, int]] = []

    def decoded(self, done: int, total: int, empty: int) -> None:
        self.told.append((done, total, empty))

    def started(self, model: Model, resumed: bool) -> None:
        self.resumed = resumed

    def finished(self, kept: object) -> None: ...
    def stepped(self, report: object) -> None: ...
    def validated(self, step: int, validation: object, best: bool) -> None: ...


def times(count: int) -> Callable[[], bool]:
    """Wanted so often, and no more."""
    left = iter(range(count - 1))
    return lambda: next(left, None) is not None


def decoded(out: Path) -> list[Pair]:
    return list(read_pairs(out / PAIRS))


# What is learned


def test_the_student_learns_the_teacher_s_best_outputs(teacher: Model, tmp_path: Path) -> None:
    listener = Recorder()
    student = distill(teacher, TRUE, tmp_path, config=CONFIG, beam_size=3, listener=listener)
    learned, dev = split_pairs(TRUE, 4)
    sources = [pair.source for pair in learned]
    outputs = teacher.generate(sources, beam_size=3)
    assert decoded(tmp_path) == list(map(Pair, sources, outputs))
    assert sum(pair.target != output for pair, output in zip(learned, outputs, strict=True)) > 5
    assert outputs != teacher.generate(sources)
    assert student is not None
    assert (student.facts.train_pairs, student.facts.dev_pairs) == (len(sources), len(dev)) == (40, 4)
    assert Model.load(tmp_path).generate(sources) == student.generate(sources)
    assert listener.told == [(done, 40, 0) for done in range(41)]


def test_what_is_measured_on_is_true_and_never_decoded(whole: Path) -> None:
    dev = split_pairs(TRUE, 4)[1]
    assert not {pair.source for pair in dev} & {pair.source for pair in decoded(whole)}
    logged = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    shown = {Pair(one["source"], one["reference"]) for line in logged for one in line.get("samples", [])}
    assert shown
    assert shown <= set(dev)


def test_of_dev_pairs_that_are_given_none_are_set_aside(teacher: Model, tmp_path: Path) -> None:
    student = distill(teacher, TRUE[4:], tmp_path, dev=TRUE[:4], config=CONFIG)
    assert [pair.source for pair in decoded(tmp_path)] == [pair.source for pair in TRUE[4:]]
    assert student is not None
    assert student.facts.dev_pairs == 4


def test_a_source_with_several_targets_is_decoded_once_and_keeps_as_many(teacher: Model, tmp_path: Path) -> None:
    pairs = [*TRUE[4:14], *(Pair(pair.source, "a") for pair in TRUE[4:9])]
    facts = []
    for keep_true in (False, True):
        out = tmp_path / str(keep_true)
        student = distill(teacher, pairs, out, dev=TRUE[:4], config=CONFIG, keep_true=keep_true)
        assert [pair.source for pair in decoded(out)] == [pair.source for pair in TRUE[4:14]]
        assert student is not None
        facts.append(student.facts)
    assert [fact.train_pairs for fact in facts] == [15, 30]


def test_a_source_is_decoded_once_and_learned_as_often_as_it_is_there(
    teacher: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[Pair] = []
    monkeypatch.setattr(distillation.training, "train", lambda pairs, *_, **__: learned.extend(pairs))
    for name, pairs in (("some", TRUE[4:8]), ("more", TRUE[7:10])):
        (tmp_path / name).write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in pairs))
    distill(teacher, f"{tmp_path / 'some'}+{tmp_path / 'more'}*3", tmp_path / "out", dev=TRUE[:4], config=CONFIG)
    once = decoded(tmp_path / "out")
    assert [pair.source for pair in once] == [pair.source for pair in TRUE[4:10]]
    assert learned == [pair for pair, count in zip(once, (1, 1, 1, 4, 3, 3), strict=True) for _ in range(count)]


def test_a_source_too_long_for_the_teacher_is_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    teacher, listener = Model.load(folder), Recorder()
    teacher.side.config = changed(teacher.config, {"training": {"max_length": 6}})
    words = 6 * LONGEST
    longest, longer = Pair("a " * words, "a"), Pair("a " * (words + 1), "b")
    pairs = [*TRUE[4:20], longer, longest, *TRUE[20:]]
    assert distill(teacher, pairs, tmp_path, dev=TRUE[:4], config=CONFIG, wanted=times(18)) is None
    student = distill(teacher, pairs, tmp_path, dev=TRUE[:4], resume=True, listener=listener)
    assert [pair.source for pair in decoded(tmp_path)] == [pair.source for pair in pairs]
    assert [pair.source for pair in decoded(tmp_path) if not pair.target] == [longer.source]
    assert listener.told[-1] == (42, 42, 1)
    assert student is not None
    assert (student.facts.empty_pairs, student.facts.train_pairs) == (1, 41)


def test_empty_outputs_are_left_out_and_counted(
    teacher: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Model.stream

    def silent(self: Model, sources: list[str], **settings: Any) -> Iterator[tuple[int, list[Output]]]:
        for index, outputs in stream(self, sources, **settings):
            short = self is teacher and len(sources[index]) < 7
            yield index, [Output(" ", 0.0, [], [], True)] if short else outputs

    monkeypatch.setattr(Model, "stream", silent)
    listener = Recorder()
    assert distill(teacher, TRUE[4:], tmp_path, dev=TRUE[:4], config=CONFIG, wanted=times(30)) is None
    student = distill(teacher, TRUE[4:], tmp_path, dev=TRUE[:4], resume=True, listener=listener)
    short = sum(len(pair.source) < 7 for pair in TRUE[4:])
    assert student is not None
    assert (student.facts.empty_pairs, student.facts.train_pairs) == (short, 40 - short)
    assert listener.told[-1] == (40, 40, short)
    assert 0 < short < 40


def test_a_teacher_is_a_folder_or_several_and_gives_the_student_nothing_else(folder: Path, tmp_path: Path) -> None:
    for number, word in enumerate([str(folder), f"{folder}+{folder}"]):
        config = changed(CONFIG, {"tokenizer": {"target": "chars"}, "model": {"encoder": "gru", "decoder": "gru"}})
        student = distill(word, TRUE, tmp_path / str(number), config=config, beam_size=2)
        pairs = decoded(tmp_path / str(number))
        assert [pair.target for pair in pairs] == Model.load(word).generate([p.source for p in pairs], beam_size=2)
        assert student is not None
        assert student.tokenizers.target.kind == "chars"


# Stopped, and gone on


@pytest.mark.parametrize("often", [3, 8, 20])
def test_decoding_that_is_stopped_goes_on_to_the_same_student(
    often: int, teacher: Model, whole: Path, tmp_path: Path
) -> None:
    listener = Recorder()
    student = distill(teacher, TRUE, tmp_path, config=CONFIG, wanted=times(often), listener=listener)
    while student is None:
        done = len(decoded(tmp_path))
        assert done == listener.told[-1][0]
        wanted = times(often) if done + often <= 40 else lambda: True
        student = distill(teacher, TRUE, tmp_path, resume=True, wanted=wanted, listener=listener)
    assert [done for done, _, _ in dict.fromkeys(listener.told)] == list(range(41))
    assert (tmp_path / PAIRS).read_bytes() == (whole / PAIRS).read_bytes()
    assert (tmp_path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.parametrize("cut", [1, 9, 200])
def test_what_a_kill_cut_off_is_decoded_again(cut: int, teacher: Model, whole: Path, tmp_path: Path) -> None:
    assert distill(teacher, TRUE, tmp_path, config=CONFIG, wanted=times(22)) is None
    written = (tmp_path / PAIRS).read_bytes()
    (tmp_path / PAIRS).write_bytes(written[:-cut])
    assert distill(teacher, TRUE, tmp_path, resume=True, wanted=times(2)) is None
    distill(teacher, TRUE, tmp_path, resume=True)
    assert (tmp_path / PAIRS).read_bytes() == (whole / PAIRS).read_bytes()


def test_no_source_is_decoded_twice(teacher: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, asked = Model.stream, list[str]()

    def spied(self: Model, sources: list[str], **settings: Any) -> Iterator[tuple[int, list[Output]]]:
        for index, outputs in stream(self, sources, **settings):
            asked.extend([sources[index]] if self is teacher else [])
            yield index, outputs

    monkeypatch.setattr(Model, "stream", spied)
    assert distill(teacher, TRUE, tmp_path, config=CONFIG, wanted=times(22)) is None
    assert distill(teacher, TRUE, tmp_path, resume=True, wanted=times(18)) is None
    distill(teacher, TRUE, tmp_path, resume=True)
    assert sorted(asked) == sorted(pair.source for pair in split_pairs(TRUE, 4)[0])


@pytest.mark.parametrize("keep_true", [False, True])
def test_a_training_that_is_stopped_goes_on_to_the_same_student(
    keep_true: bool, teacher: Model, tmp_path: Path
) -> None:
    out, whole, listener = tmp_path / "parts", tmp_path / "whole", Recorder()
    distill(teacher, TRUE, whole, config=CONFIG, keep_true=keep_true)
    distill(teacher, TRUE, out, config=CONFIG, keep_true=keep_true, wanted=times(40 + 4))
    assert '"kept"' not in (out / "metrics.jsonl").read_text()
    distill(teacher, TRUE, out, keep_true=keep_true, resume=True, listener=listener)
    assert listener.resumed
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_settings_may_change_while_decoding_and_are_kept(teacher: Model, tmp_path: Path) -> None:
    assert distill(teacher, TRUE, tmp_path, config=CONFIG, wanted=times(3)) is None
    wide = changed(CONFIG, {"model": {"d_model": 32}})
    assert distill(teacher, TRUE, tmp_path, config=wide, resume=True, wanted=times(3)) is None
    student = distill(teacher, TRUE, tmp_path, resume=True)
    assert student is not None
    assert student.config.model.d_model == 32


# What is refused


def test_going_on_otherwise_than_begun_is_refused(teacher: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert distill(teacher, TRUE, out, config=CONFIG, beam_size=2, wanted=times(3)) is None
    other = train(TRUE, tmp_path / "other", config=CONFIG)
    kept = (out / PAIRS).read_bytes(), (out / RECORD).read_bytes()
    usual: dict[str, Any] = {"teacher": teacher, "pairs": TRUE, "beam_size": 2}
    changes: dict[str, dict[str, Any]] = {
        "by another teacher": {"teacher": other},
        "with other pairs": {"pairs": TRUE[:-1]},
        "or other ones set aside": {"config": changed(CONFIG, {"training": {"dev_pairs": 2}})},
        "with a beam of 2, not 3": {"beam_size": 3},
        "without the true pairs": {"keep_true": True},
    }
    for told, change in changes.items():
        with pytest.raises(ValueError, match=told):
            distill(out=out, resume=True, **usual | change)
    with pytest.raises(ValueError, match=r"there is a distillation already; go on with it \(--resume\)"):
        distill(out=out, **usual)
    assert kept == ((out / PAIRS).read_bytes(), (out / RECORD).read_bytes())


def test_what_is_no_distillation_is_refused(teacher: Model, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is a run already"):
        distill(teacher, TRUE, folder, config=CONFIG)
    with pytest.raises(ValueError, match="there is no distillation to go on with"):
        distill(teacher, TRUE, folder, resume=True)
    distill(teacher, TRUE, tmp_path, config=CONFIG, wanted=times(3))
    lines = (tmp_path / PAIRS).read_bytes().splitlines(keepends=True)
    for bad in (b"{}\n", b"[\n", b'{"source": "a", "target": 3}\n'):
        (tmp_path / PAIRS).write_bytes(b"".join([lines[0], bad, *lines[1:]]))
        with pytest.raises(ValueError, match=r"distilled\.jsonl, line 2: is no pair"):
            distill(teacher, TRUE, tmp_path, resume=True)
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(ValueError, match=r"distilled\.json: is not what distilling writes"):
        distill(teacher, TRUE, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"beam_size": 0}, "beam_size"),
        ({"config": changed(CONFIG, {"training": {"device": "mars"}})}, "'mars'"),
        ({"teacher": "no/such/run"}, "no/such/run"),
        ({"dev": "no.tsv"}, r"no\.tsv"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    change: dict[str, Any], found: str, teacher: Model, tmp_path: Path
) -> None:
    usual: dict[str, Any] = {"teacher": teacher, "pairs": TRUE, "config": CONFIG}
    with pytest.raises(ValueError, match=found):
        distill(out=tmp_path / "out", **usual | change)
    assert not (tmp_path / "out").exists()


# The command


@contextmanager
def restored_interrupts() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.slow
def test_the_command_is_stopped_while_decoding_and_goes_on_as_it_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pairs, out = tmp_path / "my pairs.tsv", tmp_path / "student"
    pairs.write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in random_pairs(604, seed=3)))
    tables: dict[str, dict[str, Any]] = {"model": SMALL, "training": TRAINING}
    settings = [f"{table}.{name}={tables[table][name]}" for table in tables for name in tables[table]]
    words = [folder, pairs, "--out", out, "--keep-true", "--beam", 4]
    begin = [sys.executable, "-m", "antiphon", "distill", *map(str, words)]
    begin += [word for setting in settings for word in ("--set", setting)]
    with subprocess.Popen(begin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not ((out / PAIRS).exists() and (out / PAIRS).stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert not (out / "config.json").exists()
    again = shlex.split(printed.strip().rpartition("Go on with: antiphon ")[2])
    assert again == ["distill", *map(str, words), "--resume"]
    monkeypatch.setattr(sys, "argv", ["antiphon", *again])
    with restored_interrupts(), pytest.raises(SystemExit, match=r"^0$"):
        main()
    printed, errors = capfd.readouterr()
    assert re.search(r"600 sources for the teacher, [1-9]\d* decoded already", errors)
    assert f"The model is in {out}" in printed
    assert Model.load(out).config.model.decoder == "ssru", "the preset is fast"
    learned = decoded(out)
    sources = [pair.source for pair in learned]
    assert len(set(sources)) == len(sources) == 600
    assert [pair.target for pair in learned] == Model.load(folder).generate(sources, beam_size=4)
    assert json.loads((out / "facts.json").read_text())["train_pairs"] == 2 * 600
