"""The demo from its corpus to its served model, with seconds of training in place of minutes."""

import re
import sys
from pathlib import Path

import pytest

from antiphon import load
from antiphon.cli import main
from antiphon.data.corpora import build

demo = sys.modules["antiphon.cli.demo"]


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["english-french", "dates", "g2p"])
def test_the_demo_prints_what_its_models_say(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "MINUTES", {"recurrent": 0.03, "transformer": 0.03})
    monkeypatch.setattr(demo, "NUM_TRAIN", {corpus: 2000})
    monkeypatch.setattr(demo, "NUM_HELD_OUT", 20)
    for times in range(2):  # the second time replaces the first
        words = ["demo", "--corpus", corpus, "--no-serve", "--out", str(tmp_path), "--seed", str(times)]
        monkeypatch.setattr(sys, "argv", ["antiphon", *words])
        main_and_exit()
    out = capsys.readouterr().out.split(f"{corpus}: 2,000 pairs")[-1]
    assert len(re.findall(r"(recurrent|transformer) +│ +[\d,]+ +│ +[\d.]+% +│", out)) == 2
    showcase = build(corpus, 1, 2000, 20).showcase
    model = load(tmp_path / corpus / "transformer", precision="float32")  # as it was trained
    for source, output in zip(showcase, model.generate(showcase, beam_size=4), strict=True):
        assert f"  {source}  ->  {output}" in out
    if corpus == "english-french":
        assert showcase[0] == "The cat ate the mouse."


def main_and_exit() -> None:
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def test_the_demo_removes_nothing_that_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NUM_TRAIN", {"english-french": 100})
    monkeypatch.setattr(demo, "NUM_HELD_OUT", 5)
    precious = tmp_path / "english-french" / "transformer" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    earlier = tmp_path / "english-french" / "recurrent" / "config.json"
    earlier.parent.mkdir()
    earlier.write_text("{}")
    for chosen in ([], ["--model", "transformer"]):
        monkeypatch.setattr(sys, "argv", ["antiphon", "demo", *chosen, "--no-serve", "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        assert precious.read_text() == "years of work"
        assert earlier.exists()
