"""Which languages the served models lead from and to, and which one a text is in.

A model's pair is what the settings say, or what its name tells: en-fr, en_fr, mine-en-fr, en-pt-BR. One that is told by
tags what is wanted has further ones where its tags are languages or pairs of them. It knows no HTTP and no model. Texts
are told apart by py3langid, which the extra `detect` brings (one file of numbers, no download).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

Pair = tuple[str, str]  # source, target


class Route(NamedTuple):
    """A way from one language to another. tag: what a source begins with to be led there, or ""."""

    source: str
    target: str
    model: str
    tag: str = ""


LOOKED_AT = 4096  # characters of a text, which tell its language

# ISO 639-1
_NAMES = """
aa Afar, ab Abkhazian, ae Avestan, af Afrikaans, ak Akan, am Amharic, an Aragonese, ar Arabic, as Assamese, av Avaric,
ay Aymara, az Azerbaijani, ba Bashkir, be Belarusian, bg Bulgarian, bi Bislama, bm Bambara, bn Bengali, bo Tibetan,
br Breton, bs Bosnian, ca Catalan, ce Chechen, ch Chamorro, co Corsican, cr Cree, cs Czech, cu Church Slavic,
cv Chuvash, cy Welsh, da Danish, de German, dv Divehi, dz Dzongkha, ee Ewe, el Greek, en English, eo Esperanto,
es Spanish, et Estonian, eu Basque, fa Persian, ff Fulah, fi Finnish, fj Fijian, fo Faroese, fr French,
fy Western Frisian, ga Irish, gd Scottish Gaelic, gl Galician, gn Guarani, gu Gujarati, gv Manx, ha Hausa, he Hebrew,
hi Hindi, ho Hiri Motu, hr Croatian, ht Haitian, hu Hungarian, hy Armenian, hz Herero, ia Interlingua, id Indonesian,
ie Interlingue, ig Igbo, ii Sichuan Yi, ik Inupiaq, io Ido, is Icelandic, it Italian, iu Inuktitut, ja Japanese,
jv Javanese, ka Georgian, kg Kongo, ki Kikuyu, kj Kuanyama, kk Kazakh, kl Kalaallisut, km Khmer, kn Kannada, ko Korean,
kr Kanuri, ks Kashmiri, ku Kurdish, kv Komi, kw Cornish, ky Kyrgyz, la Latin, lb Luxembourgish, lg Ganda, li Limburgish,
ln Lingala, lo Lao, lt Lithuanian, lu Luba-Katanga, lv Latvian, mg Malagasy, mh Marshallese, mi Maori, mk Macedonian,
ml Malayalam, mn Mongolian, mr Marathi, ms Malay, mt Maltese, my Burmese, na Nauru, nb Norwegian Bokmål,
nd North Ndebele, ne Nepali, ng Ndonga, nl Dutch, nn Norwegian Nynorsk, no Norwegian, nr South Ndebele, nv Navajo,
ny Chichewa, oc Occitan, oj Ojibwa, om Oromo, or Odia, os Ossetian, pa Punjabi, pi Pali, pl Polish, ps Pashto,
pt Portuguese, qu Quechua, rm Romansh, rn Rundi, ro Romanian, ru Russian, rw Kinyarwanda, sa Sanskrit, sc Sardinian,
sd Sindhi, se Northern Sami, sg Sango, si Sinhala, sk Slovak, sl Slovenian, sm Samoan, sn Shona, so Somali, sq Albanian,
sr Serbian, ss Swati, st Southern Sotho, su Sundanese, sv Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, th Thai,
ti Tigrinya, tk Turkmen, tl Tagalog, tn Tswana, to Tonga, tr Turkish, ts Tsonga, tt Tatar, tw Twi, ty Tahitian,
ug Uighur, uk Ukrainian, ur Urdu, uz Uzbek, ve Venda, vi Vietnamese, vo Volapük, wa Walloon, wo Wolof, xh Xhosa,
yi Yiddish, yo Yoruba, za Zhuang, zh Chinese, zu Zulu
"""
NAMES: dict[str, str] = dict(one.strip().split(" ", 1) for one in _NAMES.split(","))

_CODE = "[a-z]{2}(?:[-_](?:[A-Z]{2}|[A-Z][a-z]{3}))?"  # a region or a script may follow: pt-BR, zh-Hant
_PAIR = re.compile(rf"(?:.*[-_.+])?({_CODE})[-_]({_CODE})")


def pair_of(name: str) -> Pair | None:
    """The (source, target) languages that a model's name ends with, or None: those of "mine-en-fr" are en and fr."""
    match = _PAIR.fullmatch(name)
    if match is None:
        return None
    source, target = (code.replace("_", "-") for code in match.groups())
    is_pair = source != target and {source[:2], target[:2]} <= NAMES.keys()
    return (source, target) if is_pair else None


def routes_of(name: str, told: Pair | None, tags: Sequence[str]) -> list[Route]:
    """All ways that a model knows.

    told: its pair, if more than its name is known. Tags that are pairs ("en-fr") tell them all; where the target of the
    pair is a tag, so are the others ("fr", "de").
    """
    tagged = [Route(*pair, name, tag) for tag in tags if (pair := pair_of(tag))]
    pair = told or pair_of(name)
    if tagged or pair is None:
        return tagged
    source, target = pair
    if target not in tags:
        return [Route(source, target, name)]
    return [Route(source, tag, name, tag) for tag in tags if pair_of(f"{source}-{tag}") == (source, tag)]


def language_routes(models: Mapping[str, Sequence[str]], told: Mapping[str, Pair]) -> list[Route]:
    """All ways that models know. models: the tags of each by its name."""
    return [route for name, tags in models.items() for route in routes_of(name, told.get(name), tags)]


def name_of(code: str) -> str:
    """A language in English: that of "pt-BR" is "Portuguese (BR)"; one that is not known is its code."""
    base, dash, rest = code.partition("-")
    if base not in NAMES:
        return code
    return f"{NAMES[base]} ({rest})" if dash else NAMES[base]


def can_detect() -> bool:
    """Whether there is a detector."""
    return find_spec("py3langid") is not None


def detect(text: str, codes: Iterable[str]) -> list[tuple[str, float]]:
    """Which of some languages a text is in: those that the detector knows, most probable first, with the probability of
    each among all the languages that it knows. Raises ImportError where there is no detector."""
    ranked: dict[str, float] = dict(_detector().rank(text[:LOOKED_AT]))
    found = [(code, ranked[base]) for code in codes if (base := code.split("-")[0]) in ranked]
    return sorted(found, key=lambda one: one[1], reverse=True)


@cache
def _detector() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
