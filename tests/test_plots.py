"""The pictures: what is read from a run's records and shown of a report, and that a whole file comes of it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from antiphon import plots
from antiphon.evaluation import picture
from antiphon.evaluation.report import Report, report

RECORDS = [
    {"step": 10, "loss": 5.0, "learning_rate": 1e-4, "tokens_per_second": 900.0},
    {"step": 20, "loss": 4.0, "learning_rate": 2e-4, "tokens_per_second": 900.0},
    {"step": 20, "dev_loss": 4.5, "dev_bleu": 3.0, "dev_note": "a word"},
    {"step": 30, "loss": 3.0, "learning_rate": 3e-4, "tokens_per_second": 900.0},
]


def write(folder: Path, text: str) -> Path:
    file = folder / "metrics.jsonl"
    file.write_text(text, encoding="utf-8")
    return file


def lines(records: Sequence[object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def assert_is_png(file: Path) -> None:
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    assert data.endswith(b"IEND\xaeB`\x82")


def test_curves_are_losses_and_numbers_of_the_dev_set(tmp_path: Path) -> None:
    curves = plots.read_curves(write(tmp_path, lines(RECORDS)))
    assert curves == {
        "loss": {10: 5.0, 20: 4.0, 30: 3.0},
        "dev_loss": {20: 4.5},
        "dev_bleu": {20: 3.0},
    }


def test_steps_done_again_after_a_resume_count_once(tmp_path: Path) -> None:
    again = [{"step": 20, "loss": 4.1}, {"step": 30, "loss": 3.1}]
    assert plots.read_curves(write(tmp_path, lines(RECORDS + again)))["loss"] == {10: 5.0, 20: 4.1, 30: 3.1}


def test_every_truncation_of_the_last_line_is_left_out(tmp_path: Path) -> None:
    whole, last = lines(RECORDS[:-1]), lines(RECORDS[-1:])
    expected = plots.read_curves(write(tmp_path, whole))
    for end in range(len(last)):
        assert plots.read_curves(write(tmp_path, whole + last[:end])) == expected


@pytest.mark.parametrize("line", ["", "{", "[1]", '{"loss": 1.0}', '{"step": "1", "loss": 1.0}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    file = write(tmp_path, lines(RECORDS[:1]) + line + "\n" + lines(RECORDS[1:]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: expected a JSON object with a step"):
        plots.loss_curve(file, tmp_path / "loss.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.jsonl: cannot be read \(No such file or directory\)"):
        plots.loss_curve(tmp_path / "none.jsonl", tmp_path / "loss.png")


@pytest.mark.parametrize(
    "text",
    [
        "",
        lines(RECORDS[:1]),
        lines(RECORDS[2:3]),
        lines(RECORDS),
        lines([{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf"), "dev_loss": None}]),
        lines([{"step": step, "loss": 100 / step, "dev_wer": 9.0, "dev_per": 3.0} for step in range(1, 200)]),
    ],
    ids=["empty", "one", "dev only", "both", "not finite", "many"],
)
def test_a_picture_comes_of_any_number_of_lines(tmp_path: Path, text: str) -> None:
    png = tmp_path / "loss.png"
    plots.loss_curve(write(tmp_path, text), png)
    assert_is_png(png)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


def test_an_older_picture_stays_whole_until_the_new_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png = tmp_path / "loss.png"
    png.write_bytes(b"older")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", _fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        plots.loss_curve(write(tmp_path, lines(RECORDS)), png)
    assert png.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


def _fail_half_way(figure: object, path: Path, **_settings: object) -> None:
    path.write_bytes(b"half")
    raise OSError("disk full")


def test_losses_stand_left_and_metrics_right() -> None:
    figure = plots.draw({"loss": {1: 2.0}, "dev_loss": {1: 2.5}, "dev_exact_match": {1: 40.0}})
    left, right = figure.axes
    assert [line.get_label() for line in left.get_lines()] == ["training loss", "dev loss"]
    assert [line.get_label() for line in right.get_lines()] == ["dev exact match (%)"]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == (
        "step",
        "loss",
        "dev exact match (%)",
    )


def test_pyplot_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now is an error
    plots.draw({"loss": {1: 2.0}, "dev_bleu": {1: 2.0}})
    picture.draw(measured(["x"], ["y"]))


def measured(outputs: list[str], references: list[str]) -> Report:
    sources = ["w " * (row + 2) for row in range(len(outputs))]
    return report(sources, outputs, [[reference] for reference in references])


def test_a_report_s_lengths_stand_left_and_its_errors_right() -> None:
    figure = picture.draw(measured(["a b", "a b", "c d e"], ["a b", "a x", "c d"]))
    left, right = figure.axes
    assert [line.get_label() for line in left.get_lines()] == ["exact match (%)", "BLEU", "PER (%)"]
    assert list(np.asarray(left.get_lines()[0].get_ydata())) == [100, 0, 0]
    assert [label.get_text() for label in left.get_xticklabels()] == ["2\n(1)", "3\n(1)", "4\n(1)"]
    assert left.get_xlabel() == "length of the source in words (number of sources)"
    assert [label.get_text() for label in right.get_yticklabels()] == ["x \u2192 b", "inserted e"]
    assert [text.get_text() for text in right.texts] == [" 1 (50%)", " 1 (50%)"]
    assert right.get_xlabel() == "most frequent of 2 edits, wanted \u2192 said"


@pytest.mark.parametrize(
    ("outputs", "references"),
    [
        (["a"], ["a"]),
        (["ɛ̃ ʁ t͡ʃʰ"], ["ɔ̃ ʒ"]),
        (["$5 $x_ \\frac"], ["$6$ $ $$"]),
        (["강아지 שלום क्षि 猫 \U0001f408"], ["고양이 سلام ढ 犬 \x00"]),
        (["x" * 300], ["y" * 300]),
        ([""], [""]),
        (["b " * 40] * 30, ["a"] * 30),
    ],
    ids=["no error", "IPA", "dollars", "no glyphs", "long", "empty", "many"],
)
def test_a_picture_comes_of_any_report(tmp_path: Path, outputs: list[str], references: list[str]) -> None:
    png = tmp_path / "report.png"
    picture.report_picture(measured(outputs, references), png)
    assert_is_png(png)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.png"]
