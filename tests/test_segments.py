"""Long text as sentences and back: nothing of it is lost, whatever it is and whatever a segmenter makes of it."""

# ruff: noqa: RUF001 (letters of other scripts look like ours)

import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon import segments
from antiphon.segments import How, Segmenter, Segments, split

# Text at random, and text made of what sentences, lists and lines are made of.
PARTS = [
    *"aB é1.?!,;:'\"()[]-*#>\t\n\r\u00a0\u202f\u3000\u2028\x85\x1c\u200b\u0301。「」؟।…«»“”",
    "\r\n",
    "Dr.",
    "M.",
    "1. ",
]
anything = st.one_of(st.text(), st.lists(st.sampled_from(PARTS)).map("".join))
languages = st.sampled_from(["en", "fr", "de", "zh", "ar", "hi", "el", "my", "pt-BR", "xx", ""])


def check_law(text: str, found: Segments) -> None:
    assert found.join(found.sentences) == text
    assert len(found.gaps) == len(found.sentences) + 1
    assert all(sentence and sentence == sentence.strip() for sentence in found.sentences)


@settings(deadline=None)
@given(anything, languages, st.sampled_from(["none", "sentence"]))
def test_nothing_of_a_text_is_lost(text: str, language: str, how: How) -> None:
    check_law(text, split(text, how, language))


@settings(deadline=None)
@given(anything, st.lists(st.text(max_size=5)))
def test_nothing_of_a_text_is_lost_by_a_segmenter_that_makes_things_up(text: str, pieces: list[str]) -> None:
    check_law(text, split(text, segmenter=lambda line: pieces))


@given(anything, st.integers(1, 9))
def test_nothing_of_a_text_is_lost_by_windows(text: str, window: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segments, "WINDOW", window)
        check_law(text, split(text))


def test_half_a_surrogate_pair_stays_where_it_is() -> None:
    check_law("One. \ud800 Two.\nThree. Four.", split("One. \ud800 Two.\nThree. Four."))


@pytest.mark.parametrize(
    ("language", "marked"),
    [
        ("en", "Dr. Smith went to Washington.|He arrived at 5 p.m. on Monday."),
        ("en", "It costs 3.50 dollars.|That is 12.5% more."),
        ("en", '"Stop!" she said.|"Why?" he asked.'),
        ("en", "Well... I do not know.|Wait… what?"),
        ("en", "He lives in the U.S.|She does not.|The U.S. Army left."),
        ("en", "J. K. Rowling wrote it.|Mrs. Jones read it, e.g. at night.|Really?!|Yes."),
        ("en", "I left.|He stayed."),
        ("de", "Das ist z.B. ein Test.|Am 3. Oktober war Feiertag.|Dr. Müller kam."),
        ("fr", "J'ai vu M. Dupont et le Dr. Martin.|«\u00a0Oui\u00a0!\u00a0» dit-il.|Vraiment\u202f?|C. Bernard dort."),
        ("pt-BR", "O Sr. Silva chegou.|Está bem?"),
        ("ru", "Он родился в 1990 г. в Москве.|Правда?"),
        ("ar", "كيف حالك؟|أنا بخير.|شكرا!"),
        ("hi", "यह पहला वाक्य है।|यह दूसरा है।|क्या?"),
        ("el", "Τι κάνεις;|Καλά."),
        ("hy", "Բարև։|Ինչպես ես։"),
        ("am", "ሰላም ነው።|እንዴት ነህ፧"),
        ("of nowhere", "One.|Two!|Three?"),
    ],
)
def test_sentences_are_those_of_the_language(language: str, marked: str) -> None:
    assert split(marked.replace("|", " "), "sentence", language).sentences == tuple(marked.split("|"))


@pytest.mark.parametrize("language", ["zh", "zh-Hant", "ja", "xx"])
def test_sentences_without_space_between_are_found(language: str) -> None:
    assert split("你好。你是谁？我是张三！", "sentence", language).sentences == ("你好。", "你是谁？", "我是张三！")
    assert split("I left.He stayed.").sentences == ("I left.", "He stayed.")


def test_a_language_is_known_by_its_base() -> None:
    text = "Am 3. Oktober kam er."
    assert len(split(text, "sentence", "de").sentences) == 1
    assert all(split(text, "sentence", code) == split(text, "sentence", "de") for code in ("de-AT", "DE", "de_CH"))


def test_layout_lies_between_the_sentences() -> None:
    text = (
        "# Title\n\n> quoted. Twice.\r\n\t- Do it. Now!\n  • One\n(a) Two\n"
        "1. First. 2. Second.\n* * *\n-----\n\n a\u2028b \n"
    )
    found = split(text)
    assert found.sentences == (
        *("Title", "quoted.", "Twice.", "Do it.", "Now!", "One", "Two", "First.", "Second.", "a", "b"),
    )
    check_law(text, found)
    answers = [sentence.upper() for sentence in found.sentences]
    assert found.join(answers) == text.replace("(a)", "(A)").upper().replace("(A)", "(a)")


@pytest.mark.parametrize("text", ["", " ", "\n\r\n", "---", "* * *", "?!", "\u3000"])
def test_what_has_no_word_has_no_sentence(text: str) -> None:
    assert split(text) == Segments((text,), ())
    assert split(text).join([]) == text


def test_a_tag_before_a_text_belongs_to_each_of_its_sentences() -> None:
    found = split(" fr One. Two.\n", tags=("de", "fr"))
    assert found.sentences == ("One.", "Two.")
    assert found.sources == ["fr One.", "fr Two."]
    assert found.join(["Un.", "Deux."]) == "Un. Deux.\n"
    assert split("fr One. Two.", "none", tags=("fr",)).sources == ["fr One. Two."]
    for text in ("One. fr Two.", "French. Two.", "fr"):
        assert split(text, tags=("fr",)) == split(text)
    assert split("fr One. Two.").sources == ["fr One.", "Two."]


def test_none_is_all_in_one() -> None:
    assert split(" One. Two.\n\nThree.\n", "none") == Segments((" ", "\n"), ("One. Two.\n\nThree.",))
    assert split(" \n", "none") == Segments((" \n",), ())


def test_answers_are_put_as_they_are() -> None:
    assert split("One. Two.\n").join(["", " 2 "]) == "  2 \n"


@pytest.mark.parametrize("answers", [[], ["a"], ["a", "b", "c"]])
def test_another_number_of_answers_is_refused(answers: list[str]) -> None:
    with pytest.raises(ValueError, match=f"expected 2, one for each sentence, found {len(answers)}"):
        split("One. Two.").join(answers)


def test_another_way_to_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'words'; it can be none or sentence\.$"):
        split("a", "words")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("segmenter", "sentences"),
    [
        (lambda line: line.split(";"), ("a; b", "c")),  # loses what it splits at
        (lambda line: re.split("(?<=;)", line), ("a;", "b", "c")),
        (lambda line: [part + " " for part in re.split("(?<=;)", line)], ("a;", "b", "c")),
        (lambda line: [line.upper()], ("a; b", "c")),
        (lambda line: [], ("a; b", "c")),
        (lambda line: [line, line], ("a; b", "c")),
        (lambda line: list(reversed(line.split())), ("a; b", "c")),
    ],
)
def test_a_line_stays_whole_where_a_segmenter_changes_it(segmenter: Segmenter, sentences: tuple[str, ...]) -> None:
    assert split(" a; b\nc", segmenter=segmenter).sentences == sentences


def test_a_segmenter_of_one_s_own_fails_aloud() -> None:
    with pytest.raises(ZeroDivisionError):
        split("a", segmenter=lambda line: [str(1 // 0)])


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


def failing(error: BaseException) -> Callable[[str, str], list[str]]:
    def segment(language: str, text: str) -> list[str]:
        raise error

    return segment


@pytest.mark.parametrize("error", [Panic(), ValueError("odd")])
def test_a_line_on_which_the_library_fails_stays_whole(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentencex.segment", failing(error))
    assert split("One. Two.\nThree.").sentences == ("One. Two.", "Three.")


def test_the_library_cannot_stop_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentencex.segment", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        split("One. Two.")


def test_windows_find_the_sentences_that_the_line_has() -> None:
    sentences = [f"Sentence {'word ' * (number % 40)}number {number}." for number in range(1000)]
    text = " ".join(sentences)
    assert len(text) > 10 * segments.WINDOW
    assert split(text).sentences == tuple(sentences)
    long = " ".join(["word"] * segments.WINDOW) + "."
    assert split(f"One. {long} Two.").sentences == ("One.", long, "Two.")


@pytest.mark.parametrize(
    "unit", ["a", "a.", "“", "'", "a“", "「a。", "M. ", "A. ", "1. ", "- ", "(", "a\n", "\n", " ", "[1]."]
)
def test_long_text_of_any_kind_is_quick(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    split("a", "sentence", "fr")
    start = time.process_time()
    check_law(text, split(text, "sentence", "fr"))
    assert time.process_time() - start < 5  # of the processor: what is quadratic takes minutes


def test_the_library_is_loaded_when_it_is_used() -> None:
    program = "import sys, antiphon.segments as s; s.split('a. b', 'none'); print('sentencex' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
