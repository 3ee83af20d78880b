"""English sentences from derivations: word order, do-support, agreement, "a" and "an".

Each function returns words; `render` joins them. This file knows no French.
"""

from antiphon.data.corpora.english_french.lexicon import FIRST, THIRD, Pronoun, Verb
from antiphon.data.corpora.english_french.syntax import (
    Clause,
    Coordination,
    Gap,
    NounPhrase,
    Object,
    Sentence,
    Subject,
    asks_for_recipient,
)

_MODALS = {"future": "will", "conditional": "would", "can": "can", "must": "must"}


def render(sentence: Sentence) -> str:
    """The sentence as written, with its capital and its full stop or question mark."""
    words = _words(sentence)
    if sentence.second is not None:
        words += [sentence.connective, *_statement(sentence.second)]
    text = " ".join(words)
    return text[0].upper() + text[1:] + ("." if sentence.mood in ("statement", "there") else "?")


def _words(sentence: Sentence) -> list[str]:
    clause, mood = sentence.clause, sentence.mood
    if mood == "there":
        return ["there", *_existential(clause)]
    if mood in ("statement", "subject"):
        return _statement(clause)
    if mood == "yes-no":
        return _question(clause)
    if mood == "object":
        assert sentence.asked is not None
        stranded = ["to"] if asks_for_recipient(clause) else []
        return _object(sentence.asked) + _question(clause) + stranded
    return [mood, *_question(clause)]


def _statement(clause: Clause) -> list[str]:
    auxiliary, rest = _verb_group(clause, supported=clause.polarity == "not")
    if auxiliary == "can" and clause.polarity == "not":
        negated = ["cannot"]
    else:
        negated = [auxiliary, *_negation(clause)] if auxiliary else _negation(clause)
    return _subject(clause.subject) + negated + _adverb(clause) + rest + _complements(clause)


def _question(clause: Clause) -> list[str]:
    auxiliary, rest = _verb_group(clause, supported=True)
    return [
        auxiliary,
        *_subject(clause.subject),
        *_negation(clause),
        *_adverb(clause),
        *rest,
        *_complements(clause),
    ]


def _existential(clause: Clause) -> list[str]:
    auxiliary, rest = _verb_group(clause, supported=True)
    assert isinstance(clause.subject, NounPhrase)
    phrase = noun_phrase(clause.subject, negated=bool(clause.polarity))
    return [auxiliary, *_negation(clause), *rest, *phrase, *_complements(clause)]


def _negation(clause: Clause) -> list[str]:
    return clause.polarity.split()


def _adverb(clause: Clause) -> list[str]:
    return [clause.adverb.english] if clause.adverb else []


def _verb_group(clause: Clause, supported: bool) -> tuple[str, list[str]]:
    """The auxiliary ("" for none; never none if `supported`) and the verb words after it."""
    verb, form, person = clause.verb, clause.form.name, clause.subject.person
    third = person == THIRD
    if form in ("present", "past"):
        return _simple(verb, form, person, supported)
    if form == "want to":
        wants = ["wants" if third else "want", "to", verb.base]
        return ("does" if third else "do", ["want", "to", verb.base]) if supported else ("", wants)
    if form == "wanted to":
        return ("did", ["want", "to", verb.base]) if supported else ("", ["wanted", "to", verb.base])
    if form == "used to":
        return "", ["used", "to", verb.base]
    if form == "perfect":
        return "has" if third else "have", [verb.participle]
    if form == "pluperfect":
        return "had", [verb.participle]
    if form == "would like to":
        return "would", ["like", "to", verb.base]
    if form == "going to":
        return _be("present", person), ["going", "to", verb.base]
    if form in _MODALS:
        return _MODALS[form], [verb.base]
    return _be("present" if form == "progressive" else "past", person), [verb.gerund]


def _simple(verb: Verb, form: str, person: int, supported: bool) -> tuple[str, list[str]]:
    if verb.base == "be":
        return _be(form, person), []
    if form == "past":
        return ("did", [verb.base]) if supported else ("", [verb.past])
    if person == THIRD:
        return ("does", [verb.base]) if supported else ("", [verb.third])
    return ("do", [verb.base]) if supported else ("", [verb.base])


def _be(form: str, person: int) -> str:
    if form == "past":
        return "was" if person in (FIRST, THIRD) else "were"
    return {FIRST: "am", THIRD: "is"}.get(person, "are")


def _complements(clause: Clause) -> list[str]:
    words: list[str] = []
    verb, negated = clause.verb, bool(clause.polarity)
    if verb.particle:
        words.append(verb.particle)
    # "gives him the book", but "gives the book to the boy", "gives it to him"
    early = isinstance(clause.recipient, Pronoun) and isinstance(clause.object, NounPhrase)
    if early and clause.recipient:
        words += _object(clause.recipient)
    if clause.object:
        words += _object(clause.object, negated)
    if clause.recipient and not early:
        words += ["to", *_object(clause.recipient)]
    if clause.adjective:
        words += [clause.intensifier] if clause.intensifier else []
        words.append(clause.adjective.english)
    if clause.place:
        words += [*clause.place.preposition.english, *noun_phrase(clause.place.phrase)]
    if clause.time:
        words += clause.time.english
    return words


def _subject(subject: Subject) -> list[str]:
    if isinstance(subject, Pronoun):
        return [subject.english]
    if isinstance(subject, Coordination):
        return [*noun_phrase(subject.first), "and", *noun_phrase(subject.second)]
    return [] if isinstance(subject, Gap) else noun_phrase(subject)


def _object(thing: Object, negated: bool = False) -> list[str]:
    if isinstance(thing, Pronoun):
        return [thing.english_object]
    return [] if isinstance(thing, Gap) else noun_phrase(thing, negated)


def noun_phrase(phrase: NounPhrase, negated: bool = False) -> list[str]:
    """The words of a noun phrase; as the object of a negated verb "some" is "any"."""
    noun = phrase.noun
    head = [adjective.english for adjective in phrase.adjectives]
    head.append(noun.english_plural if phrase.plural else noun.english)
    if phrase.possessor is not None:
        owner = noun_phrase(phrase.possessor)
        owner[-1] += "'" if owner[-1].endswith("s") and phrase.possessor.plural else "'s"
        words = owner + head
    else:
        words = [*_determiner(phrase, head[0], negated), *head]
    if phrase.relative is not None:
        words += _relative(phrase.relative, noun.kinds)
    return words


def _determiner(phrase: NounPhrase, following: str, negated: bool) -> list[str]:
    determiner = phrase.determiner
    if determiner == "a":
        return ["an" if following[0] in "aeiou" else "a"]
    if determiner == "this":
        return ["these" if phrase.plural else "this"]
    if determiner == "some" and negated:
        return ["any"]
    return determiner.split()


def _relative(clause: Clause, kinds: frozenset[str]) -> list[str]:
    person_acts = isinstance(clause.subject, Gap) and "person" in kinds
    return ["who" if person_acts else "that", *_statement(clause)]
