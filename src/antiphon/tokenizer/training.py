"""From pairs of texts to their tokenizers: how each side is best cut, and the vocabulary that it gets.

The same pairs give the same tokenizers, bit for bit. Texts come from whoever calls; this file opens no data.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers, trainers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from antiphon.config import Normalization, TokenizerConfig, TokenizerKind
from antiphon.ids import UNK
from antiphon.tokenizer.codec import Tokenizer, TokenizerPair, check_text
from antiphon.tokenizer.kinds import (
    BATCH,
    BYTE_LEVEL,
    FORMS,
    SPECIAL_TOKENS,
    Kind,
    assemble,
    byte_symbols,
    equip,
    normalizer_of,
    pre_tokenizer_of,
)
from antiphon.tokenizer.unigram import train_unigram


def train_tokenizers(
    pairs: Iterable[tuple[str, str]], config: TokenizerConfig, tags: Collection[str] = ()
) -> TokenizerPair:
    """Tokenizers for both sides of `pairs`. The same pairs give the same tokenizers, bit for bit.

    tags: what sources begin with, which says nothing of how they are best cut. Raises ValueError when the settings
    cannot be met.
    """
    pairs = list(pairs) if isinstance(pairs, Iterator) else pairs
    kinds = _choose_kinds(pairs, config, tags)
    joint = config.joint
    if joint == "auto":
        joint = kinds[0] == kinds[1] and kinds[0] in BYTE_LEVEL
    forms = (config.source_normalization, config.target_normalization)
    sides = tuple(_Texts(pairs, side, forms[side]) for side in (0, 1))
    if joint:
        model = _train_model(kinds[0], [*sides], config.vocab_size)
        source = _make_tokenizer(kinds[0], forms[0], model)
        return TokenizerPair(
            source, source if forms[0] == forms[1] else _make_tokenizer(kinds[0], forms[1], model), joint=True
        )
    source, target = (
        _make_tokenizer(kind, side.form, _train_model(kind, [side], config.vocab_size))
        for kind, side in zip(kinds, sides, strict=True)
    )
    return TokenizerPair(source, target)


def _make_tokenizer(kind: Kind, form: Normalization, model: models.Model) -> Tokenizer:
    # Through its JSON, so that what was just trained is what will be loaded, to the last bit of a score.
    return Tokenizer(tokenizers.Tokenizer.from_str(assemble(kind, form, model).to_str()), kind, form)


def _choose_kinds(
    pairs: Iterable[tuple[str, str]], config: TokenizerConfig, tags: Collection[str]
) -> tuple[Kind, Kind]:
    """The kind of each side; under joint=True a side that is "auto" follows the other one."""
    asked: tuple[TokenizerKind, TokenizerKind] = (config.source, config.target)
    texts = (_Texts(pairs, 0, tags=tags), _Texts(pairs, 1))
    source, target = (_suitable_kind(side) if kind == "auto" else kind for side, kind in zip(texts, asked, strict=True))
    if config.joint is True and source != target:
        if asked == ("auto", "auto"):
            return "bpe", "bpe"
        if config.source == "auto":
            return target, target
        if config.target == "auto":
            return source, source
        raise ValueError(
            f"tokenizer.joint is true, but the source is cut into {source} and the target into {target}; "
            "give both the same kind, or set joint to false."
        )
    return source, target


def _suitable_kind(texts: "_Texts") -> Kind:
    """`words` for a small closed set of symbols, `chars` for text without spaces, else `bpe`."""
    if _are_symbols(texts):
        return "words"
    words = [0, 0, 0]  # how many texts have none, one, or more
    for text in texts:
        words[len(text.split(maxsplit=1))] += 1
    return "chars" if words[1] and words[1] >= 0.95 * sum(words[1:]) else "bpe"


# A number of two digits, or a letter with a punctuation mark after it, says that texts are written language:
# there will be other numbers and other words than those seen. A colon says nothing: it is a long vowel in
# many transcripts.
_WRITTEN = re.compile(r"\d\d|\w[.,;!?]")


def _are_symbols(texts: "_Texts") -> bool:
    """Whether texts are symbols joined by single spaces (phonemes, commands), few, frequent and closed."""
    seen: set[str] = set()
    total = count = several = joined = 0
    for text in texts:
        symbols = text.split()
        total += bool(symbols)
        seen.update(symbols)
        if len(seen) > 200:
            return False
        count += len(symbols)
        several += len(symbols) > 1
        joined += bool(symbols) and " ".join(symbols) == text
    if any(_WRITTEN.search(symbol) for symbol in seen):
        return False
    return total > 0 and count >= 50 * len(seen) and several >= 0.5 * total and joined >= 0.99 * total


class _Texts:
    """One side of the pairs in its Unicode form, without these tags, to be gone through more than once."""

    def __init__(
        self,
        pairs: Iterable[tuple[str, str]],
        side: int,
        form: Normalization = "none",
        tags: Collection[str] = (),
    ) -> None:
        self.pairs, self.side, self.form, self.tags = pairs, side, form, tags

    def __iter__(self) -> Iterator[str]:
        for number, pair in enumerate(self.pairs):
            text = pair[self.side]
            if self.tags:
                first, space, rest = text.partition(" ")
                text = rest if space and first in self.tags else text
            try:
                yield text if self.form == "none" else FORMS[self.form].normalize_str(text)
            except (TypeError, UnicodeEncodeError):
                check_text(text, f"pair {number + 1}")
                raise


def _train_model(kind: Kind, sides: Sequence[_Texts], vocab_size: int) -> models.Model:
    texts = chain.from_iterable
    if kind == "bpe":
        _check_size(kind, vocab_size)
        trained = _train_bpe(texts(sides), vocab_size)
        return models.BPE(trained["vocab"], [(left, right) for left, right in trained["merges"]])
    if kind == "unigram":
        _check_size(kind, vocab_size)
        return _train_unigram(sides, vocab_size)
    if kind == "words":
        vocab = _train_words(texts(sides), pre_tokenizers.WhitespaceSplit())
        return models.WordLevel(vocab, unk_token=SPECIAL_TOKENS[UNK])
    if kind == "chars":
        alphabet = sorted(set(chain.from_iterable(texts(sides))))
        check_text("".join(alphabet), "training data")
        return models.BPE(_numbered([*SPECIAL_TOKENS, *alphabet]), [], unk_token=SPECIAL_TOKENS[UNK])
    return models.BPE(_numbered([*SPECIAL_TOKENS, *byte_symbols()]), [])


def _check_size(kind: Kind, vocab_size: int) -> None:
    least = len(SPECIAL_TOKENS) + 256
    if vocab_size < least:
        raise ValueError(
            f"tokenizer.vocab_size is {vocab_size}, but a {kind} vocabulary has {least} tokens at least "
            f"(256 bytes and {len(SPECIAL_TOKENS)} special tokens); raise it, or choose bytes, chars or "
            "words."
        )


def _train_bpe(texts: Iterable[str], vocab_size: int, max_token_length: int | None = None) -> dict[str, Any]:
    """`vocab` and `merges` of byte-level BPE."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=byte_symbols(),
        max_token_length=max_token_length,
        show_progress=False,
    )
    return _run(trainer, models.BPE(), texts, pre_tokenizer_of("bpe"), normalizer_of("bpe", "none"))


def _train_unigram(sides: Sequence[_Texts], vocab_size: int) -> models.Unigram:
    """A unigram model out of the pieces of a BPE vocabulary four times as large."""
    words, counts = _count_words(sides)
    trained = _train_bpe(chain.from_iterable(sides), 4 * vocab_size, max_token_length=24)
    pieces = [name for name in trained["vocab"] if name not in SPECIAL_TOKENS]
    return train_unigram(pieces, words, counts, vocab_size)


def _count_words(sides: Sequence[_Texts]) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct byte-level words of the texts, and how often each occurs."""
    vocab = _train_words(chain.from_iterable(sides), pre_tokenizer_of("unigram"), normalizer_of("unigram", "none"))
    backend = assemble("unigram", "none", models.WordLevel(vocab, unk_token=SPECIAL_TOKENS[UNK]))
    counts = np.zeros(len(vocab), dtype=np.int64)
    for batch in _batched(chain.from_iterable(sides)):
        ids = chain.from_iterable(encoding.ids for encoding in backend.encode_batch_fast(batch))
        counts += np.bincount(np.fromiter(ids, dtype=np.int64), minlength=len(vocab))
    words = sorted(vocab, key=vocab.__getitem__)
    return words[len(SPECIAL_TOKENS) :], counts[len(SPECIAL_TOKENS) :]


def _train_words(
    texts: Iterable[str], cut: PreTokenizer | None, normalizer: Normalizer | None = None
) -> dict[str, int]:
    """Every distinct word as the pre-tokenizer cuts them, the most frequent first."""
    trainer = trainers.WordLevelTrainer(
        vocab_size=2**31, min_frequency=1, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    vocab: dict[str, int] = _run(trainer, models.WordLevel(), texts, cut, normalizer)["vocab"]
    return vocab


def _run(
    trainer: trainers.Trainer,
    model: models.Model,
    texts: Iterable[str],
    cut: PreTokenizer | None,
    normalizer: Normalizer | None,
) -> dict[str, Any]:
    """The trained model alone, as its JSON: the tokenizer around it would find special tokens in texts."""
    backend = tokenizers.Tokenizer(model)
    equip(backend, normalizer, cut)
    backend.train_from_iterator(_batched(texts), trainer)
    trained: dict[str, Any] = json.loads(backend.to_str())["model"]
    return trained


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(islice(texts, BATCH)):
        try:
            "".join(batch).encode()
        except UnicodeEncodeError:
            for text in batch:
                check_text(text, "training data")
        yield batch


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}
