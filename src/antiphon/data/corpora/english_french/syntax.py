"""Derivations of the English-French grammar: the trees that both languages are read from.

Only what both languages share is in a tree: which noun, which number, which tense, what is asked. Neither
word order nor agreement is; `english.py` and `french.py` supply them. `triples` says who does what to whom
in a tree.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from antiphon.data.corpora.english_french.lexicon import (
    THIRD,
    THIRD_PLURAL,
    Adjective,
    Adverb,
    Form,
    Noun,
    Preposition,
    Pronoun,
    Time,
    Verb,
)

Polarity = Literal["", "not", "never", "no longer"]
Mood = Literal["statement", "yes-no", "where", "when", "why", "subject", "object", "there"]


@dataclass(frozen=True, slots=True)
class Gap:
    """The silent place, in a relative clause or question, of a noun that stands before it."""

    noun: Noun
    plural: bool

    @property
    def feminine(self) -> bool:
        return self.noun.feminine

    @property
    def person(self) -> int:
        return THIRD_PLURAL if self.plural else THIRD


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """A noun with what belongs to it. `determiner` is the English one; with a `possessor` it is not said."""

    determiner: str
    noun: Noun
    plural: bool = False
    adjectives: tuple[Adjective, ...] = ()
    possessor: "NounPhrase | None" = None
    relative: "Clause | None" = None  # one of its subject and object is a Gap

    @property
    def feminine(self) -> bool:
        return self.noun.feminine

    @property
    def person(self) -> int:
        return THIRD_PLURAL if self.plural else THIRD


@dataclass(frozen=True, slots=True)
class Coordination:
    """Two noun phrases joined by "and": a plural, feminine only if both are."""

    first: NounPhrase
    second: NounPhrase
    plural: bool = True

    @property
    def feminine(self) -> bool:
        return self.first.feminine and self.second.feminine

    @property
    def person(self) -> int:
        return THIRD_PLURAL


Subject = NounPhrase | Coordination | Pronoun | Gap
Object = NounPhrase | Pronoun | Gap


@dataclass(frozen=True, slots=True)
class Place:
    """A preposition with its noun phrase."""

    preposition: Preposition
    phrase: NounPhrase


@dataclass(frozen=True, slots=True)
class Clause:
    """A subject, a verb in one of the forms of `lexicon.FORMS`, and what goes with them."""

    subject: Subject
    verb: Verb
    form: Form
    object: Object | None = None
    recipient: Object | None = None
    adjective: Adjective | None = None  # what the subject is; with the verb "be"
    intensifier: str = ""
    polarity: Polarity = ""
    adverb: Adverb | None = None
    place: Place | None = None
    time: Time | None = None


@dataclass(frozen=True, slots=True)
class Sentence:
    """A clause said or asked; `asked` is what an "object" question is about; `connective` joins `second`."""

    clause: Clause
    mood: Mood = "statement"
    asked: NounPhrase | Pronoun | None = None
    connective: str = ""
    second: Clause | None = None


def asks_for_recipient(clause: Clause) -> bool:
    """Whether an "object" question with this clause asks to whom something is given, rather than what."""
    return clause.verb.giving and clause.recipient is None


Triple = tuple[str, str, str]


def triples(sentence: Sentence) -> Iterator[Triple]:
    """Every (subject noun, verb, object noun) of a sentence in English, also those of relative clauses."""
    if isinstance(sentence.asked, NounPhrase):
        yield from _triples_of_phrase(sentence.asked)
    yield from _triples_of_clause(sentence.clause)
    if sentence.second is not None:
        yield from _triples_of_clause(sentence.second)


def _triples_of_clause(clause: Clause) -> Iterator[Triple]:
    subject, thing, recipient = clause.subject, clause.object, clause.recipient
    if isinstance(subject, Coordination):
        actors: tuple[NounPhrase | Gap, ...] = (subject.first, subject.second)
    else:
        actors = () if isinstance(subject, Pronoun) else (subject,)
    if isinstance(thing, NounPhrase | Gap):
        for actor in actors:
            yield actor.noun.english, clause.verb.english, thing.noun.english
    for part in (*actors, thing, recipient):
        if isinstance(part, NounPhrase):
            yield from _triples_of_phrase(part)


def _triples_of_phrase(phrase: NounPhrase) -> Iterator[Triple]:
    if phrase.relative is not None:
        yield from _triples_of_clause(phrase.relative)
