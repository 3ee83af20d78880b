"""Which outputs of a search are given: those that leave out less of what must be said come first."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.choosing import Choice, left_out, phrases_by
from antiphon.config import GenerationConfig
from antiphon.run import Model

phrases = st.lists(st.text("aB1.(é", min_size=1, max_size=2), max_size=4)


@dataclass(frozen=True)
class Said:
    text: str


@given(st.lists(st.text("ab1.(É ", max_size=8), max_size=6), phrases)
def test_less_left_out_is_before_more_and_else_the_order_is_the_search_s(texts: list[str], wanted: list[str]) -> None:
    outputs = [Said(text) for text in texts]
    chosen = Choice(len(texts), keep=lambda _: wanted).among("", outputs)
    places = sorted(range(len(texts)), key=lambda place: (left_out(texts[place], wanted), place))
    assert [id(one) for one in chosen] == [id(outputs[place]) for place in places]
    assert Choice(2, keep=lambda _: wanted).among("", outputs) == chosen[:2]


@given(st.text("ab é(.", max_size=8), phrases)
def test_a_phrase_without_digits_is_left_out_unless_it_is_a_part_of_the_text(text: str, wanted: list[str]) -> None:
    without = [phrase for phrase in wanted if "1" not in phrase]
    assert left_out(text, without) == sum(phrase.lower() not in text.lower() for phrase in without)


def test_a_number_is_no_part_of_a_longer_one() -> None:
    assert left_out("in room 15b for 3.5 euros", ["15", "3.5", "5", "3"]) == 0
    assert left_out("in room 15b", ["1", "5", "15b", "115"]) == 3


def test_a_phrase_is_found_in_either_unicode_form() -> None:
    composed, apart = "Caf\u00e9", "Cafe\u0301"
    assert left_out(composed, [apart]) == left_out(apart, [composed]) == 0
    assert phrases_by(r"\w+")(apart) == [composed]


def test_an_expression_finds_phrases_in_a_source_by_its_groups_if_it_has_some() -> None:
    assert phrases_by(r"\d+")("from 10 to 12") == ["10", "12"]
    assert phrases_by(r"(\w+)=(\w+)?")("name=orexi;food=;area") == ["name", "orexi", "food"]
    assert phrases_by("x*")("ab") == []


def test_a_model_gives_the_hypothesis_of_its_beam_that_says_most(model: Model) -> None:
    source = "ab 01 M U )"  # letters that this model says sometimes
    (found,) = model.outputs([source], beam_size=6, n_best=6)
    lacking = [word for word in source.split() if left_out(found[0].text, [word])]
    word = next(word for word in lacking if not all(left_out(one.text, [word]) for one in found))
    kept = model.outputs([source, ""], beam_size=6, keep=re.escape(word))
    assert kept[0] == [next(one for one in found if not left_out(one.text, [word]))] != found[:1]
    assert kept[1][0].text == ""
    assert model.outputs([source], beam_size=6, n_best=2, keep="nothing like this") == [found[:2]]


def test_samples_may_be_ordered_too() -> None:
    usual = GenerationConfig(sample=True, n_best=3)
    assert Choice(3, keep=phrases_by("a")).to_search({}, usual) == {"n_best": 3}
    assert Choice(1, mbr=8, keep=phrases_by("a")).to_search({}, usual)["n_best"] == 8


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"keep": "("},
            "keep: '(' is no regular expression (missing ), unterminated subpattern at position 0); mend it.",
        ),
        (
            {"keep": "a{99999999999}"},
            "keep: 'a{99999999999}' is no regular expression (the repetition number is too large); mend it.",
        ),
        ({"keep": ["a"]}, "keep: ['a'] is no regular expression; give a text, 'a|b' for several phrases."),
        ({"keep": "a", "beam_size": "5"}, "beam_size is '5'; give a whole number."),
        ({"mbr": 4, "n_best": "2"}, "n_best is '2'; give a whole number."),
        ({"keep": "a"}, "keep chooses among several outputs, and here is one; search with a beam of 5, say."),
        (
            {"keep": "a", "sample": True},
            "keep chooses among several outputs, and here is one; search with a beam of 5, say.",
        ),
        ({"keep": "a", "beam_size": 4, "n_best": 5}, "n_best is 5, of 4 hypotheses; it can be 1 to 4."),
    ],
)
def test_what_cannot_be_is_told(settings: dict[str, Any], told: str, model: Model) -> None:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        model.generate(["ab 01"], **settings)
    assert str(caught.value) == told
