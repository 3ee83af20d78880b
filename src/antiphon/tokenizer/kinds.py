"""The kinds of tokenizers: of which parts of the library each is put together, and how it is recognised again.

Every vocabulary begins with the same four special tokens. They are ordinary entries whose names start with a
space, which no text can yield (byte-level text has no spaces, a word has none, a character is shorter), so a
text that holds "<pad>" or " PAD" is text. This file knows nothing of training and opens no files.
"""

import json
from functools import cache
from itertools import product
from typing import Any, Literal, get_args

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from antiphon.config import Normalization
from antiphon.ids import UNK

SPECIAL_TOKENS = (" PAD", " UNK", " BOS", " EOS")
BATCH = 8192  # texts handed to the library at once: it keeps far more than the ids of each

Kind = Literal["bpe", "unigram", "bytes", "chars", "words"]
BYTE_LEVEL: frozenset[Kind] = frozenset({"bpe", "unigram", "bytes"})
SPACE_PREPENDED: frozenset[Kind] = frozenset({"bpe", "unigram"})

FORMS: dict[Normalization, Normalizer] = {
    "NFC": normalizers.NFC(),
    "NFD": normalizers.NFD(),
    "NFKC": normalizers.NFKC(),
}


def pre_tokenizer_of(kind: Kind) -> PreTokenizer | None:
    """What cuts text into words before the model sees it, if anything does."""
    if kind == "words":
        return pre_tokenizers.WhitespaceSplit()
    if kind == "chars":
        return None
    if kind == "bytes":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def normalizer_of(kind: Kind, form: Normalization) -> Normalizer | None:
    """What brings text to its Unicode form, and puts a space before it where words begin with theirs."""
    parts = [FORMS[form]] if form != "none" else []
    if kind in SPACE_PREPENDED:
        parts.append(normalizers.Prepend(" "))
    return normalizers.Sequence(parts) if parts else None


def _decoder_of(kind: Kind) -> decoders.Decoder | None:
    """How others that read the file get text from ids; it takes no part in `Tokenizer.decode`."""
    if kind == "words":
        return None
    if kind == "chars":
        return decoders.Fuse()
    if kind == "bytes":
        return decoders.ByteLevel()
    return decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])


def assemble(kind: Kind, form: Normalization, model: models.Model) -> tokenizers.Tokenizer:
    """All parts of a kind around a model."""
    backend = tokenizers.Tokenizer(model)
    equip(backend, normalizer_of(kind, form), pre_tokenizer_of(kind), _decoder_of(kind))
    return backend


def equip(
    backend: tokenizers.Tokenizer,
    normalizer: Normalizer | None,
    cut: PreTokenizer | None,
    decoder: decoders.Decoder | None = None,
) -> None:
    """Give a tokenizer the parts that there are."""
    # Older releases of the library do not take None here.
    if normalizer is not None:
        backend.normalizer = normalizer
    if cut is not None:
        backend.pre_tokenizer = cut
    if decoder is not None:
        backend.decoder = decoder


def recognise(backend: tokenizers.Tokenizer) -> tuple[Kind, Normalization] | None:
    """The kind and the normalization that a tokenizer was assembled for, by its parts; None if it is none of ours."""
    outline = _outline(backend)
    return next(((kind, form) for kind, form, known in _outlines() if outline == known), None)


@cache
def _outlines() -> list[tuple[Kind, Normalization, dict[str, Any]]]:
    """What the JSON of a tokenizer looks like around its vocabulary, for each kind and normalization."""
    unknown = SPECIAL_TOKENS[UNK]
    empty: dict[Kind, models.Model] = {
        "bpe": models.BPE(),
        "unigram": models.Unigram([(name, 0.0) for name in SPECIAL_TOKENS], unk_id=UNK, byte_fallback=False),
        "bytes": models.BPE(),
        "chars": models.BPE(unk_token=unknown),
        "words": models.WordLevel({}, unk_token=unknown),
    }
    return [
        (kind, form, _outline(assemble(kind, form, model)))
        for (kind, model), form in product(empty.items(), get_args(Normalization))
    ]


def _outline(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads(backend.to_str())
    for name in ("vocab", "merges"):
        parts["model"].pop(name, None)
    return parts


@cache
def byte_symbols() -> list[str]:
    """The printable character that byte-level text has for each byte: itself, or one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
