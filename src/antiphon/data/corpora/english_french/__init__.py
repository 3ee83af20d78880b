"""English-French sentences from a synchronous grammar written for this project.

A derivation (`syntax.Sentence`) is drawn once and read in both languages (`english.render`,
`french.render`).

What is covered: gender and number agreement of articles, adjectives (before and after the noun; bel, vieil,
nouvel), possessives (mon école), demonstratives (cet) and participles; elision and contraction; partitives,
and "de" after a negation; présent, passé composé, imparfait, plus-que-parfait, futur, conditionnel, and
infinitives after can, must, want, going to; participles that agree with the subject (être) or with a direct
object before the verb (avoir); negation (ne ... pas, jamais, plus); yes-no and wh-questions; object
pronouns, alone and in twos; relative clauses with qui and que; "il y a"; genitives, quantities, numbers,
adverbs, places, times; coordination.

The mapping is a function: one English sentence has one French one. Where English leaves a choice, the rule
is:

- "you" is vous, to one man; "I" and "we" are men speaking; "he" and "it" are il, "they" is ils.
- The objects "him" and "it" are le, "her" is la, "them" is les with the masculine plural; "friend" is ami.
- The simple past and the present perfect are passé composé; of be, have, love and know the simple past is
  imparfait. "Was ...ing" and "used to" are imparfait. Present and present progressive are présent.
- "Is going to" with a verb is aller with an infinitive; "can" is pouvoir, "must" devoir, "want" and "would
  like" vouloir.
- "Know" is connaître; "some" is du, de la or des (de before an adjective and a plural); of a negated verb's
  direct object "a" and "any" are de.

What is not: contractions (don't), imperatives, reflexives, comparatives, the passive, the subjunctive; "we"
and "you" in the imparfait, futur and conditionnel of verbs other than être and "would like".

Some (subject noun, verb, object noun) triples are held out, whatever the seed: no training sentence
contains one, in any tense, number or construction, so a held-out sentence can only be translated by putting
known parts together. The object of a triple is what is given, not to whom; for talk to and answer it is the
person.
"""

import zlib
from collections.abc import Iterator
from functools import cache
from random import Random

from antiphon.data.corpora.english_french import english, french
from antiphon.data.corpora.english_french.grammar import generate
from antiphon.data.corpora.english_french.syntax import Sentence, Triple, triples
from antiphon.data.pairs import Pair

MAX_WORDS = 16
HELD_OUT_ONE_IN = 33
HELD_OUT_ALWAYS = frozenset(
    {
        ("cat", "eat", "mouse"),
        ("man", "open", "door"),
        ("woman", "buy", "dress"),
        ("girl", "write", "letter"),
        ("king", "give", "key"),
        ("dog", "follow", "boy"),
    }
)
SHARES = {0: 0.3, 1: 0.5}  # of the sentences with so many triples, how many training takes
SHOWCASE = [
    "The cat ate the mouse.",
    "Did the old man open the door?",
    "Which letters had the girl written?",
    "The dresses that the women bought are very expensive.",
    "The king will never give them his keys.",
    "The small black dog was following the boys in the garden.",
]


@cache
def is_held_out(triple: Triple) -> bool:
    """Whether a triple is kept out of training: a fixed few, and about one in `HELD_OUT_ONE_IN`."""
    return triple in HELD_OUT_ALWAYS or zlib.crc32("|".join(triple).encode()) % HELD_OUT_ONE_IN == 0


def render(sentence: Sentence) -> Pair:
    """The English and the French of a derivation."""
    return Pair(english.render(sentence), french.render(sentence))


def is_short(pair: Pair) -> bool:
    """Whether no side has more than `MAX_WORDS` words."""
    return max(text.count(" ") for text in pair) < MAX_WORDS


def sentences(seed: int) -> Iterator[Sentence]:
    """Derivations without end, the same for the same seed."""
    return generate(Random(seed))


def build(seed: int, num_train: int, num_held_out: int) -> tuple[list[Pair], list[Pair]]:
    """Distinct pairs for training, and distinct ones that each contain a held-out triple.

    A sentence of many clauses is held out more often than one of few. So that training sees as many of them, it takes
    only a share of the sentences with one triple or none (`SHARES`).
    """
    train: dict[str, str] = {}
    held_out: dict[str, str] = {}
    draw = Random(f"{seed}/shares").random
    for sentence in sentences(seed):
        found = list(triples(sentence))
        chosen, wanted = train, num_train
        if any(is_held_out(triple) for triple in found):
            chosen, wanted = held_out, num_held_out
        elif draw() >= SHARES.get(len(found), 1.0):
            continue
        if len(chosen) < wanted:
            pair = render(sentence)
            if is_short(pair):
                chosen[pair.source] = pair.target
        elif len(train) >= num_train and len(held_out) >= num_held_out:
            break
    return _pairs(train), _pairs(held_out)


def _pairs(found: dict[str, str]) -> list[Pair]:
    return [Pair(source, target) for source, target in found.items()]
