"""Which of the outputs that a search found are given, and in which order: not always the most probable are wanted.

Outputs may vote for one another (`consensus`), and those that leave out less of what must be said may come first (as
Wen et al. 2015 rerank what they generate). Pure functions of strings and settings.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from antiphon.config import GenerationConfig
from antiphon.consensus import by_consensus

TEMPERATURE = 0.7  # of the samples that vote

Phrases = Callable[[str], Sequence[str]]  # of a source, what must be in its output


class HasText(Protocol):
    @property
    def text(self) -> str: ...


T = TypeVar("T", bound=HasText)


@dataclass(frozen=True)
class Choice:
    """The `n_best` of the outputs to one source.

    mbr: so many samples are drawn, and those come first that are most like all of them (minimum Bayes risk). keep: then
    those come first that leave out the fewest phrases of their source; all of a beam's hypotheses are looked at.
    """

    n_best: int
    mbr: int | None = None
    keep: Phrases | None = None

    @property
    def is_by_search(self) -> bool:
        """The outputs are those of the search, in its order."""
        return self.mbr is None and self.keep is None

    def to_search(self, settings: Mapping[str, Any], usual: GenerationConfig) -> dict[str, Any]:
        """The settings that find what is chosen from. usual: what stands where one is None. Raises ValueError."""
        found = dict(settings)
        if self.mbr is not None:
            found = _to_vote(self.mbr, self.n_best, found)
        elif self.keep is not None:
            sample, beam_size = (
                getattr(usual, name) if found.get(name) is None else found[name] for name in ("sample", "beam_size")
            )
            several = self.n_best if sample else beam_size
            _check_whole(n_best=self.n_best, beam_size=several)
            if several < 2:
                raise ValueError("keep chooses among several outputs, and here is one; search with a beam of 5, say.")
            if not 1 <= self.n_best <= several:
                raise ValueError(f"n_best is {self.n_best}, of {several} hypotheses; it can be 1 to {several}.")
            found["n_best"] = several
        return found

    def among(self, source: str, outputs: Sequence[T]) -> list[T]:
        """The chosen ones, best first."""
        chosen = list(outputs)
        if self.mbr is not None:
            chosen = [chosen[place] for place in by_consensus([output.text for output in chosen])]
        if self.keep is not None:
            phrases = self.keep(source)
            chosen.sort(key=lambda output: left_out(output.text, phrases))
        return chosen[: self.n_best]


def _to_vote(mbr: int, n_best: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of generation that draw `mbr` samples, of which `n_best` are wanted. Raises ValueError."""
    if not isinstance(mbr, int) or mbr < 2:
        raise ValueError(f"mbr is {mbr!r}; give the number of samples that are compared, at least 2.")
    _check_whole(n_best=n_best)
    if settings.get("beam_size") not in (None, 1):
        raise ValueError("mbr compares samples, not the hypotheses of a beam; leave out one of them.")
    if settings.get("sample") is False:
        raise ValueError("mbr draws samples, and sample is false; leave out one of them.")
    if not 1 <= n_best <= mbr:
        raise ValueError(f"n_best is {n_best}, of {mbr} samples; it can be 1 to {mbr}.")
    temperature = TEMPERATURE if settings.get("temperature") is None else settings["temperature"]
    return {**settings, "sample": True, "n_best": mbr, "beam_size": 1, "temperature": temperature}


def _check_whole(**numbers: Any) -> None:
    """Raises ValueError for what is no whole number."""
    for name, number in numbers.items():
        if not isinstance(number, int):
            raise ValueError(f"{name} is {number!r}; give a whole number.")


def phrases_by(expression: str) -> Phrases:
    """What a regular expression finds in a source (in NFC, as outputs are): its groups where it has some. Raises
    ValueError for one that is none."""
    if not isinstance(expression, str):
        raise ValueError(f"keep: {expression!r:.60} is no regular expression; give a text, 'a|b' for several phrases.")
    try:
        pattern = re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"keep: {expression!r:.60} is no regular expression ({error}); mend it.") from None
    return lambda source: [
        phrase
        for match in pattern.finditer(unicodedata.normalize("NFC", source))
        for phrase in (match.groups() or (match[0],))
        if phrase
    ]


def left_out(text: str, phrases: Sequence[str]) -> int:
    """How many of them a text does not contain, whatever their case and Unicode form; a number is not part of a longer
    one."""
    text = _plain(text)
    return sum(re.search(_alone(_plain(phrase)), text) is None for phrase in phrases)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())


def _alone(phrase: str) -> str:
    before, after = (r"(?<!\d)" * phrase[:1].isdigit(), r"(?!\d)" * phrase[-1:].isdigit())
    return f"{before}{re.escape(phrase)}{after}"
