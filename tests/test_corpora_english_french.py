"""The English-French grammar: hand-checked sentences for what it covers, and laws over many drawn ones."""

import re
from collections import Counter
from itertools import islice

import pytest

from antiphon.data.corpora import english_french as corpus
from antiphon.data.corpora.english_french import french, lexicon
from antiphon.data.corpora.english_french.syntax import (
    Clause,
    Coordination,
    Gap,
    NounPhrase,
    Object,
    Place,
    Sentence,
    Subject,
    Triple,
    triples,
)
from antiphon.data.pairs import Pair

NUM_SAMPLES = 60_000


def phrase(text: str, relative: Clause | None = None) -> NounPhrase:
    """A noun phrase from English words: "the small cat", "my brother's dogs", "all the old houses"."""
    owner_text, genitive, rest = text.partition("'s ")
    owner = phrase(owner_text) if genitive else None
    words = rest.split() if genitive else text.split()
    singular = {noun.english: noun for noun in lexicon.NOUNS.values()}
    plural = {noun.english_plural: noun for noun in lexicon.NOUNS.values() if not noun.mass}
    noun = singular.get(words[-1]) or plural[words[-1]]
    adjectives = []
    while len(words) > 1 and words[-2] in lexicon.ADJECTIVES:
        adjectives.insert(0, lexicon.ADJECTIVES[words.pop(-2)])
    determiner = "the" if owner else " ".join(words[:-1])
    determiner = {"an": "a", "these": "this", "any": "some"}.get(determiner, determiner)
    return NounPhrase(determiner, noun, words[-1] not in singular, tuple(adjectives), owner, relative)


def gap(text: str) -> Gap:
    """The gap that a noun phrase of these words leaves."""
    whole = phrase(text)
    return Gap(whole.noun, whole.plural)


def subject_of(text: str) -> Subject:
    if text in lexicon.PRONOUNS:
        return lexicon.PRONOUNS[text]
    first, both, second = text.partition(" and ")
    return Coordination(phrase(first), phrase(second)) if both else phrase(text)


def object_of(text: str) -> Object:
    by_object = {pronoun.english_object: pronoun for pronoun in lexicon.PRONOUNS.values()}
    return by_object[text] if text in by_object else phrase(text)


def clause(
    subject: str | Subject,
    verb: str,
    form: str = "present",
    thing: str | Object | None = None,
    *,
    to: str | None = None,
    be: str = "",
    polarity: str = "",
    adverb: str = "",
    place: str = "",
    time: str = "",
) -> Clause:
    """A clause from English words. `be` is what the subject is ("very tired"), `place` "in / the garden"."""
    *intensifier, adjective = be.split() or [""]
    adverbs = {a.english: a for a in (*lexicon.ADVERBS, lexicon.ALREADY)}
    preposition, _, there = place.partition(" / ")
    return Clause(
        subject_of(subject) if isinstance(subject, str) else subject,
        lexicon.VERBS[verb],
        lexicon.FORMS[form],
        object_of(thing) if isinstance(thing, str) else thing,
        object_of(to) if to else None,
        lexicon.ADJECTIVES[adjective] if adjective else None,
        intensifier[0] if intensifier else "",
        polarity,  # type: ignore[arg-type]
        adverbs[adverb] if adverb else None,
        Place(lexicon.PREPOSITIONS[preposition], phrase(there)) if place else None,
        lexicon.TIMES[time] if time else None,
    )


def question(mood: str, of: Clause, asked: NounPhrase | lexicon.Pronoun | None = None) -> Sentence:
    return Sentence(of, mood, asked)  # type: ignore[arg-type]


CAT, MOUSE = "the cat", "the mouse"
STATEMENTS = [
    # tenses
    (clause(CAT, "eat", "past", MOUSE), "The cat ate the mouse.", "Le chat a mangé la souris."),
    (clause(CAT, "eat", "perfect", MOUSE), "The cat has eaten the mouse.", "Le chat a mangé la souris."),
    (clause(CAT, "eat", "present", MOUSE), "The cat eats the mouse.", "Le chat mange la souris."),
    (clause(CAT, "eat", "progressive", MOUSE), "The cat is eating the mouse.", "Le chat mange la souris."),
    (clause(CAT, "eat", "used to", MOUSE), "The cat used to eat the mouse.", "Le chat mangeait la souris."),
    (clause("I", "eat", "past progressive", MOUSE), "I was eating the mouse.", "Je mangeais la souris."),
    (clause(CAT, "eat", "future", MOUSE), "The cat will eat the mouse.", "Le chat mangera la souris."),
    (
        clause("they", "go", "conditional", place="to / the beach"),
        "They would go to the beach.",
        "Ils iraient à la plage.",
    ),
    (
        clause(CAT, "eat", "pluperfect", MOUSE),
        "The cat had eaten the mouse.",
        "Le chat avait mangé la souris.",
    ),
    (
        clause("we", "love", "present", "the bread"),
        "We love the bread.",
        "Nous aimons le pain.",
    ),
    (clause("I", "know", "past", "the queen"), "I knew the queen.", "Je connaissais la reine."),
    (clause("the men", "have", "past", "a boat"), "The men had a boat.", "Les hommes avaient un bateau."),
    # être, and participles that agree with the subject
    (clause("the girls", "leave", "past"), "The girls left.", "Les filles sont parties."),
    (
        clause("she", "arrive", "pluperfect", place="at / the station"),
        "She had arrived at the station.",
        "Elle était arrivée à la gare.",
    ),
    (
        clause("we", "come", "perfect", place="from / the market"),
        "We have come from the market.",
        "Nous sommes venus du marché.",
    ),
    (clause("you", "fall", "past"), "You fell.", "Vous êtes tombé."),
    (
        clause("the mouse and the cow", "stay", "past"),
        "The mouse and the cow stayed.",
        "La souris et la vache sont restées.",
    ),
    (
        clause("the cat and the mouse", "stay", "past"),
        "The cat and the mouse stayed.",
        "Le chat et la souris sont restés.",
    ),
    # object pronouns, and participles that agree with them
    (clause(CAT, "eat", "past", "her"), "The cat ate her.", "Le chat l'a mangée."),
    (clause(CAT, "eat", "past", "it"), "The cat ate it.", "Le chat l'a mangé."),
    (clause("the queen", "see", "past", "them"), "The queen saw them.", "La reine les a vus."),
    (clause("they", "wait for", "pluperfect", "us"), "They had waited for us.", "Ils nous avaient attendus."),
    (clause("she", "see", "past", "me", polarity="not"), "She did not see me.", "Elle ne m'a pas vu."),
    (clause("he", "look for", "present", "her"), "He looks for her.", "Il la cherche."),
    (clause("I", "talk to", "past", "her"), "I talked to her.", "Je lui ai parlé."),
    (
        clause("you", "answer", "past", "the doctors"),
        "You answered the doctors.",
        "Vous avez répondu aux médecins.",
    ),
    (
        clause("the king", "give", "future", "the keys", to="them"),
        "The king will give them the keys.",
        "Le roi leur donnera les clés.",
    ),
    (clause("she", "show", "past", "it", to="him"), "She showed it to him.", "Elle le lui a montré."),
    (
        clause("he", "bring", "present", "them", to="us", polarity="never"),
        "He never brings them to us.",
        "Il ne nous les apporte jamais.",
    ),
    (
        clause("I", "give", "past", "the apple", to="the child"),
        "I gave the apple to the child.",
        "J'ai donné la pomme à l'enfant.",
    ),
    # infinitives
    (
        clause("he", "see", "want to", "it", polarity="not"),
        "He does not want to see it.",
        "Il ne veut pas le voir.",
    ),
    (clause("we", "sleep", "can", polarity="not"), "We cannot sleep.", "Nous ne pouvons pas dormir."),
    (
        clause("I", "open", "would like to", "the door"),
        "I would like to open the door.",
        "Je voudrais ouvrir la porte.",
    ),
    (
        clause("the dog", "follow", "going to", "her"),
        "The dog is going to follow her.",
        "Le chien va la suivre.",
    ),
    (clause("they", "wait for", "must", "him"), "They must wait for him.", "Ils doivent l'attendre."),
    (
        clause("she", "choose", "wanted to", "a hat"),
        "She wanted to choose a hat.",
        "Elle voulait choisir un chapeau.",
    ),
    # negation, and "de"
    (
        clause("he", "have", "present", "a cat", polarity="not"),
        "He does not have a cat.",
        "Il n'a pas de chat.",
    ),
    (clause("he", "see", "past", CAT, polarity="not"), "He did not see the cat.", "Il n'a pas vu le chat."),
    (
        clause("I", "drink", "present", "any milk", polarity="never"),
        "I never drink any milk.",
        "Je ne bois jamais de lait.",
    ),
    (
        clause("we", "have", "present", "any friends", polarity="no longer"),
        "We no longer have any friends.",
        "Nous n'avons plus d'amis.",
    ),
    (clause("a cat", "sleep", "present", polarity="not"), "A cat does not sleep.", "Un chat ne dort pas."),
    # partitives and quantities
    (clause("she", "drink", "past", "some water"), "She drank some water.", "Elle a bu de l'eau."),
    (clause("he", "buy", "past", "some bread"), "He bought some bread.", "Il a acheté du pain."),
    (clause("he", "eat", "present", "some meat"), "He eats some meat.", "Il mange de la viande."),
    (clause("I", "see", "present", "some birds"), "I see some birds.", "Je vois des oiseaux."),
    (
        clause("I", "see", "present", "some beautiful birds"),
        "I see some beautiful birds.",
        "Je vois de beaux oiseaux.",
    ),
    (clause("all the mice", "run"), "All the mice run.", "Toutes les souris courent."),
    (clause("many owls", "sleep"), "Many owls sleep.", "Beaucoup de hiboux dorment."),
    (
        clause("every king", "have", "present", "two horses"),
        "Every king has two horses.",
        "Chaque roi a deux chevaux.",
    ),
    # articles, adjectives, possessives, demonstratives
    (
        clause("the old man", "know", "present", "the old woman"),
        "The old man knows the old woman.",
        "Le vieil homme connaît la vieille femme.",
    ),
    (clause("a beautiful bird", "sing"), "A beautiful bird sings.", "Un bel oiseau chante."),
    (
        clause("the new hotel", "be", "past", be="very expensive"),
        "The new hotel was very expensive.",
        "Le nouvel hôtel était très cher.",
    ),
    (clause("the old owl", "sleep"), "The old owl sleeps.", "Le vieux hibou dort."),
    (
        clause("the small white mice", "be", "present", be="happy"),
        "The small white mice are happy.",
        "Les petites souris blanches sont heureuses.",
    ),
    (
        clause("my school", "be", "future", be="too small"),
        "My school will be too small.",
        "Mon école sera trop petite.",
    ),
    (
        clause("her old school", "be", "present", be="beautiful"),
        "Her old school is beautiful.",
        "Sa vieille école est belle.",
    ),
    (
        clause("this child", "buy", "past", "this orange"),
        "This child bought this orange.",
        "Cet enfant a acheté cette orange.",
    ),
    (
        clause("these French actresses", "work"),
        "These French actresses work.",
        "Ces actrices françaises travaillent.",
    ),
    (
        clause("the neighbor's dog", "sleep", place="near / the garden"),
        "The neighbor's dog sleeps near the garden.",
        "Le chien du voisin dort près du jardin.",
    ),
    (
        clause(
            "an actress",
            "fall",
        ),
        "An actress falls.",
        "Une actrice tombe.",
    ),
    (
        clause("the sister's friends", "be", "present", place="in front of / the house"),
        "The sister's friends are in front of the house.",
        "Les amis de la sœur sont devant la maison.",
    ),
    (
        clause("we", "be", "perfect", be="tired", adverb="often"),
        "We have often been tired.",
        "Nous avons souvent été fatigués.",
    ),
    # adverbs and times
    (
        clause("he", "eat", "perfect", "the cake", adverb="already"),
        "He has already eaten the cake.",
        "Il a déjà mangé le gâteau.",
    ),
    (
        clause("I", "work", adverb="always", time="in the morning"),
        "I always work in the morning.",
        "Je travaille toujours le matin.",
    ),
    (
        clause("she", "write", "past", "a letter", time="yesterday"),
        "She wrote a letter yesterday.",
        "Elle a écrit une lettre hier.",
    ),
    # relative clauses
    (
        clause(phrase(MOUSE, clause(CAT, "eat", "past", gap(MOUSE))), "be", "past", be="small"),
        "The mouse that the cat ate was small.",
        "La souris que le chat a mangée était petite.",
    ),
    (
        clause(phrase("the apples", clause("I", "buy", "perfect", gap("the apples"))), "be", be="red"),
        "The apples that I have bought are red.",
        "Les pommes que j'ai achetées sont rouges.",
    ),
    (
        clause(
            "he",
            "love",
            "present",
            phrase("the dress", clause("she", "choose", "pluperfect", gap("the dress"))),
        ),
        "He loves the dress that she had chosen.",
        "Il aime la robe qu'elle avait choisie.",
    ),
    (
        clause(phrase("the girl", clause(gap("the girl"), "leave", "past")), "be", be="sad"),
        "The girl who left is sad.",
        "La fille qui est partie est triste.",
    ),
    (
        clause(
            "I",
            "see",
            "past",
            phrase("the wolf", clause(gap("the wolf"), "follow", "past progressive", "you")),
        ),
        "I saw the wolf that was following you.",
        "J'ai vu le loup qui vous suivait.",
    ),
]
QUESTIONS = [
    (
        question("yes-no", clause(CAT, "eat", "present", MOUSE)),
        "Does the cat eat the mouse?",
        "Est-ce que le chat mange la souris ?",
    ),
    (question("yes-no", clause("he", "leave", "perfect")), "Has he left?", "Est-ce qu'il est parti ?"),
    (question("yes-no", clause("you", "be", be="tired")), "Are you tired?", "Est-ce que vous êtes fatigué ?"),
    (
        question("object", clause(CAT, "eat", "past"), lexicon.WHAT),
        "What did the cat eat?",
        "Qu'est-ce que le chat a mangé ?",
    ),
    (
        question("object", clause("he", "look for"), lexicon.WHAT),
        "What does he look for?",
        "Qu'est-ce qu'il cherche ?",
    ),
    (
        question("object", clause("the man", "see", "past"), lexicon.WHO),
        "Who did the man see?",
        "Qui est-ce que l'homme a vu ?",
    ),
    (
        question("object", clause("she", "talk to", "past"), lexicon.WHO),
        "Who did she talk to?",
        "À qui est-ce qu'elle a parlé ?",
    ),
    (
        question("object", clause("they", "give", "past", "the book"), lexicon.WHO),
        "Who did they give the book to?",
        "À qui est-ce qu'ils ont donné le livre ?",
    ),
    (
        question("object", clause("the girl", "write", "pluperfect", gap("which letters")), phrase("which letters")),
        "Which letters had the girl written?",
        "Quelles lettres est-ce que la fille avait écrites ?",
    ),
    (
        question("object", clause(CAT, "eat", "past", gap("how many mice")), phrase("how many mice")),
        "How many mice did the cat eat?",
        "Combien de souris est-ce que le chat a mangées ?",
    ),
    (
        question("subject", clause(lexicon.WHO, "eat", "past", MOUSE)),
        "Who ate the mouse?",
        "Qui a mangé la souris ?",
    ),
    (
        question("subject", clause("which women", "come", "past")),
        "Which women came?",
        "Quelles femmes sont venues ?",
    ),
    (question("where", clause("the keys", "be")), "Where are the keys?", "Où sont les clés ?"),
    (question("where", clause("I", "go", "progressive")), "Where am I going?", "Où est-ce que je vais ?"),
    (
        question("when", clause("she", "arrive", "future")),
        "When will she arrive?",
        "Quand est-ce qu'elle arrivera ?",
    ),
    (
        question("why", clause("he", "open", "past", "the window", polarity="not")),
        "Why did he not open the window?",
        "Pourquoi est-ce qu'il n'a pas ouvert la fenêtre ?",
    ),
    (
        question("there", clause("a cat", "be", "present", place="in / the garden")),
        "There is a cat in the garden.",
        "Il y a un chat dans le jardin.",
    ),
    (
        question("there", clause("some owls", "be", "past", polarity="not", place="on / the bed")),
        "There were not any owls on the bed.",
        "Il n'y avait pas de hiboux sur le lit.",
    ),
    (
        Sentence(clause("he", "sleep", "past progressive"), connective="when", second=clause("I", "arrive", "past")),
        "He was sleeping when I arrived.",
        "Il dormait quand je suis arrivé.",
    ),
    (
        Sentence(clause("she", "stay"), connective="because", second=clause("he", "be", be="sad")),
        "She stays because he is sad.",
        "Elle reste parce qu'il est triste.",
    ),
]
CHECKED = [(Sentence(said), english, french) for said, english, french in STATEMENTS] + QUESTIONS

# Of je and nous the present; of je and ils the imparfait, futur, conditionnel; two participles.
CONJUGATED = """
manger: mange mangeons, mangeais mangeaient, mangerai mangeront, mangerais mangeraient, mangé mangées
acheter: achète achetons, achetais achetaient, achèterai achèteront, achèterais achèteraient, acheté achetées
aller: vais allons, allais allaient, irai iront, irais iraient, allé allées
venir: viens venons, venais venaient, viendrai viendront, viendrais viendraient, venu venues
partir: pars partons, partais partaient, partirai partiront, partirais partiraient, parti parties
voir: vois voyons, voyais voyaient, verrai verront, verrais verraient, vu vues
prendre: prends prenons, prenais prenaient, prendrai prendront, prendrais prendraient, pris prises
boire: bois buvons, buvais buvaient, boirai boiront, boirais boiraient, bu bues
ouvrir: ouvre ouvrons, ouvrais ouvraient, ouvrirai ouvriront, ouvrirais ouvriraient, ouvert ouvertes
écrire: écris écrivons, écrivais écrivaient, écrirai écriront, écrirais écriraient, écrit écrites
courir: cours courons, courais couraient, courrai courront, courrais courraient, couru courues
suivre: suis suivons, suivais suivaient, suivrai suivront, suivrais suivraient, suivi suivies
dormir: dors dormons, dormais dormaient, dormirai dormiront, dormirais dormiraient, dormi dormies
vouloir: veux voulons, voulais voulaient, voudrai voudront, voudrais voudraient, voulu voulues
être: suis sommes, étais étaient, serai seront, serais seraient, été étées
avoir: ai avons, avais avaient, aurai auront, aurais auraient, eu eues
""".strip().splitlines()

VOWEL = "(?!huit|hibou)[aâàeéèêiîoôuyhœ]"
MISTAKES = {
    "elision": rf"\b(?:le|la|je|me|ne|de|que) {VOWEL}",
    "no elision": rf"'(?!{VOWEL})",
    "contraction": r"\b(?:de|à) les?\b",
    "de des": r"\bde des\b",
    "ma école": rf"\b(?:ma|sa|ce) {VOWEL}",
    "beau ami": r"\b(?:beau|vieux|nouveau) (?:homme|enfant|ami|étudiant|oiseau|œuf|arbre|hôtel)\b",
    "bel chat": rf"\b(?:bel|vieil|nouvel|cet) (?!{VOWEL})",
    "two spaces": "  | $|^ | '|' ",
}


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Sentence, Pair]]:
    return [(sentence, corpus.render(sentence)) for sentence in islice(corpus.sentences(seed=7), NUM_SAMPLES)]


@pytest.mark.parametrize(("sentence", "english", "french"), CHECKED, ids=[row[1] for row in CHECKED])
def test_checked_sentence(sentence: Sentence, english: str, french: str) -> None:
    assert corpus.render(sentence) == Pair(english, french)


@pytest.mark.parametrize("line", CONJUGATED)
def test_checked_conjugation(line: str) -> None:
    infinitive, forms = line.split(": ")
    verb = lexicon.CONJUGATIONS[infinitive]
    rows = [f"{verb.tenses['présent'][0]} {verb.tenses['présent'][2]}"]
    rows += [f"{verb.tenses[t][0]} {verb.tenses[t][4]}" for t in ("imparfait", "futur", "conditionnel")]
    rows.append(f"{verb.participles[0]} {verb.participles[3]}")
    assert ", ".join(rows) == forms


def test_auxiliaries_have_we_and_you_in_the_imparfait() -> None:
    assert lexicon.CONJUGATIONS["être"].tenses["imparfait"][2:4] == ("étions", "étiez")
    assert lexicon.CONJUGATIONS["avoir"].tenses["imparfait"][2:4] == ("avions", "aviez")
    assert lexicon.CONJUGATIONS["manger"].tenses["imparfait"][2] == "mangions"


def test_one_english_sentence_has_one_french_one(drawn: list[tuple[Sentence, Pair]]) -> None:
    found: dict[str, str] = {}
    for _, pair in drawn:
        assert found.setdefault(pair.source, pair.target) == pair.target, pair.source


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_sentence_has_this_mistake(mistake: str, drawn: list[tuple[Sentence, Pair]]) -> None:
    found = re.compile(MISTAKES[mistake], re.IGNORECASE)
    assert [pair.target for _, pair in drawn if found.search(pair.target)] == []


def test_sentences_are_written_as_sentences(drawn: list[tuple[Sentence, Pair]]) -> None:
    for _, (source, target) in drawn:
        assert re.fullmatch(r"[A-Z][A-Za-z' ]+[.?]", source), source
        assert re.fullmatch(r"[A-ZÀÉ][a-zàâçéèêîôùûœ'\- ]+(?:\w\.| \?)", target), target
        assert source.endswith("?") == target.endswith("?")
        assert re.search(r"\ba [aeiou]|\ban [^aeiou]", source, re.IGNORECASE) is None, source


def test_every_word_of_the_lexicon_is_drawn_often_enough(drawn: list[tuple[Sentence, Pair]]) -> None:
    english = Counter(word for _, pair in drawn for word in re.findall(r"[a-z]+", pair.source.lower()))
    spoken = Counter(word for _, pair in drawn for word in re.findall(r"[a-zàâçéèêîôûœ]+", pair.target.lower()))
    for noun in lexicon.NOUNS.values():
        assert min(english[noun.english], spoken[noun.french]) > 100, noun.english
        assert noun.mass or min(english[noun.english_plural], spoken[noun.french_plural]) > 50, noun.english
    for adjective in lexicon.ADJECTIVES.values():
        assert english[adjective.english.lower()] > 100, adjective.english
        for agreement in range(4):
            assert spoken[french.adjective_form(adjective, agreement)] > 20, adjective.english
        assert spoken[adjective.before_vowel] > 5
    for verb in lexicon.VERBS.values():
        words = [verb.base, verb.third, verb.past, verb.participle]
        words += [verb.gerund] if verb.progressive else []
        assert min(english[word] for word in words) > 30, verb.english
        tenses = verb.french.tenses
        wanted = {
            *tenses["présent"],
            *(tenses[t][p] for t in tenses for p in (0, 1, 4)),
            verb.french.infinitive,
        }
        assert min(spoken[form] for form in wanted) >= 3, verb.english


def test_every_other_word_is_drawn(drawn: list[tuple[Sentence, Pair]]) -> None:
    english = " ".join(f" {pair.source[:-1].lower()} " for _, pair in drawn)
    words = [
        *lexicon.PREPOSITIONS,
        *lexicon.TIMES,
        *lexicon.NUMBERS,
        *lexicon.POSSESSIVES,
        *lexicon.NEGATIONS,
    ]
    words += [adverb.english for adverb in (*lexicon.ADVERBS, lexicon.ALREADY)]
    words += [word for pronoun in lexicon.PRONOUNS.values() for word in (pronoun.english, pronoun.english_object)]
    words += [
        "every",
        "several",
        "many",
        "all the",
        "which",
        "how many",
        "who",
        "what",
        "any",
        "some",
        "very",
        "too",
    ]
    assert min(english.count(f" {word.lower()} ") for word in words) > 50
    assert {clause.form.name for s, _ in drawn for clause in [s.clause]} == set(lexicon.FORMS)


def test_there_are_millions_of_sentences(drawn: list[tuple[Sentence, Pair]]) -> None:
    """Equal draws bound the number of sentences from below, as shared birthdays tell the days of a year.

    Counted are sentences of seven words and more: a few short ones come often ("He left.") and hide the rest.
    """
    sources = [pair.source for _, pair in drawn]
    long = [source for source in sources if source.count(" ") >= 6]
    shared = sum(n * (n - 1) // 2 for n in Counter(long).values())
    assert len(long) > NUM_SAMPLES // 2
    assert len(long) ** 2 / 2 / max(shared, 1) > 20_000_000
    assert len(set(sources)) > 0.85 * NUM_SAMPLES


def test_held_out_triples_are_about_three_in_a_hundred(drawn: list[tuple[Sentence, Pair]]) -> None:
    found: set[Triple] = {triple for sentence, _ in drawn for triple in triples(sentence)}
    assert 0.02 < sum(map(corpus.is_held_out, found)) / len(found) < 0.04


def test_triples_are_found_in_every_construction() -> None:
    """Wherever a checked sentence has the cat, the mouse and eating, and only there."""
    for sentence, english, _ in CHECKED:
        expected = re.search(
            r"\bcat\b.*\b(?:ate|eats?|eating|eaten) the mouse|(?:mouse|mice) .*\bcat\b.*\b(?:ate|eat)",
            english,
        )
        assert (("cat", "eat", "mouse") in triples(sentence)) == bool(expected), english


def test_no_training_sentence_has_a_held_out_triple(drawn: list[tuple[Sentence, Pair]]) -> None:
    train, held_out = corpus.build(seed=7, num_train=20_000, num_held_out=300)
    apart: dict[str, bool] = {}
    for sentence, pair in drawn:
        is_apart = any(corpus.is_held_out(triple) for triple in triples(sentence))
        assert apart.setdefault(pair.source, is_apart) == is_apart, pair.source
    assert not any(apart[pair.source] for pair in train)
    assert all(apart[pair.source] for pair in held_out)
    assert all(corpus.is_short(pair) for pair in train + held_out)


def test_no_training_text_says_what_is_held_out() -> None:
    """The same law read off the text, for one triple: whatever the cat eats, it is not a mouse."""
    train, _ = corpus.build(seed=3, num_train=60_000, num_held_out=0)
    text = "\n".join(pair.source.lower() for pair in train)
    ate = r"(?:eats?|ate|eaten|eating)"
    assert re.search(rf"\bcats? (?:\w+ ){{0,3}}{ate} (?:an?|the) \w+", text)
    assert not re.search(
        rf"\bcats? (?:(?!that|and|but|when|because)\w+ ){{0,3}}{ate} (?:\w+ ){{1,3}}(?:mouse|mice)\b", text
    )
    assert not re.search(rf"\b(?:mouse|mice) that (?:\w+ ){{1,2}}cats? (?:\w+ ){{0,3}}{ate}\b", text)


def test_what_is_shown_first_can_be_derived_and_is_held_out() -> None:
    trees = [
        Sentence(clause(CAT, "eat", "past", MOUSE)),
        question("yes-no", clause("the old man", "open", "past", "the door")),
        question("object", clause("the girl", "write", "pluperfect", gap("which letters")), phrase("which letters")),
        Sentence(
            clause(
                phrase("the dresses", clause("the women", "buy", "past", gap("the dresses"))),
                "be",
                be="very expensive",
            )
        ),
        Sentence(clause("the king", "give", "future", "his keys", to="them", polarity="never")),
        Sentence(clause("the small black dog", "follow", "past progressive", "the boys", place="in / the garden")),
    ]
    assert [corpus.render(tree).source for tree in trees] == corpus.SHOWCASE
    assert all(any(map(corpus.is_held_out, triples(tree))) for tree in trees)
