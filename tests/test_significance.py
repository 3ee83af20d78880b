"""Paired tests on systems of which the truth is known."""

from dataclasses import astuple
from itertools import product
from random import Random

import pytest

from antiphon import metrics
from antiphon.evaluation.significance import binomial_test, compare, mcnemar, paired_bootstrap

RIGHT = [" ".join(Random(row).choices("abcdefghijklmnopqrst", k=6)) for row in range(100)]
WRONG = [" ".join(Random(-1 - row).choices("abcdefghijklmnopqrst", k=6)) for row in range(100)]
REFERENCES = [[text] for text in RIGHT]
METRICS = ["bleu", "char_bleu", "chrf", "ter"]


def right_on(rows: range) -> list[str]:
    return [RIGHT[row] if row in rows else WRONG[row] for row in range(100)]


@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_those_of_the_metrics(metric: str) -> None:
    found = paired_bootstrap(metric, right_on(range(60)), right_on(range(50)), REFERENCES)
    assert found.score == metrics.compute(metric, right_on(range(60)), REFERENCES)
    assert found.other == metrics.compute(metric, right_on(range(50)), REFERENCES)


@pytest.mark.parametrize("metric", METRICS)
def test_a_system_does_not_differ_from_itself(metric: str) -> None:
    assert paired_bootstrap(metric, right_on(range(50)), right_on(range(50)), REFERENCES).p_value == 1


@pytest.mark.parametrize("metric", METRICS)
def test_forty_more_of_a_hundred_are_no_chance(metric: str) -> None:
    assert paired_bootstrap(metric, right_on(range(90)), right_on(range(50)), REFERENCES).p_value < 0.001


@pytest.mark.parametrize("metric", METRICS)
def test_systems_that_are_right_as_often_are_not_told_apart(metric: str) -> None:
    """Each is right on 50; 40 of them apart."""
    assert paired_bootstrap(metric, right_on(range(50)), right_on(range(40, 90)), REFERENCES).p_value > 0.2


def test_one_output_makes_no_difference_and_ten_do() -> None:
    """Of samples with replacement e**-d leave out all d outputs that differ: twice that is the p-value."""
    found = [
        paired_bootstrap("chrf", right_on(range(50 + more)), right_on(range(50)), REFERENCES) for more in (1, 3, 10)
    ]
    assert found[0].p_value == pytest.approx(0.736, abs=0.05)
    assert found[1].p_value == pytest.approx(0.0996, abs=0.02)
    assert found[2].p_value < 0.005


@pytest.mark.parametrize(("sources", "p_value"), [(1, 1.0), (2, 0.5), (5, 0.0625)])
def test_a_few_sources_prove_little(sources: int, p_value: float) -> None:
    """Each sample of them shows the difference, and heads fall so often in a row."""
    found = paired_bootstrap("chrf", RIGHT[:sources], WRONG[:sources], REFERENCES[:sources])
    assert (found.p_value, found.score) == (p_value, 100)


def test_each_system_is_held_against_the_references_as_it_writes_them() -> None:
    apart, composed = [["Cafe\u0301"]] * 4, [["Caf\u00e9"]] * 4
    ours, theirs = ([options[0] for options in references] for references in (apart, composed))
    found = compare(ours, theirs, apart, ter=True, their_references=composed)
    for one in (found.exact_match, found.bleu, found.chrf, found.ter):
        assert one is not None
        assert (one.score, one.p_value) == (one.other, 1)


def test_the_order_of_the_systems_changes_no_p_value() -> None:
    there = compare(right_on(range(56)), right_on(range(4, 52)), REFERENCES, ter=True)
    back = compare(right_on(range(4, 52)), right_on(range(56)), REFERENCES, ter=True)
    for ours, theirs in zip(astuple(there)[1:], astuple(back)[1:], strict=True):
        score, other, p_value, test = ours
        assert theirs == (other, score, p_value, test)
        assert 0.001 < p_value < 0.999


def test_the_same_again_gives_the_same() -> None:
    assert len({compare(right_on(range(56)), right_on(range(4, 52)), REFERENCES) for _ in range(2)}) == 1


def test_the_number_of_references_may_vary() -> None:
    references = [[text, "z"] if row % 2 else [text] for row, text in enumerate(RIGHT)]
    found = compare(right_on(range(90)), right_on(range(50)), references)
    assert (found.exact_match.score, found.exact_match.other) == (90, 50)
    assert found.bleu.score == metrics.bleu(right_on(range(90)), references)[0]
    assert found.bleu.p_value < 0.001
    assert found.ter is None


def test_mcnemar_counts_the_outputs_that_one_system_alone_gets_right() -> None:
    outputs, others = ["a", "b", "c", "x", "x", "x"], ["a", "x", "x", "d", "x", "y"]
    found = mcnemar(outputs, others, [["a"], ["b"], ["c", "C"], ["d"], ["e"], ["f"]])
    assert found.score == 50
    assert found.other == pytest.approx(100 / 3)
    assert found.p_value == binomial_test(2, 1) == 1
    assert mcnemar(right_on(range(90)), right_on(range(50)), REFERENCES).p_value == 2 / 2**40


@pytest.mark.parametrize(("heads", "tails"), [*product(range(7), repeat=2)])
def test_the_binomial_test_is_the_share_of_all_throws(heads: int, tails: int) -> None:
    throws = [sum(throw) for throw in product((0, 1), repeat=heads + tails)]
    as_uneven = sum(min(ups, heads + tails - ups) <= min(heads, tails) for ups in throws)
    assert binomial_test(heads, tails) == pytest.approx(as_uneven / len(throws))


def test_the_binomial_test_of_many_throws() -> None:
    assert binomial_test(15, 5) == pytest.approx(0.04138947)  # R: binom.test(15, 20)
    assert binomial_test(0, 20_000) == 0
    assert binomial_test(10_000, 10_000) == 1


def test_outputs_of_another_number_are_a_sentence() -> None:
    with pytest.raises(ValueError, match="1 outputs but references for 2"):
        compare(["a", "b"], ["a"], [["a"], ["b"]])
