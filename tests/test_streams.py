"""Text that is told while it grows: whatever is told stays, and all of it together is the text."""

import asyncio
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws.toys import facts

from antiphon.choosing import Choice
from antiphon.config import Config, GenerationConfig, Normalization, TokenizerConfig, TokenizerKind
from antiphon.data.pairs import Pair
from antiphon.decoding.search import Hypothesis
from antiphon.engine.pool import Ticket
from antiphon.engine.request import Failure, Finished, Progress, Times
from antiphon.ids import BOS, EOS, PAD, UNK
from antiphon.segments import Segments, split
from antiphon.serving.answers import Answer, Delta, Plan, cut
from antiphon.serving.errors import RefusedError
from antiphon.text_side import LONG_TEXT, TextSide
from antiphon.tokenizer import train_tokenizers

KINDS: list[TokenizerKind] = [kind for kind in get_args(TokenizerKind) if kind != "auto"]
FORMS: tuple[Normalization, ...] = get_args(Normalization)
TEXTS = [
    "The cat sat on the mat, twice.",
    "Un été à Noël: « ça va ? » — œuvre, naïf",
    "👩‍👩‍👧‍👦 and 🇫🇷🇩🇪, 👍🏽 1️⃣ 🏴\U000e0067\U000e0062\U000e007f",
    "한국어 문장을 번역합니다. 각각",
    unicodedata.normalize("NFD", "한국어 각각 흙"),
    "e\u0301 a\u0308\u0304 q\u0323\u0307 \u0301x",
    "مرحبا بالعالم، كَيْفَ حالُك؟",
    "שָׁלוֹם עולם",
    "কো কৌ ஔ ொ ಕೋ ഌൗ",  # marks of class 0 that compose
    "ﬁne ½ Ⅷ ｶﾞ",  # compatibility characters
    "x\ufffdy \ufffd",
    "a\r\n\tb  c\u200b\u00a0d\x00e",
]
every_tokenizer = pytest.mark.parametrize(("kind", "form"), [(kind, form) for kind in KINDS for form in FORMS])


@cache
def side(kind: TokenizerKind, form: Normalization) -> TextSide:
    wanted = TokenizerConfig(source="words", target=kind, vocab_size=330, target_normalization=form, joint=False)
    pairs = [Pair("a", text) for text in TEXTS[:-2] for _ in range(3)]
    return TextSide(train_tokenizers(pairs, wanted), Config(tokenizer=wanted), facts())


any_text = st.text(max_size=20) | st.lists(
    st.sampled_from(["👩‍👧", "🇫🇷", "é", "e", "\u0301", "\u0323", "각", "\u1100", "\u1161", "\u11a8", "ா", "ெ", "\u0cc6"])
    | st.sampled_from(["\u0cc2", "\u0cd5", "שׁ", "كَ", " ", "  ", "\ufffd", "a", "\u200d", "\ufe0f", "\x00", "\n"]),
    max_size=12,
).map("".join)


def check_growth(model: TextSide, ids: Sequence[int]) -> None:
    told = [model.settled_text(ids[:size]) for size in range(len(ids) + 1)]
    assert all(later.startswith(earlier) for earlier, later in pairwise([*told, model.tokenizers.target.decode(ids)]))


@every_tokenizer
def test_texts_of_many_scripts_grow_wherever_they_are_cut(kind: TokenizerKind, form: Normalization) -> None:
    model = side(kind, form)
    for text in TEXTS:
        ids = model.tokenizers.target.encode(text)
        check_growth(model, ids)
        if kind in ("bytes", "bpe", "unigram", "chars") and text not in TEXTS[-2:]:  # what is told is not far behind
            assert len(model.settled_text(ids)) >= len(text.rstrip("\ufffd")) / 2 - 6


@every_tokenizer
@settings(max_examples=60)
@given(text=any_text)
def test_any_text_grows_wherever_it_is_cut(kind: TokenizerKind, form: Normalization, text: str) -> None:
    model = side(kind, form)
    check_growth(model, model.tokenizers.target.encode(text))


@every_tokenizer
@settings(max_examples=60)
@given(data=st.data())
def test_any_tokens_grow_to_their_text_whatever_bytes_they_are(
    kind: TokenizerKind, form: Normalization, data: st.DataObject
) -> None:
    """A model may say what no text is encoded to."""
    model = side(kind, form)
    check_growth(model, data.draw(st.lists(st.integers(EOS + 1, model.tokenizers.target.vocab_size - 1), max_size=12)))


def test_a_character_is_told_as_soon_as_it_is_whole() -> None:
    model = side("bytes", "NFC")
    ids = model.tokenizers.target.encode("é👩x")
    told = [model.settled_text(ids[:size]) for size in range(len(ids) + 1)]
    assert told == ["", "", "é", "é", "é", "é", "é👩", "é👩x"]


def test_a_syllable_is_told_when_no_jamo_can_change_it() -> None:
    model = side("chars", "NFD")
    ids = model.tokenizers.target.encode("가각나")
    assert [model.settled_text(ids[:size]) for size in range(len(ids) + 1)] == [
        "",
        "",
        "",
        "가",
        "가",
        "가",
        "가각",
        "가각",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_has_the_ids_of_its_tokenizer(kind: TokenizerKind) -> None:
    model = side(kind, "NFD")
    text = " ".join(TEXTS) * 60
    assert len(text) > LONG_TEXT
    assert model.target_ids(text) == model.tokenizers.target.encode(text)
    assert model.source_ids(text) == [*model.tokenizers.source.encode(text), EOS]


# What the service tells


def ended(tokens: Sequence[int], cut: bool = False) -> Finished:
    hypothesis = Hypothesis(tuple(tokens) if cut else (*tokens, EOS), (-0.1,) * (len(tokens) + 1), -1.0)
    return Finished([hypothesis], Times(0, 0, 0, 0))


def plan_of(model: TextSide, segments: Segments, stop: Sequence[str] = ()) -> Plan:
    sources = [(4, EOS) for _ in segments.sentences]
    return Plan("toy", model, GenerationConfig(), (), segments, sources, tuple(stop), 0.0, Choice(1))


def followed(plan: Plan, outputs: Sequence[Sequence[int]], sizes: Iterator[int]) -> tuple[list[str], Answer]:
    """Deltas and the answer when each output comes in pieces of some tokens."""

    async def follow() -> list[Delta | Answer]:
        tickets = []
        for number, tokens in enumerate(outputs):
            ticket = Ticket(number, 1, lambda _: None)
            start = 0
            while (size := next(sizes, 0)) and start < len(tokens):
                ticket.put(Progress(tuple(tokens[start : start + size])))
                start += size
            ticket.put(ended(tokens))
            tickets.append(ticket)
        return [part async for part in plan.follow(tickets)]

    *deltas, answer = asyncio.run(follow())
    assert isinstance(answer, Answer)
    assert all(isinstance(delta, Delta) and delta.text for delta in deltas)
    return [delta.text for delta in deltas if isinstance(delta, Delta)], answer


NOTHING: Iterator[int] = iter(())


@every_tokenizer
@settings(max_examples=40)
@given(data=st.data())
def test_deltas_make_up_the_text_exactly(kind: TokenizerKind, form: Normalization, data: st.DataObject) -> None:
    model = side(kind, form)
    text = data.draw(st.sampled_from(["", "One.", "One. Two!\n\n - three\n---\n", "  \n"]), "source")
    segments = split(text)
    ids = st.lists(st.integers(EOS + 1, model.tokenizers.target.vocab_size - 1), max_size=8)
    output = any_text.map(model.tokenizers.target.encode) | ids
    count = len(segments.sentences)
    outputs = data.draw(st.lists(output, min_size=count, max_size=count), "outputs")
    sizes = data.draw(st.lists(st.integers(1, 3), max_size=40), "sizes")
    texts = [model.tokenizers.target.decode(output) for output in outputs]
    whole = segments.join(texts)
    stop = data.draw(st.lists(st.text("ae. 각é\u0301", min_size=1, max_size=3) | parts(whole), max_size=3), "stop")
    deltas, answer = followed(plan_of(model, segments, stop), outputs, iter(sizes))
    assert "".join(deltas) == answer.outputs[0].text == cut(whole, stop)
    assert [output.text for _, output in answer.sentences] == texts
    assert not any(one in answer.outputs[0].text for one in stop)


def parts(text: str) -> st.SearchStrategy[str]:
    """Those of a text."""
    if not text:
        return st.nothing()
    ends = st.tuples(st.integers(0, len(text) - 1), st.integers(1, 4))
    return ends.map(lambda end: text[end[0] : end[0] + end[1]])


@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [
        ("abcabc", ["ca"], "ab"),
        ("abc", ["abc", "b"], "a"),  # b is complete first
        ("abc", ["bc", "abc"], ""),  # both are complete at once
        ("abc", ["x"], "abc"),
        ("abc", ["cd"], "abc"),  # which may still come, until the end
        ("aab", ["ab"], "a"),
        ("", ["a"], ""),
    ],
)
def test_stops_end_the_text_the_same_whether_it_is_streamed_or_not(text: str, stop: list[str], left: str) -> None:
    model = side("bytes", "NFC")
    ids = model.tokenizers.target.encode(text)
    for size in range(4):
        plan = plan_of(model, Segments(("", ""), ("x",)), stop)
        deltas, answer = followed(plan, [ids], iter([size] * 20))
        assert "".join(deltas) == answer.outputs[0].text == left
        assert plan.answer([ended(ids)]).outputs[0].text == left


@settings(max_examples=300)
@given(text=st.text("ab", max_size=12), stop=st.lists(st.text("ab", min_size=1, max_size=4), max_size=4))
@example(text="aab", stop=["ab", "aab", "b"])
def test_a_stop_cuts_for_good(text: str, stop: list[str]) -> None:
    whole = cut(text, stop)
    for size in range(len(text)):
        if len(cut(text[:size], stop)) < size:
            assert cut(text[:size], stop) == whole


def test_a_failure_on_the_way_is_raised_after_what_was_told() -> None:
    model = side("bytes", "NFC")
    plan = plan_of(model, Segments(("", ""), ("x",)))

    async def follow() -> None:
        ticket = Ticket(1, 1, lambda _: None)
        ticket.put(Progress(tuple(model.tokenizers.target.encode("abc"))))
        ticket.put(Failure("lost", "gone."))
        parts = plan.follow([ticket])
        assert await anext(parts) == Delta("abc", (*model.tokenizers.target.encode("abc"),))
        with pytest.raises(RefusedError, match="gone") as refused:
            await anext(parts)
        assert refused.value.status == 503
        assert refused.value.retry_after == 1

    asyncio.run(follow())


def test_special_tokens_are_no_text() -> None:
    for kind in KINDS:
        model = side(kind, "NFC")
        assert model.settled_text([PAD, BOS, EOS]) == ""
        assert model.settled_text([UNK]) == ""
        assert model.settled_text([]) == ""
