"""The words of an output, each with how sure the model was of it: tokens put together as people read them.

A word goes from one space to the next; in a script that puts none between words (Han, kana, Thai and the like) every
token is one. This file knows no tokenizer: tokens are given as the pieces that a person may look at.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # how Unicode names these letters
_BYTES = re.compile(r"(?:\\x[89a-f][0-9a-f])+")  # those of characters that are several tokens, as pieces show them


@dataclass(frozen=True)
class Word:
    """A word as it stands in the text. probability: that of its tokens, each after those before it, multiplied."""

    text: str
    probability: float


def words_of(text: str, pieces: Sequence[str], log_probs: Sequence[float], apart: bool = False) -> list[Word]:
    """The words of a text whose tokens are `pieces`, in their order; each can be found in the text after the one
    before it. apart: every token is a word by itself. What is in the pieces and not in the text (a text may have been
    cut, also within a word) yields no words."""
    found: list[Word] = []
    place, pending = 0, 0.0  # up to where the text has been told, and the log-probability of what comes next in it
    for group in _groups(pieces, apart):
        word = unicodedata.normalize("NFC", _characters([pieces[index] for index in group])).strip()
        log_prob = sum(log_probs[index] for index in group)
        start = text.find(word, place) if word else -1
        rest = text[place:].strip()
        if start < 0 and rest and word.startswith(rest):  # the text ends within this word
            so_far = [_characters([pieces[index] for index in group[:count]], "ignore") for count in range(len(group))]
            count = sum(len(one.strip()) < len(rest) for one in so_far)
            log_prob = sum(log_probs[index] for index in group[:count])
            return [*found, Word(rest, math.exp(pending + log_prob))]
        if start < 0:  # bytes that are a character only together with others
            pending += log_prob
            continue
        if between := text[place:start].strip():
            found.append(Word(between, math.exp(pending)))
        else:
            log_prob += pending
        found.append(Word(word, math.exp(log_prob)))
        place, pending = start + len(word), 0.0
    if rest := text[place:].strip():
        found.append(Word(rest, math.exp(pending)))
    return found


def _characters(pieces: Sequence[str], errors: str = "backslashreplace") -> str:
    """Pieces as text. errors: what becomes of bytes that are no whole character."""
    return _BYTES.sub(lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode("utf-8", errors), "".join(pieces))


def _groups(pieces: Sequence[str], apart: bool) -> Iterator[list[int]]:
    """The tokens of each word. A token that only makes space belongs to the word after it."""
    group: list[int] = []
    so_far = ""
    for index, piece in enumerate(pieces):
        begins = apart or piece[:1].isspace() or so_far[-1:].isspace() or _is_unspaced(piece[:1])
        if begins and so_far.strip():
            yield group
            group, so_far = [], ""
        group.append(index)
        so_far += piece
    if group:
        yield group


def _is_unspaced(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(UNSPACED) if letter else False
