"""Several files of pairs as one: `fr=en-fr.tsv+de=en-de.tsv*3`.

A tag, before "=", is put before every source of its file, with a space: one model can so be told what is wanted of it,
as which language to translate into (Johnson et al. 2017). A number, after "*", is how often the pairs of its file are
seen, so that a small one is not drowned by a large one.
"""

import re
from pathlib import Path
from typing import NamedTuple

_PART = re.compile(r"(?:(?P<tag>[^=+,*/\\\s]+)=)?(?P<name>.+?)(?:\*(?P<times>[1-9][0-9]{0,5}))?")


class Part(NamedTuple):
    """One file of a mixture, or two parallel ones. tag: "" for none. times: how often each pair is seen."""

    name: str
    tag: str = ""
    times: int = 1

    def tagged(self, source: str) -> str:
        return f"{self.tag} {source}" if self.tag else source


def parts(name: str) -> list[Part]:
    """What a mixture is made of. A file that exists goes before any other reading of its name."""
    if Path(name).exists():
        return [Part(name)]
    return [_part(piece) for piece in name.split("+")]


def tags_of(name: str) -> tuple[str, ...]:
    """The tags of a mixture."""
    return tuple(dict.fromkeys(part.tag for part in parts(name) if part.tag))


def _part(piece: str) -> Part:
    found = _PART.fullmatch(piece)
    if found is None or Path(piece).exists():
        return Part(piece)
    return Part(found["name"], found["tag"] or "", int(found["times"] or 1))
