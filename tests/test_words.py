"""Tokens put together as words: each is found in the text, and their probabilities are those of the tokens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.words import Word, words_of

HALF = math.log(0.5)


def told(text: str, pieces: list[str], apart: bool = False) -> list[tuple[str, float]]:
    found = words_of(text, pieces, [HALF] * len(pieces), apart)
    return [(word.text, round(word.probability, 6)) for word in found]


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("Le chat dort.", [" Le", " ch", "at", " dort", "."], [("Le", 0.5), ("chat", 0.25), ("dort.", 0.25)]),
        ("ab c", ["a", "b", " ", "c"], [("ab", 0.25), ("c", 0.25)]),  # characters: a space belongs to what follows
        ("a  b", ["a", "  b"], [("a", 0.5), ("b", 0.5)]),
        ("", [], []),
        ("猫が寝る", [" 猫", "が", "寝", "る"], [("猫", 0.5), ("が", 0.5), ("寝", 0.5), ("る", 0.5)]),
        ("é a", ["\\xc3", "\\xa9", " a"], [("é", 0.25), ("a", 0.5)]),  # bytes that are a letter together
        ("a é", ["a", " \\xc3", "\\xa9"], [("a", 0.5), ("é", 0.25)]),
        ("éa a", ["\\xc3", "\\xa9", "a", " ", "a"], [("éa", 0.125), ("a", 0.25)]),  # with others in a word
        ("éa", ["\\xc3", "\\xa9", "a", "b"], [("éa", 0.125)]),  # that was cut
        ("한 국", ["한", " ", "국"], [("한", 0.5), ("국", 0.25)]),  # jamo, composed
        ("Le", [" Le", " chat"], [("Le", 0.5)]),  # the text was cut
        ("Le chat", [" Le", " ch", "at", ".", " Il", " dort"], [("Le", 0.5), ("chat", 0.25)]),  # within a word
    ],
)
def test_words_are_what_stands_between_spaces(text: str, pieces: list[str], expected: list[tuple[str, float]]) -> None:
    assert told(text, pieces) == expected


def test_tokens_that_are_words_by_themselves_stay_apart() -> None:
    assert told("K AE1 T", ["K", "AE1", "T"], apart=True) == [("K", 0.5), ("AE1", 0.5), ("T", 0.5)]


@given(st.lists(st.text(min_size=1), max_size=12), st.lists(st.booleans(), max_size=12), st.booleans())
def test_every_word_is_found_in_the_text_in_its_order(pieces: list[str], cut: list[bool], apart: bool) -> None:
    text = "".join(piece for piece, gone in zip(pieces, [*cut, *[False] * 12], strict=False) if not gone).strip()
    found = words_of(text, pieces, [HALF] * len(pieces), apart)
    place = 0
    for word in found:
        assert word.text
        assert 0 < word.probability <= 1
        start = text.index(word.text, place)
        assert not text[place:start].strip(), "something of the text is in no word"
        place = start + len(word.text)
    assert not text[place:].strip()


def test_a_word_is_a_record() -> None:
    assert words_of("a", ["a"], [0.0]) == [Word("a", 1.0)]
