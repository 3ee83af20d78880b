"""Several files of pairs as one: `fr=en-fr.tsv+de=en-de.tsv*3`.

A tag, before "=", is put before every source of its file that is not blank, with a space: one model can so be told what
is wanted of it, as which language to translate into (Johnson et al. 2017). A number, after "*", is how often the pairs
of its file are seen, so that a small one is not drowned by a large one.
"""

import os
import re
from typing import NamedTuple

_PART = re.compile(r"(?:(?P<tag>[^=+,*/\\\s]+)=)?(?P<name>.+?)(?:\*(?P<times>[1-9][0-9]{0,5}))?")


class Part(NamedTuple):
    """One file of a mixture, or two parallel ones. tag: "" for none. times: how often each pair is seen."""

    name: str
    tag: str = ""
    times: int = 1

    def tagged(self, source: str) -> str:
        return f"{self.tag} {source}" if self.tag and source.strip() else source


def parts(name: str) -> list[Part]:
    """What a mixture is made of. A file that exists, or two parallel ones, go before any other reading of a name."""
    if files_of(name):
        return [Part(name)]
    return [_part(piece) for piece in name.split("+")]


def tags_of(name: str) -> tuple[str, ...]:
    """The tags of a mixture."""
    return tuple(dict.fromkeys(part.tag for part in parts(name) if part.tag))


def files_of(name: str) -> tuple[str, ...]:
    """The file that exists by this name, else the two with a comma between their names; () for none."""
    if exists(name):
        return (name,)
    for comma in re.finditer(",", name):
        both = name[: comma.start()], name[comma.end() :]
        if all(map(exists, both)):
            return both
    return ()


def exists(name: str) -> bool:
    """Whether there is such a file; standard input, "-", is one."""
    return name == "-" or os.path.exists(name)  # noqa: PTH110 - a path raises for a name that is too long to be one file's


def _part(piece: str) -> Part:
    found = _PART.fullmatch(piece)
    if found is None or files_of(piece):
        return Part(piece)
    return Part(found["name"], found["tag"] or "", int(found["times"] or 1))
