"""Minimum Bayes risk: the output that agrees most with all, held against sacreBLEU's own chrF."""

from itertools import pairwise
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF

from antiphon.consensus import by_consensus, pairwise_chrf
from antiphon.run import Model

texts = st.lists(st.text("ab é\n", max_size=12), min_size=1, max_size=6)


@given(texts)
def test_each_against_each_is_sacrebleu_s_chrf(outputs: list[str]) -> None:
    found, metric = pairwise_chrf(outputs), CHRF()
    for row, output in zip(found, outputs, strict=True):
        assert row.tolist() == pytest.approx([metric.sentence_score(output, [other]).score for other in outputs])


@given(texts)
def test_the_best_agrees_most_with_all_as_often_as_they_were_drawn(outputs: list[str]) -> None:
    order, metric = by_consensus(outputs), CHRF()
    assert sorted(outputs[place] for place in order) == sorted(set(outputs))
    assert all(place == outputs.index(outputs[place]) for place in order)
    expected = [mean(metric.sentence_score(outputs[place], [other]).score for other in outputs) for place in order]
    assert all(after <= before + 1e-9 for before, after in pairwise(expected))


def test_votes_count() -> None:
    assert by_consensus(["one of these", "far away", "one of those", "far away", "far away"])[0] == 1
    assert by_consensus(["one of these", "far away", "one of those"])[0] == 0


def test_a_model_gives_the_sample_that_agrees_most(model: Model) -> None:
    sources = ["ab 01", "", "ab 02"]
    drawn = model.outputs(sources, sample=True, n_best=20, temperature=0.7, seed=3)
    found = model.outputs(sources, mbr=20, n_best=2, seed=3)
    for several, outputs in zip(drawn, found, strict=True):
        order = by_consensus([output.text for output in several])
        assert outputs == [several[place] for place in order[:2]]
    assert model.generate(sources, mbr=20, seed=3) == [outputs[0].text for outputs in found]
    assert model.generate(sources, mbr=20, seed=3, temperature=2.0) != model.generate(sources, mbr=20, seed=3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mbr": "8"}, "mbr is '8'; give the number of samples that are compared, at least 2."),
        ({"mbr": 1}, "mbr is 1; give the number of samples that are compared, at least 2."),
        ({"mbr": 8, "beam_size": 4}, "mbr compares samples, not the hypotheses of a beam; leave out one of them."),
        ({"mbr": 8, "n_best": 9}, "n_best is 9, of 8 samples; it can be 1 to 8."),
        ({"mbr": 8, "n_best": 0}, "n_best is 0, of 8 samples; it can be 1 to 8."),
    ],
)
def test_what_cannot_be_is_told(settings: dict[str, Any], told: str, model: Model) -> None:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        model.generate(["ab 01"], **settings)
    assert str(caught.value) == told
    with pytest.raises(ValueError, match="temperature"):
        model.generate(["ab 01"], mbr=8, temperature=0)
