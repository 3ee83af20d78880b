"""French sentences from derivations: agreement, clitic pronouns, negation, elision, contraction.

Each function returns words as a dictionary has them ("de le ami"); `surface` writes them together ("de
l'ami"). This file knows no English.
"""

from functools import cache

from antiphon.data.corpora.english_french.lexicon import (
    ASPIRATED,
    CONJUGATIONS,
    CONNECTIVES,
    INTENSIFIERS,
    NEGATIONS,
    NUMBERS,
    POSSESSIVES,
    WHAT,
    Adjective,
    Form,
    Pronoun,
    Tense,
    Verb,
)
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

_ELIDED = {"le": "l'", "la": "l'", "je": "j'", "me": "m'", "ne": "n'", "de": "d'", "que": "qu'"}
_CONTRACTED = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}
_VOWELS = frozenset("aâàeéèêiîoôuyhœ")
_COMPOUND: dict[Tense, Tense] = {"passé composé": "présent", "plus-que-parfait": "imparfait"}
_ASK = {"where": "où", "when": "quand", "why": "pourquoi"}
_BEFORE_OTHERS = frozenset({"me", "nous", "vous"})  # me le donne, but le lui donne


def render(sentence: Sentence) -> str:
    """The sentence as written, with its capital, and a space before the question mark."""
    words = _words(sentence)
    if sentence.second is not None:
        words += [*CONNECTIVES[sentence.connective], *_clause(sentence.second)]
    text = surface(words)
    return text[0].upper() + text[1:] + ("." if sentence.mood in ("statement", "there") else " ?")


def surface(words: list[str]) -> str:
    """Words written together: elision before a vowel, "de" and "à" contracted with an article."""
    pieces: list[str] = []
    after = ""
    for word in reversed(words):
        elided = _ELIDED.get(word)
        if elided is not None and after and begins_with_vowel(after):
            pieces[-1] = elided + pieces[-1]
        elif pieces and pieces[-1] == after and (word, after) in _CONTRACTED:
            # pieces[-1] differs from `after` once it was elided: "de l'ami" is not contracted
            pieces[-1] = _CONTRACTED[word, after]
        else:
            pieces.append(word)
        after = word
    return " ".join(reversed(pieces))


@cache
def begins_with_vowel(word: str) -> bool:
    """Whether words are elided before `word`; a mute h counts as a vowel."""
    return word[0] in _VOWELS and word not in ASPIRATED


def _words(sentence: Sentence) -> list[str]:
    clause, mood = sentence.clause, sentence.mood
    if mood == "there":
        return _existential(clause)
    if mood in ("statement", "subject"):
        return _clause(clause)
    if mood == "where" and clause.verb.base == "be":  # Où est le chat ?
        finite, rest = _verb_group(clause, [], 0)
        return ["où", finite, *rest, *_subject(clause.subject)]
    asked = [_ASK[mood]] if mood in _ASK else []
    if mood == "object":
        asked = _asked(sentence.asked, clause.verb.indirect or asks_for_recipient(clause))
    return [*asked, "est-ce", "que", *_clause(clause)]


def _asked(asked: NounPhrase | Pronoun | None, indirect: bool) -> list[str]:
    assert asked is not None
    words = noun_phrase(asked) if isinstance(asked, NounPhrase) else [asked.french]
    assert not (indirect and asked is WHAT), "what is asked of an indirect verb is a person"
    return ["à", *words] if indirect else words


def _clause(clause: Clause) -> list[str]:
    """Subject, verb and complements, in the order of a statement."""
    clitics, agreement = _clitics(clause)
    finite, rest = _verb_group(clause, clitics, agreement)
    before = [] if clause.form.helper else clitics
    words = _subject(clause.subject)
    if clause.polarity:
        words += ["ne", *before, finite, NEGATIONS[clause.polarity]]
    else:
        words += [*before, finite]
    if clause.adverb:
        words.append(clause.adverb.french)
    return words + rest + _complements(clause)


def _existential(clause: Clause) -> list[str]:
    assert isinstance(clause.subject, NounPhrase)
    have = CONJUGATIONS["avoir"].tenses[_tense(clause.verb, clause.form)][1]
    verb = ["ne", "y", have, NEGATIONS[clause.polarity]] if clause.polarity else ["y", have]
    phrase = noun_phrase(clause.subject, negated=bool(clause.polarity))
    return ["il", *verb, *phrase, *_complements(clause)]


def _tense(verb: Verb, form: Form) -> Tense:
    """The French tense; the simple past of a state is an imparfait."""
    return "imparfait" if verb.state and form.name == "past" else form.tense


def _verb_group(clause: Clause, clitics: list[str], agreement: int) -> tuple[str, list[str]]:
    """The finite verb and what follows it: a participle, or clitics and an infinitive."""
    verb, subject = clause.verb.french, clause.subject
    tense = _tense(clause.verb, clause.form)
    if clause.form.helper is not None:
        return clause.form.helper.tenses[tense][subject.person], [*clitics, verb.infinitive]
    if tense not in _COMPOUND:
        return verb.tenses[tense][subject.person], []
    if verb.auxiliary == "être":
        agreement = agreement_of(subject)
    auxiliary = CONJUGATIONS[verb.auxiliary].tenses[_COMPOUND[tense]]
    return auxiliary[subject.person], [verb.participles[agreement]]


def agreement_of(part: Subject | Object) -> int:
    """The position of a gender and number in four forms: masculine, feminine, and their plurals."""
    return part.feminine + 2 * part.plural


def _clitics(clause: Clause) -> tuple[list[str], int]:
    """Pronouns before the verb, in order, and what a participle with avoir agrees with: an earlier object."""
    thing, recipient = clause.object, clause.recipient
    if clause.verb.indirect:
        thing, recipient = None, thing
    agreement = agreement_of(thing) if isinstance(thing, Pronoun | Gap) else 0
    clitics = [thing.french_object] if isinstance(thing, Pronoun) else []
    if isinstance(recipient, Pronoun):
        place = 0 if recipient.french_recipient in _BEFORE_OTHERS else len(clitics)
        clitics.insert(place, recipient.french_recipient)
    return clitics, agreement


def _complements(clause: Clause) -> list[str]:
    words: list[str] = []
    if isinstance(clause.object, NounPhrase):
        if clause.verb.indirect:
            words += ["à", *noun_phrase(clause.object)]
        else:
            words += noun_phrase(clause.object, negated=bool(clause.polarity))
    if clause.adjective:
        words += [INTENSIFIERS[clause.intensifier]] if clause.intensifier else []
        words.append(adjective_form(clause.adjective, agreement_of(clause.subject)))
    if isinstance(clause.recipient, NounPhrase):
        words += ["à", *noun_phrase(clause.recipient)]
    if clause.place:
        words += [*clause.place.preposition.french, *noun_phrase(clause.place.phrase)]
    if clause.time:
        words += clause.time.french
    return words


def adjective_form(adjective: Adjective, agreement: int) -> str:
    """The form of an adjective for an agreement as `agreement_of` gives it."""
    if agreement == 0:
        return adjective.masculine
    if agreement == 1:
        return adjective.feminine
    return adjective.masculine_plural if agreement == 2 else adjective.feminine_plural


def _subject(subject: Subject) -> list[str]:
    if isinstance(subject, Pronoun):
        return [subject.french]
    if isinstance(subject, Coordination):
        return [*noun_phrase(subject.first), "et", *noun_phrase(subject.second)]
    return [] if isinstance(subject, Gap) else noun_phrase(subject)


def noun_phrase(phrase: NounPhrase, negated: bool = False) -> list[str]:
    """The words of a noun phrase; as the object of a negated verb "un" and "des" are "de"."""
    head = _head(phrase)
    bare = negated and phrase.determiner in ("a", "some")
    words = [*(["de"] if bare else _determiner(phrase, head[0])), *head]
    if phrase.possessor is not None:
        words += ["de", *noun_phrase(phrase.possessor)]
    if phrase.relative is not None:
        words.append("qui" if isinstance(phrase.relative.subject, Gap) else "que")
        words += _clause(phrase.relative)
    return words


def _head(phrase: NounPhrase) -> list[str]:
    """The noun with its adjectives on either side."""
    noun, agreement = phrase.noun, agreement_of(phrase)
    words = [noun.french_plural if phrase.plural else noun.french]
    for adjective in phrase.adjectives:
        if not adjective.before:
            words.append(adjective_form(adjective, agreement))
        elif agreement == 0 and begins_with_vowel(words[0]):
            words.insert(0, adjective.before_vowel)
        else:
            words.insert(0, adjective_form(adjective, agreement))
    return words


def _determiner(phrase: NounPhrase, following: str) -> list[str]:
    determiner, noun, plural = phrase.determiner, phrase.noun, phrase.plural
    feminine = noun.feminine
    if determiner == "the":
        return ["les"] if plural else ["la" if feminine else "le"]
    if determiner == "a":
        return ["une" if feminine else "un"]
    if determiner == "some":
        if not plural:
            return ["de", "la" if feminine else "le"]
        adjective_first = any(adjective.before for adjective in phrase.adjectives)
        return ["de" if adjective_first else "des"]  # de petits chats
    if determiner in POSSESSIVES:
        masculine_form, feminine_form, plural_form = POSSESSIVES[determiner]
        if plural:
            return [plural_form]
        return [feminine_form if feminine and not begins_with_vowel(following) else masculine_form]
    if determiner == "this":
        if plural:
            return ["ces"]
        return ["cette"] if feminine else ["cet" if begins_with_vowel(following) else "ce"]
    return _quantifier(determiner, agreement_of(phrase))


def _quantifier(determiner: str, agreement: int) -> list[str]:
    if determiner in NUMBERS:
        return [NUMBERS[determiner]]
    if determiner == "which":
        return [("quel", "quelle", "quels", "quelles")[agreement]]
    if determiner == "all the":
        return ["toutes" if agreement == 3 else "tous", "les"]
    return {
        "every": ["chaque"],
        "several": ["plusieurs"],
        "many": ["beaucoup", "de"],
        "how many": ["combien", "de"],
    }[determiner]
