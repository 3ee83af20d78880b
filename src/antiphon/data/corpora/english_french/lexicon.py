"""The words of the English-French grammar, both languages side by side.

Here live nouns, adjectives, verbs, pronouns, adverbs, times and places as tables, and the records they are
read into. English inflection is spelled out; French conjugation is worked out from the few forms a
dictionary gives (see `conjugate`). This file knows no sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Grammatical persons as positions in a row of verb forms: je, il, nous, vous, ils. There is no tu.
FIRST, THIRD, FIRST_PLURAL, SECOND, THIRD_PLURAL = range(5)

# With an auxiliary the tense is the auxiliary's: passé composé = présent, plus-que-parfait = imparfait.
Tense = Literal["présent", "imparfait", "futur", "conditionnel", "passé composé", "plus-que-parfait"]


@dataclass(frozen=True, slots=True, eq=False)
class Noun:
    """A noun; `kinds` say which verbs and adjectives may go with it. A mass noun has no plural."""

    english: str
    english_plural: str
    french: str
    french_plural: str
    feminine: bool
    kinds: frozenset[str]

    @property
    def mass(self) -> bool:
        return "mass" in self.kinds


@dataclass(frozen=True, slots=True, eq=False)
class Adjective:
    """An adjective with its French forms; `before` the noun or after it."""

    english: str
    masculine: str
    before_vowel: str  # masculine singular before a vowel: bel, vieil, nouvel
    feminine: str
    masculine_plural: str
    feminine_plural: str
    before: bool
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Conjugation:
    """Forms of a French verb: rows of five persons for each simple tense, and four past participles."""

    infinitive: str
    auxiliary: Literal["avoir", "être"]
    tenses: Mapping[str, tuple[str, ...]]
    participles: tuple[str, str, str, str]  # masculine, feminine, masculine plural, feminine plural


@dataclass(frozen=True, slots=True, eq=False)
class Verb:
    """A verb of both languages, and what it goes with.

    A `state` has no progressive in English, and its simple past is an imparfait. `progressive` is False too
    for see and hear. The object of an `indirect` verb takes "à" in French; a `giving` verb has a recipient.
    """

    base: str
    third: str
    past: str
    participle: str
    gerund: str
    particle: str  # look AT, wait FOR
    french: Conjugation
    subjects: tuple[Noun, ...]
    objects: tuple[Noun, ...]
    state: bool = False
    progressive: bool = True
    indirect: bool = False
    giving: bool = False
    path: str = ""  # the English preposition of a motion verb: go TO, come FROM

    @property
    def english(self) -> str:
        return f"{self.base} {self.particle}" if self.particle else self.base


@dataclass(frozen=True, slots=True, eq=False)
class Pronoun:
    """A personal or asking pronoun; `person` is its place in a conjugation, the rest is for adjectives."""

    english: str
    english_object: str
    french: str
    french_object: str
    french_recipient: str
    person: int
    feminine: bool
    plural: bool


@dataclass(frozen=True, slots=True, eq=False)
class Adverb:
    """An adverb that stands before the English verb and after the French one."""

    english: str
    french: str


@dataclass(frozen=True, slots=True, eq=False)
class Time:
    """A time at the end of a sentence, with the verb forms it can go with."""

    english: tuple[str, ...]
    french: tuple[str, ...]
    forms: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Preposition:
    """A preposition of place and the nouns it can go with."""

    english: tuple[str, ...]
    french: tuple[str, ...]
    nouns: tuple[Noun, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """A form of the English verb and its French tense; `helper` is a French verb before an infinitive."""

    name: str
    tense: Tense
    helper: Conjugation | None = None


# English singular and plural, French singular and plural, gender, kinds.
_NOUNS = """
man men homme hommes m person
woman women femme femmes f person
boy boys garçon garçons m person
girl girls fille filles f person
child children enfant enfants m person
friend friends ami amis m person
neighbor neighbors voisin voisins m person
teacher teachers professeur professeurs m person
doctor doctors médecin médecins m person
student students étudiant étudiants m person
actress actresses actrice actrices f person
king kings roi rois m person
queen queens reine reines f person
brother brothers frère frères m person
sister sisters sœur sœurs f person
mother mothers mère mères f person
father fathers père pères m person
cat cats chat chats m animal
dog dogs chien chiens m animal
mouse mice souris souris f animal,prey
bird birds oiseau oiseaux m animal,prey
horse horses cheval chevaux m animal
cow cows vache vaches f animal
rabbit rabbits lapin lapins m animal,prey
wolf wolves loup loups m animal
bee bees abeille abeilles f animal
owl owls hibou hiboux m animal
apple apples pomme pommes f food
cake cakes gâteau gâteaux m food
egg eggs œuf œufs m food
orange oranges orange oranges f food
bread - pain - m mass,eaten
cheese - fromage - m mass,eaten
meat - viande - f mass,eaten
water - eau - f mass,drunk
milk - lait - m mass,drunk
coffee - café - m mass,drunk
book books livre livres m thing,openable,written
letter letters lettre lettres f thing,openable,written
story stories histoire histoires f written,heard
song songs chanson chansons f written,heard
door doors porte portes f seen,openable
window windows fenêtre fenêtres f seen,openable
box boxes boîte boîtes f thing,openable
bag bags sac sacs m thing,openable
key keys clé clés f thing
car cars voiture voitures f thing
boat boats bateau bateaux m thing
bicycle bicycles vélo vélos m thing
table tables table tables f thing
chair chairs chaise chaises f thing
bed beds lit lits m thing
hat hats chapeau chapeaux m thing
dress dresses robe robes f thing
coat coats manteau manteaux m thing
flower flowers fleur fleurs f thing
tree trees arbre arbres m seen
newspaper newspapers journal journaux m thing
picture pictures image images f thing
house houses maison maisons f place
garden gardens jardin jardins m place
kitchen kitchens cuisine cuisines f place
school schools école écoles f place
market markets marché marchés m place
station stations gare gares f place
beach beaches plage plages f place
forest forests forêt forêts f place
village villages village villages m place
church churches église églises f place
hotel hotels hôtel hôtels m place
park parks parc parcs m place
museum museums musée musées m place
"""

# English, French masculine, feminine and their plurals, where it stands, kinds.
_ADJECTIVES = """
beautiful beau belle beaux belles before person,animal,thing,seen,place,heard
small petit petite petits petites before person,animal,thing,seen,place,food
big grand grande grands grandes before person,animal,thing,seen,place,food
old vieux vieille vieux vieilles before person,animal,thing,seen,place,heard
new nouveau nouvelle nouveaux nouvelles before person,thing,seen,place,heard
good bon bonne bons bonnes before person,food,mass,thing,heard
bad mauvais mauvaise mauvais mauvaises before food,mass,thing,heard
young jeune jeune jeunes jeunes before person,animal
pretty joli jolie jolis jolies before person,animal,thing,seen,place,heard
red rouge rouge rouges rouges after thing,seen,food
blue bleu bleue bleus bleues after thing,seen,animal
green vert verte verts vertes after thing,seen,food
white blanc blanche blancs blanches after animal,thing,seen,place
black noir noire noirs noires after animal,thing,seen
yellow jaune jaune jaunes jaunes after animal,thing,seen,food
tired fatigué fatiguée fatigués fatiguées after person,animal
happy heureux heureuse heureux heureuses after person,animal
sad triste triste tristes tristes after person,animal,heard
strong fort forte forts fortes after person,animal
intelligent intelligent intelligente intelligents intelligentes after person,animal
rich riche riche riches riches after person,place
poor pauvre pauvre pauvres pauvres after person,place
dangerous dangereux dangereuse dangereux dangereuses after person,animal,place
heavy lourd lourde lourds lourdes after thing
expensive cher chère chers chères after thing,food,mass
clean propre propre propres propres after thing,place
dirty sale sale sales sales after thing,place,animal
cold froid froide froids froides after mass,food,place
French français française français françaises after person,thing,mass,heard
"""
_BEFORE_VOWEL = {"beau": "bel", "vieux": "vieil", "nouveau": "nouvel"}

# Infinitive, present of je, il, nous, vous and ils, future stem, past participle. But for regular ones.
_FRENCH_VERBS = """
être suis est sommes êtes sont ser été
avoir ai a avons avez ont aur eu
aller vais va allons allez vont ir allé
pouvoir peux peut pouvons pouvez peuvent pourr pu
devoir dois doit devons devez doivent devr dû
vouloir veux veut voulons voulez veulent voudr voulu
manger mange mange mangeons mangez mangent manger mangé
acheter achète achète achetons achetez achètent achèter acheté
voir vois voit voyons voyez voient verr vu
boire bois boit buvons buvez boivent boir bu
entendre entends entend entendons entendez entendent entendr entendu
attendre attends attend attendons attendez attendent attendr attendu
vendre vends vend vendons vendez vendent vendr vendu
répondre réponds répond répondons répondez répondent répondr répondu
prendre prends prend prenons prenez prennent prendr pris
connaître connais connaît connaissons connaissez connaissent connaîtr connu
suivre suis suit suivons suivez suivent suivr suivi
choisir choisis choisit choisissons choisissez choisissent choisir choisi
ouvrir ouvre ouvre ouvrons ouvrez ouvrent ouvrir ouvert
écrire écris écrit écrivons écrivez écrivent écrir écrit
dormir dors dort dormons dormez dorment dormir dormi
courir cours court courons courez courent courr couru
venir viens vient venons venez viennent viendr venu
partir pars part partons partez partent partir parti
"""
_WITH_ETRE = frozenset({"aller", "venir", "arriver", "partir", "tomber", "rester"})

# English base, third person, past, participle, gerund, particle or -; French; subjects; objects; remark.
_VERBS = """
be is was been being - être person,animal,thing,seen,place,food,mass,heard - state
have has had had having - avoir person animal,thing,food state
love loves loved loved loving - aimer person,animal person,animal,food,mass,heard,place state
know knows knew known knowing - connaître person person,animal,heard,place state
see sees saw seen seeing - voir person,animal person,animal,thing,seen,place,food still
hear hears heard heard hearing - entendre person,animal person,animal,heard still
eat eats ate eaten eating - manger person,animal food,eaten,prey -
drink drinks drank drunk drinking - boire person,animal drunk -
look looks looked looked looking at regarder person,animal person,animal,thing,seen,place -
look looks looked looked looking for chercher person,animal person,animal,thing,food,place -
wait waits waited waited waiting for attendre person,animal person,animal -
find finds found found finding - trouver person,animal person,animal,thing,food -
follow follows followed followed following - suivre person,animal person,animal -
catch catches caught caught catching - attraper person,animal person,animal -
buy buys bought bought buying - acheter person food,mass,thing,animal -
sell sells sold sold selling - vendre person food,mass,thing,animal -
take takes took taken taking - prendre person thing,food,mass -
carry carries carried carried carrying - porter person thing,food,animal -
choose chooses chose chosen choosing - choisir person thing,food,heard -
open opens opened opened opening - ouvrir person openable -
close closes closed closed closing - fermer person openable -
write writes wrote written writing - écrire person written -
give gives gave given giving - donner person thing,food,animal giving
show shows showed shown showing - montrer person thing,food,animal,seen giving
bring brings brought brought bringing - apporter person thing,food,mass giving
talk talks talked talked talking to parler person person,animal indirect
answer answers answered answered answering - répondre person person indirect
sleep sleeps slept slept sleeping - dormir person,animal - -
work works worked worked working - travailler person - -
sing sings sang sung singing - chanter person - -
run runs ran run running - courir person,animal - -
fall falls fell fallen falling - tomber person,animal,thing - -
stay stays stayed stayed staying - rester person,animal - -
leave leaves left left leaving - partir person,animal - -
go goes went gone going - aller person,animal - to
come comes came come coming - venir person,animal - from
arrive arrives arrived arrived arriving - arriver person,animal - at
"""

# English subject and object, French subject, object and recipient, person, gender and number of what agrees.
_PRONOUNS = """
I me je me me 0 m s
you you vous vous vous 3 m s
he him il le lui 1 m s
she her elle la lui 1 f s
it it il le lui 1 m s
we us nous nous nous 2 m p
they them ils les leur 4 m p
"""

# English / French / nouns. "at", "to" and "from" also go with verbs of motion.
_PREPOSITIONS = """
in / dans / garden house kitchen forest park village hotel school museum church car box
under / sous / table chair tree bed
on / sur / table chair bed boat beach
behind / derrière / door tree house church car school hotel
in front of / devant / door window house church school hotel
near / près de / garden house station forest park village market tree window church
at / à / market station school hotel beach museum
to / à / market station school hotel beach museum park church village
from / de / market station school hotel beach museum park church village
"""

# English / French / forms. A pair such as "has eaten yesterday" is no English.
_TIMES = """
yesterday / hier / past,pluperfect,past progressive
last week / la semaine dernière / past,pluperfect,past progressive
tomorrow / demain / future,conditional,going to,must,can
next week / la semaine prochaine / future,conditional,going to,must,can
today / aujourd'hui / past,perfect,progressive,future,conditional,must,can
every day / tous les jours / present,past,used to,future,conditional
in the morning / le matin / present,past,used to,future,conditional
in the evening / le soir / present,past,used to,future,conditional
now / maintenant / progressive,can,must
"""

ADVERBS = tuple(Adverb(*row.split()) for row in ("often souvent", "always toujours", "sometimes parfois"))
ALREADY = Adverb("already", "déjà")
INTENSIFIERS = {"": "", "very": "très", "too": "trop"}
CONNECTIVES = {"and": ("et",), "but": ("mais",), "because": ("parce", "que"), "when": ("quand",)}
NEGATIONS = {"not": "pas", "never": "jamais", "no longer": "plus"}
NUMBERS = {
    "two": "deux",
    "three": "trois",
    "four": "quatre",
    "five": "cinq",
    "six": "six",
    "seven": "sept",
    "eight": "huit",
    "nine": "neuf",
    "ten": "dix",
}
POSSESSIVES = {  # before masculine singular (or a vowel), feminine singular, plural
    "my": ("mon", "ma", "mes"),
    "your": ("votre", "votre", "vos"),
    "his": ("son", "sa", "ses"),
    "her": ("son", "sa", "ses"),
    "our": ("notre", "notre", "nos"),
    "their": ("leur", "leur", "leurs"),
}
ASPIRATED = frozenset({"hibou", "hiboux", "huit"})  # begin with an h that stops elision


def conjugate(infinitive: str, present: tuple[str, ...], future: str, participle: str) -> Conjugation:
    """All forms from the present, the stem of the future and the masculine participle."""
    past = "ét" if infinitive == "être" else present[FIRST_PLURAL].removesuffix("ons")
    short = past.removesuffix("e") if past.endswith("ge") else past  # nous mangions, but je mangeais
    plural = participle if participle.endswith("s") else participle + "s"
    tenses = {
        "présent": present,
        "imparfait": (past + "ais", past + "ait", short + "ions", short + "iez", past + "aient"),
        "futur": tuple(future + end for end in ("ai", "a", "ons", "ez", "ont")),
        "conditionnel": tuple(future + end for end in ("ais", "ait", "ions", "iez", "aient")),
    }
    participles = (participle, participle + "e", plural, participle + "es")
    return Conjugation(infinitive, "être" if infinitive in _WITH_ETRE else "avoir", tenses, participles)


def _rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.strip().splitlines()]


def _columns(table: str) -> list[list[str]]:
    return [line.split(" / ") for line in table.strip().splitlines()]


def _conjugations() -> dict[str, Conjugation]:
    known = {
        row[0]: conjugate(row[0], tuple(row[1:6]), future=row[6], participle=row[7]) for row in _rows(_FRENCH_VERBS)
    }
    for row in _rows(_VERBS):
        infinitive = row[6]
        if infinitive not in known:
            stem = infinitive.removesuffix("er")
            present = tuple(stem + end for end in ("e", "e", "ons", "ez", "ent"))
            known[infinitive] = conjugate(infinitive, present, infinitive, stem + "é")
    return known


def _with_kinds(kinds: str) -> tuple[Noun, ...]:
    wanted = frozenset(kinds.split(","))
    return tuple(noun for noun in NOUNS.values() if noun.kinds & wanted)


def _adjective(row: list[str]) -> Adjective:
    english, masculine, feminine, masculine_plural, feminine_plural, place, kinds = row
    return Adjective(
        english,
        masculine,
        _BEFORE_VOWEL.get(masculine, masculine),
        feminine,
        masculine_plural,
        feminine_plural,
        before=place == "before",
        kinds=frozenset(kinds.split(",")),
    )


def _pronoun(row: list[str]) -> Pronoun:
    english, english_object, french, french_object, recipient, person, gender, number = row
    return Pronoun(
        english,
        english_object,
        french,
        french_object,
        recipient,
        person=int(person),
        feminine=gender == "f",
        plural=number == "p",
    )


def _verb(row: list[str]) -> Verb:
    *english, particle, infinitive, subjects, objects, remark = row
    base, third, past, participle, gerund = english
    return Verb(
        base,
        third,
        past,
        participle,
        gerund,
        "" if particle == "-" else particle,
        CONJUGATIONS[infinitive],
        _with_kinds(subjects),
        _with_kinds(objects),
        state=remark == "state",
        progressive=remark not in ("state", "still"),
        indirect=remark == "indirect",
        giving=remark == "giving",
        path=remark if remark in ("to", "from", "at") else "",
    )


NOUNS = {
    row[0]: Noun(row[0], row[1], row[2], row[3], row[4] == "f", frozenset(row[5].split(","))) for row in _rows(_NOUNS)
}
ADJECTIVES = {row[0]: _adjective(row) for row in _rows(_ADJECTIVES)}
CONJUGATIONS = _conjugations()
VERBS = {verb.english: verb for verb in map(_verb, _rows(_VERBS))}
PRONOUNS = {row[0]: _pronoun(row) for row in _rows(_PRONOUNS)}
WHO = Pronoun("who", "who", "qui", "qui", "qui", person=THIRD, feminine=False, plural=False)
WHAT = Pronoun("what", "what", "que", "que", "que", person=THIRD, feminine=False, plural=False)
PREPOSITIONS = {
    english: Preposition(tuple(english.split()), tuple(french.split()), tuple(NOUNS[n] for n in nouns.split()))
    for english, french, nouns in _columns(_PREPOSITIONS)
}
TIMES = {
    english: Time(tuple(english.split()), tuple(french.split()), frozenset(forms.split(",")))
    for english, french, forms in _columns(_TIMES)
}
FORMS = {
    form.name: form
    for form in (
        Form("present", "présent"),
        Form("progressive", "présent"),
        Form("past", "passé composé"),  # of a state: imparfait
        Form("perfect", "passé composé"),
        Form("past progressive", "imparfait"),
        Form("used to", "imparfait"),
        Form("pluperfect", "plus-que-parfait"),
        Form("future", "futur"),
        Form("conditional", "conditionnel"),
        Form("can", "présent", CONJUGATIONS["pouvoir"]),
        Form("must", "présent", CONJUGATIONS["devoir"]),
        Form("want to", "présent", CONJUGATIONS["vouloir"]),
        Form("wanted to", "imparfait", CONJUGATIONS["vouloir"]),
        Form("would like to", "conditionnel", CONJUGATIONS["vouloir"]),
        Form("going to", "présent", CONJUGATIONS["aller"]),
    )
}
