"""Random derivations of the English-French grammar.

`generate` draws sentences without end from a `random.Random`. The weights below keep every word form and
construction frequent enough to be learned from some hundred thousand sentences. This file knows neither
English nor French word order, and nothing of what is held out.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from random import Random
from typing import TypeVar

from antiphon.data.corpora.english_french.lexicon import (
    ADJECTIVES,
    ADVERBS,
    ALREADY,
    CONNECTIVES,
    FIRST,
    FIRST_PLURAL,
    FORMS,
    NOUNS,
    NUMBERS,
    POSSESSIVES,
    PREPOSITIONS,
    PRONOUNS,
    SECOND,
    TIMES,
    VERBS,
    WHAT,
    WHO,
    Adjective,
    Adverb,
    Form,
    Noun,
    Preposition,
    Pronoun,
    Time,
    Verb,
)
from antiphon.data.corpora.english_french.syntax import (
    Clause,
    Coordination,
    Gap,
    Mood,
    NounPhrase,
    Object,
    Place,
    Polarity,
    Sentence,
    Subject,
)

T = TypeVar("T")


def _weighted(weights: Mapping[T, int]) -> tuple[T, ...]:
    """Each key as often as its weight says, so that a plain draw is a weighted one."""
    return tuple(key for key, weight in weights.items() for _ in range(weight))


def _pick(rng: Random, choices: Sequence[T]) -> T:
    return choices[int(rng.random() * len(choices))]


_BE = VERBS["be"]
_GIVING = tuple(verb for verb in VERBS.values() if verb.giving)
_INDIRECT = tuple(verb for verb in VERBS.values() if verb.indirect)
_DIRECT = tuple(verb for verb in VERBS.values() if verb.objects and not verb.giving and not verb.indirect)
_INTRANSITIVE = tuple(verb for verb in VERBS.values() if not verb.objects and verb is not _BE)
_VERB_CLASSES = _weighted({"direct": 49, "giving": 9, "indirect": 6, "intransitive": 24, "be": 12})
_BY_OBJECT = {noun: tuple(verb for verb in _DIRECT if noun in verb.objects) for noun in NOUNS.values()}
_BY_SUBJECT = {
    noun: tuple(verb for verb in (*_DIRECT, *_INTRANSITIVE, _BE) if noun in verb.subjects and not verb.path)
    for noun in NOUNS.values()
}

_MOODS: tuple[Mood, ...] = _weighted(
    {"statement": 68, "yes-no": 8, "where": 3, "when": 2, "why": 2, "subject": 5, "object": 9, "there": 3}
)
_FORM_WEIGHTS = {
    "present": 15,
    "progressive": 8,
    "past": 18,
    "perfect": 10,
    "past progressive": 8,
    "used to": 5,
    "pluperfect": 10,
    "future": 12,
    "conditional": 12,
    "can": 2,
    "must": 2,
    "want to": 2,
    "wanted to": 2,
    "would like to": 2,
    "going to": 2,
}
# I, he, she, it and they come in every form; we and you, but for être, only in the present, the compound
# tenses and before an infinitive, which spares two forms of each verb in three tenses.
_NOT_WITH_WE = frozenset({"past progressive", "used to", "future", "conditional", "wanted to"})
# Forms that no other person shares are drawn twice as often: je chanterai, nous chantons.
_OWN_FORMS = {
    FIRST: _NOT_WITH_WE | {"present"},
    FIRST_PLURAL: frozenset({"present"}),
    SECOND: frozenset({"present"}),
}
_COMPOUND = frozenset({"past", "perfect", "pluperfect"})
_PROGRESSIVE = frozenset({"progressive", "past progressive"})
_HELPED_BY_WISH = frozenset({"want to", "wanted to", "would like to"})

_ALIKE = {noun: tuple(n for n in NOUNS.values() if n.kinds & noun.kinds) for noun in NOUNS.values()}
_OWNERS = tuple(noun for noun in NOUNS.values() if "person" in noun.kinds)
_SINGULAR = _weighted({"the": 48, "a": 22, "this": 7, "every": 4, "'s": 5} | dict.fromkeys(POSSESSIVES, 3))
_PLURAL = _weighted(
    {"the": 80, "some": 28, "this": 15, "several": 6, "many": 8, "all the": 8, "'s": 9}
    | dict.fromkeys(POSSESSIVES, 5)
    | dict.fromkeys(NUMBERS, 3)
)
_MASS = _weighted({"the": 45, "some": 40, "'s": 3} | dict.fromkeys(POSSESSIVES, 3))
_OF_OWNER = ("the", "the", "the", "this", "my", "your", "his", "her", "our", "their")
_OF_PLACE = ("the", "the", "the", "the", "the", "a", "this", "my", "your", "his", "her", "our", "their")
_NEW = _weighted({"a": 6, "two": 2, "three": 1, "some": 6, "many": 2, "several": 1})
_INTENSIFIERS = _weighted({"": 6, "very": 3, "too": 2})
_CONNECTIVES = tuple(CONNECTIVES)

_POLARITIES: tuple[Polarity, ...] = _weighted({"": 76, "not": 14, "never": 6, "no longer": 4})
_ASKED_POLARITIES: tuple[Polarity, ...] = _weighted({"": 94, "not": 6})
_SUBJECT_PRONOUNS = _weighted({"I": 30, "you": 12, "he": 14, "she": 18, "it": 4, "we": 12, "they": 14})
_PEOPLE_AS_OBJECTS = ("me", "you", "him", "her", "her", "her", "us", "it", "them", "them")
_THINGS_AS_OBJECTS = ("it", "it", "them")
_RECIPIENTS = ("me", "you", "him", "her", "us", "them", "them")

_PRONOUN_OF = {pronoun.english_object: pronoun for pronoun in PRONOUNS.values()}
_LOCATIVE = ("in", "in", "in", "under", "on", "behind", "in front of", "near", "near")
_PLACES = _weighted({PREPOSITIONS[name]: 1 for name in _LOCATIVE} | {PREPOSITIONS["in"]: 3, PREPOSITIONS["near"]: 2})
_TIMES_OF = {name: tuple(time for time in TIMES.values() if name in time.forms) for name in FORMS}


def _suited(noun: Noun, before: bool) -> tuple[Adjective, ...]:
    return tuple(a for a in ADJECTIVES.values() if a.before == before and a.kinds & noun.kinds)


_BEFORE = {noun: _suited(noun, before=True) for noun in NOUNS.values()}
_AFTER = {noun: _suited(noun, before=False) for noun in NOUNS.values()}
_ANY_ADJECTIVE = {noun: _BEFORE[noun] + _AFTER[noun] for noun in NOUNS.values()}
_OF_PEOPLE = tuple(adjective for adjective in ADJECTIVES.values() if "person" in adjective.kinds)


def generate(rng: Random) -> Iterator[Sentence]:
    """Sentences without end, the same for the same state of `rng`."""
    while True:
        mood = _pick(rng, _MOODS)
        if mood == "statement":
            yield _statement(rng)
        elif mood == "object":
            yield _object_question(rng)
        elif mood == "subject":
            yield _subject_question(rng)
        elif mood == "there":
            yield _existential(rng)
        elif mood == "where":
            yield _where_question(rng)
        else:
            verb = _verb(rng, without_be=mood == "when")
            yield Sentence(_clause(rng, verb, _subject(rng, verb), asked=True, timed=mood != "when"), mood)


def _statement(rng: Random) -> Sentence:
    draw = rng.random()
    if draw < 0.06:
        return _two_clauses(rng)
    verb = _verb(rng)
    if draw < 0.13 and not verb.giving:
        subject = _with_relative(rng, _pick(rng, verb.subjects))
        return Sentence(_clause(rng, verb, subject, short=True))
    clause = _clause(rng, verb, _subject(rng, verb))
    return Sentence(clause)


def _two_clauses(rng: Random) -> Sentence:
    """Two short clauses of one time: both present, both past, both future or both conditional."""
    first, second = _short_clause(rng), _short_clause(rng)
    while _when(second.form) != _when(first.form):
        second = _short_clause(rng)
    return Sentence(first, connective=_pick(rng, _CONNECTIVES), second=second)


def _when(form: Form) -> str:
    if form.tense == "présent":
        return "present"
    return form.tense if form.tense in ("futur", "conditionnel") else "past"


def _short_clause(rng: Random) -> Clause:
    verb = _verb(rng)
    while verb.giving:
        verb = _verb(rng)
    pronoun = rng.random() < 0.6 and verb is not _BE
    subject = _pronoun(rng) if pronoun else _phrase(rng, _pick(rng, verb.subjects), adjectives=0)
    return _clause(rng, verb, subject, short=True, timed=False)


def _subject_question(rng: Random) -> Sentence:
    verb = _verb(rng)
    subject: Subject = WHO
    if rng.random() < 0.55:
        noun = _pick(rng, verb.subjects)
        subject = _asked_phrase(rng, noun)
    return Sentence(_clause(rng, verb, subject, asked=True), "subject")


def _asked_phrase(rng: Random, noun: Noun) -> NounPhrase:
    plural = not noun.mass and rng.random() < 0.5
    determiner = "how many" if plural and rng.random() < 0.5 else "which"
    return NounPhrase(determiner, noun, plural)


def _object_question(rng: Random) -> Sentence:
    """Which mouse did the cat eat? What does she see? Who did you talk to? Who did he give the book to?"""
    draw = rng.random()
    if draw < 0.12:
        verb = _pick(rng, _INDIRECT)
        return Sentence(_asking_clause(rng, verb, None), "object", WHO)
    if draw < 0.2:
        verb = _pick(rng, _GIVING)
        subject = _subject(rng, verb)
        given = _phrase(rng, _pick_other(rng, verb.objects, subject), adjectives=0)
        return Sentence(Clause(subject, verb, _form(rng, verb, subject, asked=True), given), "object", WHO)
    verb = _pick(rng, _DIRECT)
    if draw < 0.65:
        asked = _asked_phrase(rng, _pick(rng, verb.objects))
        gap = Gap(asked.noun, asked.plural)
        return Sentence(_asking_clause(rng, verb, gap), "object", asked)
    who = rng.random() < 0.4 and verb in _TAKING_PEOPLE
    return Sentence(_asking_clause(rng, verb, None), "object", WHO if who else WHAT)


def _asking_clause(rng: Random, verb: Verb, gap: Gap | None) -> Clause:
    subject = _subject(rng, verb, other_than=gap)
    form = _form(rng, verb, subject, asked=True, compound=gap is not None)
    time = _time(rng, form) if rng.random() < 0.15 else None
    return Clause(subject, verb, form, gap, polarity=_pick(rng, _ASKED_POLARITIES), time=time)


def _where_question(rng: Random) -> Sentence:
    if rng.random() < 0.4:
        subject = _phrase(rng, _pick(rng, _MOVABLE), adjectives=0.3)
        return Sentence(Clause(subject, _BE, FORMS[_pick(rng, ("present", "past", "future"))]), "where")
    verb = _verb(rng, without_be=True)
    if verb.path == "from":
        verb = VERBS["go"]
    return Sentence(_clause(rng, verb, _subject(rng, verb), asked=True, placed=False), "where")


def _existential(rng: Random) -> Sentence:
    """There is a cat in the garden."""
    noun, determiner = _pick(rng, _MOVABLE), _pick(rng, _NEW)
    plural = determiner != "a"
    if noun.mass:
        determiner, plural = "some", False
    phrase = NounPhrase(determiner, noun, plural, _adjectives(rng, noun, 0.3))
    polarity: Polarity = "not" if determiner in ("a", "some") and rng.random() < 0.25 else ""
    form = FORMS[_pick(rng, ("present", "past", "future"))]
    place = _place(rng, _pick(rng, _PLACES)) if rng.random() < 0.9 else None
    return Sentence(Clause(phrase, _BE, form, polarity=polarity, place=place), "there")


def _verb(rng: Random, without_be: bool = False) -> Verb:
    kind = _pick(rng, _VERB_CLASSES)
    if kind == "direct":
        return _pick(rng, _DIRECT)
    if kind == "giving":
        return _pick(rng, _GIVING)
    if kind == "indirect":
        return _pick(rng, _INDIRECT)
    return _pick(rng, _INTRANSITIVE) if kind == "intransitive" or without_be else _BE


def _pronoun(rng: Random) -> Pronoun:
    return PRONOUNS[_pick(rng, _SUBJECT_PRONOUNS)]


def _subject(rng: Random, verb: Verb, other_than: Gap | None = None) -> NounPhrase | Coordination | Pronoun:
    draw = rng.random()
    if draw < 0.4:
        return _pronoun(rng)
    if draw < 0.45:
        first = _pick(rng, verb.subjects)
        second = _pick_other(rng, _ALIKE[first], Gap(first, False))
        return Coordination(_conjunct(rng, first), _conjunct(rng, second))
    noun = _pick_other(rng, verb.subjects, other_than)
    return _phrase(rng, noun, adjectives=0.28)


def _conjunct(rng: Random, noun: Noun) -> NounPhrase:
    plural = not noun.mass and rng.random() < 0.2
    return NounPhrase(_pick(rng, _OF_PLACE) if not noun.mass else "the", noun, plural and not noun.mass)


def _pick_other(rng: Random, nouns: Sequence[Noun], taken: object) -> Noun:
    """A noun, another one than a noun phrase or gap has: cats seldom eat cats."""
    used = taken.noun if isinstance(taken, NounPhrase | Gap) else None
    while True:
        noun = _pick(rng, nouns)
        if noun is not used:
            return noun


def _phrase(rng: Random, noun: Noun, adjectives: float) -> NounPhrase:
    plural = not noun.mass and rng.random() < 0.42
    determiner = _pick(rng, _MASS if noun.mass else _PLURAL if plural else _SINGULAR)
    words = _adjectives(rng, noun, adjectives) if adjectives else ()
    if determiner == "'s":
        owner = NounPhrase(_pick(rng, _OF_OWNER), _pick_other_owner(rng, noun), rng.random() < 0.3)
        return NounPhrase("the", noun, plural, words, owner)
    return NounPhrase(determiner, noun, plural, words)


def _pick_other_owner(rng: Random, noun: Noun) -> Noun:
    owner = _pick(rng, _OWNERS)
    return owner if owner is not noun else _pick_other_owner(rng, noun)


def _adjectives(rng: Random, noun: Noun, rate: float) -> tuple[Adjective, ...]:
    """None, one, or two: then the one that French puts before the noun comes first in English."""
    draw = rng.random()
    if draw >= rate:
        return ()
    if draw < rate * 0.12:
        return _pick(rng, _BEFORE[noun]), _pick(rng, _AFTER[noun])
    return (_pick(rng, _ANY_ADJECTIVE[noun]),)


def _with_relative(rng: Random, noun: Noun) -> NounPhrase:
    plural = not noun.mass and rng.random() < 0.42
    determiner = "the" if noun.mass or rng.random() < 0.7 else "this"
    gap = Gap(noun, plural)
    if _BY_OBJECT[noun] and rng.random() < 0.6:
        verb = _pick(rng, _BY_OBJECT[noun])
        actor = _pronoun(rng) if rng.random() < 0.4 else _plain_phrase(rng, _pick_other(rng, verb.subjects, gap))
        form = _form(rng, verb, actor, compound=True)
        return NounPhrase(determiner, noun, plural, relative=Clause(actor, verb, form, gap))
    verb = _pick(rng, _BY_SUBJECT[noun])
    relative = _clause(rng, verb, gap, short=True, timed=False)
    return NounPhrase(determiner, noun, plural, relative=relative)


def _plain_phrase(rng: Random, noun: Noun) -> NounPhrase:
    """A noun with the article or one word in its place."""
    plural = not noun.mass and rng.random() < 0.4
    return NounPhrase("the" if noun.mass else _pick(rng, _OF_OWNER), noun, plural)


def _clause(
    rng: Random,
    verb: Verb,
    subject: Subject,
    *,
    asked: bool = False,
    short: bool = False,
    timed: bool = True,
    placed: bool = True,
) -> Clause:
    """A clause with all its parts; a `short` one has a plain object, and neither place nor time."""
    polarity = _pick(rng, _ASKED_POLARITIES if asked else _POLARITIES)
    form = _form(rng, verb, subject, asked, polarity)
    adverb = _adverb(rng, form) if not polarity and rng.random() < 0.1 else None
    thing, recipient = _objects(rng, verb, subject, short)
    adjective, intensifier, place = None, "", None
    if verb is _BE and not (placed and not short and rng.random() < 0.25):
        adjective, intensifier = _predicate(rng, subject), _pick(rng, _INTENSIFIERS)
    elif placed:
        place = _place_of(rng, verb, short)
    time = None
    if timed and not short and not (place and adverb) and rng.random() < 0.15:
        time = _time(rng, form)
    return Clause(subject, verb, form, thing, recipient, adjective, intensifier, polarity, adverb, place, time)


def _form(
    rng: Random,
    verb: Verb,
    subject: Subject,
    asked: bool = False,
    polarity: Polarity = "",
    compound: bool = False,
) -> Form:
    forms = _forms(verb, subject.person, asked, polarity)
    form = _pick(rng, forms)
    if compound and form.name not in _COMPOUND and rng.random() < 0.6:
        return FORMS[_pick(rng, ("perfect", "pluperfect") if verb.state else ("past", "past", "perfect", "pluperfect"))]
    return form


@cache
def _forms(verb: Verb, person: int, asked: bool, polarity: Polarity) -> tuple[Form, ...]:
    excluded: set[str] = set()
    if not verb.progressive:
        excluded |= _PROGRESSIVE
    if polarity == "never":
        excluded.add("progressive")
    if polarity == "no longer" and not verb.state:
        excluded |= _COMPOUND  # "had no longer arrived" is hardly English
    if asked or polarity:
        excluded.add("used to")
    if verb.state:
        excluded |= _HELPED_BY_WISH
    if person in (FIRST_PLURAL, SECOND) and verb is not _BE:
        excluded |= _NOT_WITH_WE | ({"past"} if verb.state else set())
    own = _OWN_FORMS.get(person, frozenset())
    weights = {name: weight * (2 if name in own else 1) for name, weight in _FORM_WEIGHTS.items()}
    if not verb.progressive and not verb.state:
        weights["used to"] *= 3  # the only imparfait of see and hear
    return _weighted({FORMS[name]: weight for name, weight in weights.items() if name not in excluded})


def _adverb(rng: Random, form: Form) -> Adverb | None:
    if form.name in _PROGRESSIVE or form.name == "used to" or form.helper is not None:
        return None
    if form.name in ("perfect", "pluperfect") and rng.random() < 0.5:
        return ALREADY
    return _pick(rng, ADVERBS)


def _objects(rng: Random, verb: Verb, subject: Subject, short: bool) -> tuple[Object | None, Object | None]:
    if not verb.objects:
        return None, None
    if rng.random() < (0.25 if verb.giving else 0.3):
        thing: Object = _object_pronoun(rng, _OBJECT_PRONOUNS[verb], subject)
    elif not short and not verb.giving and rng.random() < 0.09:
        thing = _with_relative(rng, _pick_other(rng, verb.objects, subject))
    else:
        noun = _pick_other(rng, verb.objects, subject)
        thing = _plain_phrase(rng, noun) if short else _phrase(rng, noun, adjectives=0.28)
    if not verb.giving:
        return thing, None
    if rng.random() < 0.5:
        return thing, _object_pronoun(rng, _RECIPIENTS, subject)
    return thing, _plain_phrase(rng, _pick_other(rng, _OWNERS, subject))


def _object_pronoun(rng: Random, choices: Sequence[str], subject: Subject) -> Pronoun:
    """Not "I see me" or "we see me": those would be reflexive."""
    while True:
        pronoun = _PRONOUN_OF[_pick(rng, choices)]
        if not isinstance(subject, Pronoun) or _speakers(pronoun) != _speakers(subject) or not _speakers(subject):
            return pronoun


def _speakers(pronoun: Pronoun) -> str:
    return {"je": "I", "nous": "I", "vous": "you"}.get(pronoun.french, "")


def _predicate(rng: Random, subject: Subject) -> Adjective:
    if isinstance(subject, NounPhrase | Gap):
        return _pick(rng, _ANY_ADJECTIVE[subject.noun])
    if isinstance(subject, Coordination):
        second = _ANY_ADJECTIVE[subject.second.noun]
        return _pick(rng, [adjective for adjective in _ANY_ADJECTIVE[subject.first.noun] if adjective in second])
    return _pick(rng, _OF_PEOPLE)


def _place_of(rng: Random, verb: Verb, short: bool) -> Place | None:
    if verb is _BE:
        return _place(rng, _pick(rng, _PLACES))
    if verb.path:
        return _place(rng, PREPOSITIONS[verb.path]) if verb.path == "to" or rng.random() < 0.7 else None
    if short or verb.giving or rng.random() > (0.1 if verb.objects else 0.4):
        return None
    return _place(rng, PREPOSITIONS["at"] if rng.random() < 0.12 else _pick(rng, _PLACES))


def _place(rng: Random, preposition: Preposition) -> Place:
    noun = _pick(rng, preposition.nouns)
    plural = rng.random() < 0.12
    determiner = _pick(rng, _OF_PLACE)
    adjectives = _adjectives(rng, noun, 0.1)
    return Place(
        preposition,
        NounPhrase("the" if plural and determiner == "a" else determiner, noun, plural, adjectives),
    )


def _time(rng: Random, form: Form) -> Time | None:
    times = _TIMES_OF[form.name]
    return _pick(rng, times) if times else None


_TAKING_PEOPLE = frozenset(verb for verb in VERBS.values() if NOUNS["man"] in verb.objects)
_OBJECT_PRONOUNS = {
    verb: _PEOPLE_AS_OBJECTS if verb in _TAKING_PEOPLE else _THINGS_AS_OBJECTS for verb in VERBS.values()
}
_MOVABLE = tuple(noun for noun in NOUNS.values() if noun.kinds & {"person", "animal", "thing", "food", "mass"})
