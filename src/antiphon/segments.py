"""Long text as sentences, and back with its layout kept.

A model answers sentences. `split` takes a text apart into them and what lies between; `Segments.join` puts answers in
their places. Between them lie white space with its line breaks as they are, bullets and numbers of lists, marks of
headings and quotations, and lines and pieces without a letter or digit. A line break ends a sentence.

Where a line has its sentences is told by a segmenter, any function from a line to its pieces. The one that comes with
this is sentencex (some 300 languages, by rule, no download). This file trusts no segmenter with the text: pieces are
looked up in the line, and a line in which they are not found stays whole. It knows no model.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

Segmenter = Callable[[str], list[str]]  # a line to its sentences in order; white space around them is free
How = Literal["none", "sentence"]
Span = tuple[int, int]

WINDOW = 4096  # characters that sentencex sees at once: it is quadratic in unclosed quotation marks

_SPACE = re.compile(r"\s")
_LINE_START = re.compile(r"\s*(?:(?:[-+*•‣◦▪●○·\u2013]|>+|#{1,6}|\(?(?:\d{1,3}|[a-z])\))\s+)*")
_LIST_NUMBER = re.compile(r"\(?(?:\d{1,3}|[a-z]|[ivxl]{2,5})[.)]")
_BEFORE_WORD = re.compile(r"\W*")
_INITIAL = re.compile(r"[^\W\d_]\.")

# Words that stand before a name or a number, where sentencex would end the sentence.
_BEFORE_NAMES = {
    "de": {"Abs.", "Bd.", "inkl.", "geb.", "gest."},
    "es": {"Dña."},
    "fr": {"M.", "Dr.", "Pr.", "Me.", "Mgr.", "St."},
    "it": {"pag."},
    "nl": {"Mevr.", "d.w.z.", "o.a."},
    "pl": {"dr.", "mgr.", "inż.", "tj.", "str.", "nr.", "ok.", "św.", "al."},
    "pt": {"Profa.", "pág.", "núm.", "Av."},
    "ru": {"им.", "рис.", "обл."},
    "tr": {"Doç.", "Av.", "örn.", "Sok.", "Cad."},
    "uk": {"рис."},
}


@dataclass(frozen=True)
class Segments:
    """A text taken apart: gap, sentence, gap, ..., sentence, gap. `gaps` are one more than `sentences`.

    No sentence is blank or has white space at its ends. tag: what the text began with, to tell a model what is wanted.
    """

    gaps: tuple[str, ...]
    sentences: tuple[str, ...]
    tag: str = ""

    @property
    def sources(self) -> list[str]:
        """Each sentence as a model shall read it: with the tag."""
        return [f"{self.tag} {sentence}" if self.tag else sentence for sentence in self.sentences]

    def join(self, answers: Sequence[str]) -> str:
        """The text with an answer in the place of each sentence. Raises ValueError unless there is one for each."""
        if len(answers) != len(self.sentences):
            raise ValueError(
                f"answers: expected {len(self.sentences)}, one for each sentence, found {len(answers)}; give one for "
                "each, which may be blank."
            )
        return self.gaps[0] + "".join(answer + gap for answer, gap in zip(answers, self.gaps[1:], strict=True))


def split(
    text: str,
    how: How = "sentence",
    language: str = "en",
    segmenter: Segmenter | None = None,
    tags: Sequence[str] = (),
) -> Segments:
    """A text as its sentences and what lies between; `join` of the sentences is the text itself, without its tag.

    how: "sentence", or "none": all of it, without the white space around, is one. language: a code such as "pt" or
    "pt-BR"; for one that is not known, rules that suit most. segmenter: instead of sentencex. tags: one of them may
    stand before the text, and then belongs to each sentence. Raises ValueError for another `how`.
    """
    if how not in get_args(How):
        raise ValueError(f"how a text is split is {how!r}; it can be {' or '.join(get_args(How))}.")
    tag, text = _tag(text, tags)
    if how == "none":
        start = len(text) - len(text.lstrip())
        spans = [(start, len(text.rstrip()))] if text.strip() else []
    else:
        spans = list(_spans(text, segmenter or partial(_segment, language=_base(language))))
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    parts = [text[start:end] for start, end in pairwise(edges)]
    return Segments(gaps=tuple(parts[::2]), sentences=tuple(parts[1::2]), tag=tag)


def _tag(text: str, tags: Sequence[str]) -> tuple[str, str]:
    """The tag that a text begins with, or "", and what follows."""
    first, space, rest = text.lstrip().partition(" ")
    return (first, rest) if space and first in tags else ("", text)


def _base(language: str) -> str:
    """The language of a code: that of "pt-BR", "pt_BR" and "PT" is "pt"."""
    return re.split("[-_]", language.strip().lower())[0]


def _spans(text: str, segmenter: Segmenter) -> Iterator[Span]:
    """Where the sentences of all lines stand in the text."""
    start = 0
    for line in text.splitlines(keepends=True):
        begin = _line_start(line)
        body = line[begin:].rstrip()
        if _has_word(body):
            for first, last in _sentences(body, segmenter):
                yield start + begin + first, start + begin + last
        start += len(line)


def _line_start(line: str) -> int:
    """Where a line begins after its indentation, bullet, number in brackets, heading or quotation mark."""
    match = _LINE_START.match(line)
    assert match
    return match.end()


def _has_word(text: str) -> bool:
    return any(map(str.isalnum, text))


def _sentences(body: str, segmenter: Segmenter) -> Iterator[Span]:
    """Where the sentences of one line stand in it: all but numbers of lists and pieces without a letter or digit."""
    spans = _find(body, segmenter(body))
    for index, (start, end) in enumerate(spans):
        is_number = index + 1 < len(spans) and _LIST_NUMBER.fullmatch(body, start, end)
        if not is_number and _has_word(body[start:end]):
            yield start, end


def _find(body: str, pieces: Sequence[str]) -> list[Span]:
    """Where the pieces stand in a line; all of the line is one when they do not make it up, but for white space."""
    spans, end = [], 0
    for piece in map(str.strip, pieces):
        start = body.find(piece, end)
        if start < 0 or body[end:start].strip():
            return [(0, len(body))]
        end = start + len(piece)
        if piece:
            spans.append((start, end))
    return [(0, len(body))] if body[end:].strip() else spans


def _segment(line: str, language: str) -> list[str]:
    """The sentences of a line by sentencex, a window at a time; together they are the line.

    The last sentence of a window may go on, so the next window begins with it. Where one fills a window, the next
    begins in its middle, and what was found to be no end there is none.
    """
    ends, start, settled = [0], 0, 0
    while start < len(line):
        sizes = [len(piece) for piece in _segment_window(line[start : start + WINDOW], language)]
        is_last = start + WINDOW >= len(line)
        if len(sizes) == 1 and not is_last:
            settled = start + WINDOW
            start += (WINDOW + 1) // 2
            continue
        for size in sizes if is_last else sizes[:-1]:
            start += size
            if start >= settled:
                ends.append(start)
    return [line[start:end] for start, end in pairwise(ends)]


def _segment_window(window: str, language: str) -> list[str]:
    """The sentences in a window, of the lengths that they have there; all of it is one where sentencex fails."""
    from sentencex import segment

    plain = _SPACE.sub(" ", window)  # it fails at other white space before a full stop
    try:
        pieces = segment(language, plain)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of its Rust is no Exception
        return [window]
    if "".join(pieces) != plain:
        return [window]
    return _joined(pieces, _BEFORE_NAMES.get(language, set()))


def _joined(pieces: Sequence[str], before_names: set[str]) -> list[str]:
    """Pieces without empty ones, and with those that end before a name joined to the next."""
    whole: list[str] = []
    for piece in filter(None, pieces):
        if whole and _names_next(whole[-1], before_names):
            whole[-1] += piece
        else:
            whole.append(piece)
    return whole


def _names_next(piece: str, before_names: set[str]) -> bool:
    """Whether a piece ends with a word that stands before a name, or is nothing but an initial ("C.")."""
    words = piece.rsplit(None, 1)
    last = _BEFORE_WORD.sub("", words[-1], count=1) if words else ""
    is_initial = len(words) == 1 and _INITIAL.fullmatch(last) is not None and last[0].isupper()
    return is_initial or last in before_names
