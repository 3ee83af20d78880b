"""HTML as the texts in it and the markup between them, and back with the markup untouched.

The same form as a text and its sentences: `Segments`. Tags, attributes, comments, scripts, styles and whatever holds
no letter or digit are gaps, character for character. What is code (`code`, `kbd`, `samp`, `var`), or says that it is
not to be translated (`translate="no"`, class `notranslate`), is a gap too. It reads as browsers do: what is opened and
not closed reaches to the end. One pass over the text, whatever is in it.
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from antiphon.segments import Segments

_OPENING = re.compile(r"<(?:!--|[!?]|/?[a-zA-Z])")
_TAG = re.compile(r"</?([a-zA-Z][^\s/>]*+)(?:=[ \t\r\n\f]*(?:\"[^\"]*\"|'[^']*')|[^>])*+>")
_SPACE = re.compile(r"[ \t\r\n\f]+")
_NOT_TRANSLATED = re.compile(
    r"\stranslate\s*=\s*[\"']?no\b|\sclass\s*=\s*(?:notranslate\b|\"[^\"]*\bnotranslate\b|'[^']*\bnotranslate\b)", re.I
)
BLANKS = (" ", "\t", "\n", "\r", "\f", "\xa0", "&nbsp;", "&#160;")  # at the ends of a text, where they stay
RAW = {"script", "style"}  # without tags or entities in them
CODE = {"code", "kbd", "samp", "var"}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
RAW_END = {name: re.compile(f"</{name}", re.I) for name in RAW}


@dataclass(frozen=True)
class _Piece:
    """A stretch of the HTML as it stands. is_text: it may be translated; in_pre: its white space is shown."""

    source: str
    is_text: bool
    in_pre: bool = False


def take_apart(text: str) -> Segments:
    """The texts of a piece of HTML, without entities and without what white space a browser does not show."""
    gaps, texts, gap = [], [], []
    for piece in _pieces(text):
        if not piece.is_text or not any(map(str.isalnum, html.unescape(piece.source))):
            gap.append(piece.source)
            continue
        start, end = _inside(piece.source)
        body = piece.source[start:end] if piece.in_pre else _SPACE.sub(" ", piece.source[start:end])
        gaps.append("".join([*gap, piece.source[:start]]))
        texts.append(html.unescape(body).strip())
        gap = [piece.source[end:]]
    return Segments(gaps=(*gaps, "".join(gap)), sentences=tuple(texts))


def put_together(parts: Segments, answers: Sequence[str]) -> str:
    """The HTML with an answer, which is plain text, in the place of each text."""
    return parts.join([html.escape(answer, quote=False) for answer in answers])


def _pieces(text: str) -> Iterator[_Piece]:
    """All of it, in order. Between a tag that holds text back and its end, nothing is text that may be translated."""
    place, held, depth, pre = 0, "", 0, 0
    while opening := _OPENING.search(text, place):
        if opening.start() > place:
            yield _Piece(text[place : opening.start()], not held, pre > 0)
        place, name, is_end = _markup(text, opening)
        markup = text[opening.start() : place]
        yield _Piece(markup, False)
        if name == "pre":
            pre = max(0, pre - 1) if is_end else pre + 1
        if held and name == held:
            depth += -1 if is_end else 1
            held = held if depth else ""
        elif name and not held and not is_end and name not in VOID and (name in CODE or _NOT_TRANSLATED.search(markup)):
            held, depth = name, 1
    if place < len(text):
        yield _Piece(text[place:], not held, pre > 0)


def _inside(source: str) -> tuple[int, int]:
    """Where a text begins and ends without the blanks around it."""
    start, end = 0, len(source)
    while blank := next((len(one) for one in BLANKS if source.startswith(one, start)), 0):
        start += blank
    while blank := next((len(one) for one in BLANKS if source.endswith(one, start, end)), 0):
        end -= blank
    return start, end


def _markup(text: str, opening: re.Match[str]) -> tuple[int, str, bool]:
    """Where a tag, comment or script ends that opens here, the tag's name, and whether it is an end tag."""
    start = opening.start()
    if opening[0] == "<!--":
        return _after(text, "-->", start + 2), "", False
    if opening[0] in ("<!", "<?"):
        return _after(text, ">", start), "", False
    tag = _TAG.match(text, start)
    if tag is None:
        return len(text), "", False
    name, is_end = tag[1].lower(), text[start + 1] == "/"
    if name in RAW and not is_end:
        end = RAW_END[name].search(text, tag.end())
        return (_after(text, ">", end.start()) if end else len(text)), "", False
    return tag.end(), name, is_end


def _after(text: str, end: str, start: int) -> int:
    """The place after the next `end`, or that of the text's own end."""
    found = text.find(end, start)
    return len(text) if found < 0 else found + len(end)
