"""The report of an evaluation: its numbers, its worst pairs, its two ways of writing itself."""

import json

import pytest

from antiphon import metrics
from antiphon.data.pairs import Pair
from antiphon.evaluation.report import WorstPair, group_references, report

SOURCES = ["cat", "dog", "mouse", "owl"]
OUTPUTS = ["chat", "chein", "sourit", "hibou"]
REFERENCES = [["chat"], ["chien", "toutou"], ["souris"], ["chouette", "hibou"]]


def test_pairs_that_share_a_source_become_its_references() -> None:
    pairs = [Pair("b", "1"), Pair("a", "2"), Pair("b", "3"), Pair("b", "1"), Pair("a", "2")]
    assert group_references(pairs) == (["b", "a"], [["1", "3"], ["2"]])
    assert group_references([]) == ([], [])


def test_scores_are_those_of_the_metrics() -> None:
    measured = report(SOURCES, OUTPUTS, REFERENCES)
    assert (measured.num_sources, measured.num_references) == (4, 6)
    assert (measured.bleu, measured.bleu_signature) == metrics.bleu(OUTPUTS, REFERENCES)
    assert (measured.chrf, measured.chrf_signature) == metrics.chrf(OUTPUTS, REFERENCES)
    assert (measured.exact_match, measured.wer, measured.per) == (50, 50, 50)


def test_the_first_of_an_n_best_list_is_measured() -> None:
    n_best = [[output, "something else"] for output in OUTPUTS]
    assert report(SOURCES, n_best, REFERENCES) == report(SOURCES, OUTPUTS, REFERENCES)


def test_worst_pairs_come_first_and_right_ones_not_at_all() -> None:
    worst = report(SOURCES, OUTPUTS, REFERENCES, scores=[-1.0, -2.0, -3.0, -4.0]).worst
    assert worst == (
        WorstPair("dog", "chein", "chien", 2 / 5, -2.0),
        WorstPair("mouse", "sourit", "souris", 1 / 6, -3.0),
    )


def test_worst_pairs_are_few_and_ties_keep_their_order() -> None:
    sources = [str(number) for number in range(30)]
    worst = report(sources, ["x"] * 30, [["y"]] * 30, num_worst=3).worst
    assert [pair.source for pair in worst] == ["0", "1", "2"]
    assert report(sources, ["x"] * 30, [["y"]] * 30, num_worst=0).worst == ()


def test_json_holds_every_field() -> None:
    measured = report(["le"], ["Æ"], [["é"]])
    record = json.loads(measured.to_json())
    assert record["worst"] == [{"source": "le", "output": "Æ", "reference": "é", "distance": 1.0, "score": None}]
    assert list(record)[:3] == ["num_sources", "num_references", "bleu"]
    assert "Æ" in measured.to_json()


def test_text_shows_scores_with_their_signatures_and_the_worst_pairs() -> None:
    measured = report(SOURCES, OUTPUTS, REFERENCES, scores=[-1.0, -2.0, -3.0, -4.0])
    text = str(measured)
    assert "4 sources, 6 references" in text
    assert measured.bleu_signature in text
    assert "exact match   50.00" in text
    assert "chein  (score -2.00)" in text
    assert text.index("sourit") > text.index("chein")
    assert text == measured.to_text()
    assert "Worst" not in str(report(["a"], ["b"], [["b"]]))


@pytest.mark.parametrize(
    ("outputs", "scores", "sentence"),
    [
        (["a"], None, "2 sources but 1 outputs"),
        (["a", "b"], [0.5], "2 outputs but 1 scores"),
        ([["a"], []], None, "source 2 has an empty list of outputs"),
    ],
)
def test_counts_that_disagree_are_a_sentence(outputs: list[str], scores: list[float] | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        report(["s", "t"], outputs, [["a"], ["b"]], scores)


def test_nothing_to_measure_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="no outputs to measure"):
        report([], [], [])
