"""Dates as people write them in many languages, and in ISO 8601: "2 juillet 1998" is 1998-07-02.

Texts come from Babel: the short, medium, long and full format of each locale and a few more. So that a text
has one reading, formats with a year of two digits are left out, and so are the all-number formats of
American English (month first): what is all numbers is day, month, year, or begins with the year. No-break
spaces become plain ones. All spellings of a date are held out together.
"""

import zlib
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from random import Random

from babel import Locale
from babel.dates import DateTimePattern, parse_pattern

from antiphon.data.pairs import Pair

LOCALES = (
    *("bg", "ca", "cs", "da", "de", "el", "en", "en_GB", "es", "fi", "fr", "hu", "id", "it"),
    *("ja", "ko", "nb", "nl", "pl", "pt", "ro", "ru", "sk", "sv", "tr", "uk", "vi", "zh"),
)
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2099, 12, 31)
HELD_OUT_ONE_IN = 20
SHOWCASE = [
    "2 juillet 1998",
    "Sunday, July 20, 1969",
    "9. November 1989",
    "3 de mayo de 2011",
    "2024年2月29日",
    "12 czerwca 1977",
]
_SHOWN = frozenset({"1998-07-02", "1969-07-20", "1989-11-09", "2011-05-03", "2024-02-29", "1977-06-12"})
_WIDTHS = ("short", "medium", "long", "full")
_SKELETONS = ("yMMMd", "yMMMEd", "yMMMMd", "yMd")
_ODD_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " "})


def is_held_out(iso: str) -> bool:
    """Whether all spellings of a date are kept out of training: those shown, and one in `HELD_OUT_ONE_IN`."""
    return iso in _SHOWN or zlib.crc32(iso.encode()) % HELD_OUT_ONE_IN == 0


@cache
def formats() -> tuple[tuple[Locale, DateTimePattern], ...]:
    """Every locale with each of its formats that has one reading, each format once."""
    return tuple((locale, pattern) for name in LOCALES for locale, pattern in _formats_of(Locale.parse(name)))


def _formats_of(locale: Locale) -> Iterator[tuple[Locale, DateTimePattern]]:
    found = {locale.date_formats[width].pattern for width in _WIDTHS}
    found |= {locale.datetime_skeletons[name].pattern for name in _SKELETONS if name in locale.datetime_skeletons}
    for text in sorted(found):
        month_is_a_word = "MMM" in text or "LLL" in text
        if "yy" not in text.replace("yyyy", "y") and (month_is_a_word or str(locale) != "en"):
            yield locale, parse_pattern(text)


def write(day: date, locale: Locale, pattern: DateTimePattern) -> str:
    """A date written in a format, with plain spaces."""
    return pattern.apply(day, locale).translate(_ODD_SPACES)


def build(seed: int, num_train: int, num_held_out: int) -> tuple[list[Pair], list[Pair]]:
    """Distinct pairs for training, and distinct ones whose dates are not in training."""
    rng, choices, days = Random(seed), formats(), (LAST_DAY - FIRST_DAY).days + 1
    _check(num_train + num_held_out, days)
    train: dict[str, str] = {}
    held_out: dict[str, str] = {}
    while len(train) < num_train or len(held_out) < num_held_out:
        day = FIRST_DAY + timedelta(days=int(rng.random() * days))
        locale, pattern = choices[int(rng.random() * len(choices))]
        iso = day.isoformat()
        chosen, wanted = (held_out, num_held_out) if is_held_out(iso) else (train, num_train)
        if len(chosen) < wanted:
            chosen[write(day, locale, pattern)] = iso
    return [Pair(*item) for item in train.items()], [Pair(*item) for item in held_out.items()]


def _check(wanted: int, days: int) -> None:
    # Half of what there is, so that drawing distinct pairs at random always ends soon.
    most = days * len(formats()) // 2 // HELD_OUT_ONE_IN
    if wanted > most:
        raise ValueError(f"corpus dates: {wanted} pairs were asked for, but it gives {most} at most; ask for fewer.")
