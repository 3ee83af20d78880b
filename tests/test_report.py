"""The report of an evaluation: its numbers, its worst pairs, its two ways of writing itself."""

import json
from random import Random

import pytest

from antiphon import metrics
from antiphon.data.pairs import Pair
from antiphon.evaluation.errors import Error, frequent_errors
from antiphon.evaluation.evaluate import Answers, measure
from antiphon.evaluation.lengths import by_length
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
    assert (measured.char_bleu, measured.char_bleu_signature) == metrics.char_bleu(OUTPUTS, REFERENCES)
    assert (measured.exact_match, measured.wer, measured.per) == (50, 50, 50)


def test_ter_is_measured_when_asked_for() -> None:
    assert report(SOURCES, OUTPUTS, REFERENCES).ter is None
    measured = report(SOURCES, OUTPUTS, REFERENCES, ter=True)
    assert (measured.ter, measured.ter_signature) == metrics.ter(OUTPUTS, REFERENCES)
    assert "TER" in str(measured)
    assert "TER" not in str(report(SOURCES, OUTPUTS, REFERENCES))


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


def of_lengths(lengths: list[int]) -> list[tuple[int, int, int]]:
    """(shortest, longest, sources) of each group."""
    sources, outputs = [" ".join("w" * length) for length in lengths], ["x"] * len(lengths)
    groups = by_length(sources, outputs, [["x"]] * len(lengths))
    return [(group.shortest, group.longest, group.num_sources) for group in groups]


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        (list(range(2, 12)), [(2, 3, 2), (4, 5, 2), (6, 7, 2), (8, 9, 2), (10, 11, 2)]),
        ([7] * 30, [(7, 7, 30)]),
        ([3, 2], [(2, 2, 1), (3, 3, 1)]),
        ([2] * 80 + [3] * 10 + [4] * 10, [(2, 2, 80), (3, 3, 10), (4, 4, 10)]),
        ([2] + [3] * 99, [(2, 3, 100)]),  # one source alone is no group
        ([2] * 99 + [3], [(2, 3, 100)]),
        ([n for n in range(2, 7) for _ in range(19)] + [7] * 5, [*((n, n, 19) for n in range(2, 6)), (6, 7, 24)]),
    ],
)
def test_groups_of_lengths_are_about_equal_and_share_no_length(
    lengths: list[int], groups: list[tuple[int, int, int]]
) -> None:
    assert of_lengths(lengths) == groups
    assert of_lengths(lengths[::-1]) == groups


@pytest.mark.parametrize("seed", range(20))
def test_every_source_is_in_one_of_five_groups_at_most(seed: int) -> None:
    random = Random(seed)
    lengths = [random.randint(2, random.randint(2, 30)) for _ in range(random.randint(1, 200))]
    groups = of_lengths(lengths)
    assert len(groups) <= 5
    assert sum(size for _, _, size in groups) == len(lengths)
    for low, high, size in groups:
        assert size == sum(low <= length <= high for length in lengths)
        assert 10 * size >= len(lengths)


def test_scores_of_a_group_are_those_of_its_outputs() -> None:
    sources = ["one two three", "one two", "one two four", "two one"]
    outputs, references = ["a b", "c d", "e f", "g h"], [["a b"], ["c d"], ["e x"], ["g h"]]
    short, long = by_length(sources, outputs, references)
    assert (short.unit, short.span, long.span) == ("words", "2", "3")
    assert (short.exact_match, short.per) == (100, 0)
    assert (long.exact_match, long.per) == (50, 25)
    assert long.bleu == metrics.bleu(["a b", "e f"], [["a b"], ["e x"]])[0]


def test_single_words_are_grouped_by_their_characters() -> None:
    words, phrase = ["cat", "dog", "mouse"], "ad hoc"
    groups = by_length([*words, phrase], ["x"] * 4, [["x"]] * 4)
    assert [(group.unit, group.span) for group in groups] == [
        ("characters", "3"),
        ("characters", "5"),
        ("characters", "6"),
    ]


def test_errors_are_the_edits_to_the_closest_reference_by_count() -> None:
    outputs = ["k a t", "k a t s", "d o", "b i t", "right"]
    references = [["x y z", "k e t"], ["k e t"], ["d o g"], ["b e t", "b i d"], ["right"]]
    errors, total = frequent_errors(outputs, references)
    assert total == 5
    assert errors == (
        Error("e", "a", 2, 0.4),
        Error(None, "s", 1, 0.2),
        Error("g", None, 1, 0.2),
        Error("e", "i", 1, 0.2),
    )
    assert [str(error) for error in errors] == ["e -> a", "inserted s", "missing g", "e -> i"]
    assert frequent_errors(outputs, references, limit=1) == (errors[:1], 5)
    assert frequent_errors(["a"], [["a"]]) == ((), 0)


def test_the_edits_are_those_of_per() -> None:
    random = Random(1)
    outputs = ["".join(random.choices("ab  ", k=8)) for _ in range(50)]
    references = [["".join(random.choices("ab  ", k=8)) for _ in range(random.randint(1, 3))] for _ in outputs]
    measured = report([str(row) for row in range(50)], outputs, references)
    symbols = sum(len(metrics.closest(*row)[0]) for row in zip(outputs, references, strict=True))
    assert measured.num_edits == pytest.approx(measured.per * symbols / 100)
    assert sum(error.count for error in frequent_errors(outputs, references, limit=1000)[0]) == measured.num_edits


def test_text_shows_lengths_and_errors() -> None:
    text = str(report(SOURCES, OUTPUTS, REFERENCES))
    assert "By length of source, in characters:" in text
    assert "Most frequent of 2 edits, wanted -> said:" in text
    assert "1   50%  chien -> chein" in text
    assert "Most frequent" not in str(report(["a"], ["b"], [["b"]]))


def test_another_system_is_compared_with_when_given() -> None:
    ours = Answers(SOURCES, REFERENCES, OUTPUTS, [-1.0] * 4)
    theirs = Answers(SOURCES, REFERENCES, ["chat", "chien", "souris", "hibou"], [-1.0] * 4)
    measured = measure(ours, others=theirs, others_name="runs/better")
    assert measured.against is not None
    assert (measured.against.exact_match.score, measured.against.exact_match.other) == (50, 100)
    record = json.loads(measured.to_json())["against"]
    assert (record["name"], record["exact_match"]["p_value"], record["ter"]) == ("runs/better", 0.5, None)
    assert "Against runs/better" in str(measured)
    assert "exact match   50.00  100.00   0.500  McNemar's exact test" in str(measured)
    assert json.loads(measure(ours).to_json())["against"] is None
    assert "Against" not in str(measure(ours))


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
