"""Text to token ids and back: training, saving and loading, over the `tokenizers` library.

Every vocabulary begins with the same four special tokens. They are ordinary entries whose names start with a
space, which no text can yield (byte-level text has no spaces, a word has none, a character is shorter), so a
text that holds "<pad>" or " PAD" is text. `bpe`, `unigram` and `bytes` work on the bytes of UTF-8: no text is
unknown to them and decoding gives back what was encoded. `chars` and `words` know what they were trained on.
This file opens no data and knows no tensors.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice, product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from antiphon.config import Normalization, TokenizerConfig, TokenizerKind
from antiphon.ids import BOS, EOS, PAD, UNK

SPECIAL_TOKENS = (" PAD", " UNK", " BOS", " EOS")
SPECIAL_PIECES = ("PAD", "UNK", "GO", "EOS")
UNKNOWN_TEXT = "\ufffd"

Kind = Literal["bpe", "unigram", "bytes", "chars", "words"]
BYTE_LEVEL: frozenset[Kind] = frozenset({"bpe", "unigram", "bytes"})
SPACE_PREPENDED: frozenset[Kind] = frozenset({"bpe", "unigram"})

JOINT_FILE, SOURCE_FILE, TARGET_FILE = "tokenizer.json", "source.tokenizer.json", "target.tokenizer.json"

_SURROGATE = re.compile("[\ud800-\udfff]")
_BATCH = 8192  # texts handed to the library at once: it keeps far more than the ids of each


class Tokenizer:
    """One side's tokenizer.

    `kind` is how text is cut; `normalization` is the Unicode form it is brought to first. A side in NFD is
    composed to NFC again when decoded, so decode(encode(text)) is the NFC form of the text then, and the
    normalized text otherwise.
    """

    def __init__(self, backend: tokenizers.Tokenizer, kind: Kind, normalization: Normalization) -> None:
        self.kind: Kind = kind
        self.normalization: Normalization = normalization
        self.backend = backend
        self._texts = _token_texts(backend, kind)

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""
        return len(self._texts)

    @property
    def vocabulary(self) -> dict[str, int]:
        """The library's name of each token, and its id."""
        return self.backend.get_vocab()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS or EOS. Raises ValueError for half a surrogate pair."""
        try:
            return self.backend.encode(text).ids
        except (TypeError, UnicodeEncodeError):
            _check_text(text)
            raise

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all processors."""
        ids: list[list[int]] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            try:
                ids.extend(encoding.ids for encoding in self.backend.encode_batch_fast(batch))
            except (TypeError, UnicodeEncodeError):
                for number, text in enumerate(batch, start + 1):
                    _check_text(text, f"text {number}")
                raise
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids: PAD, BOS and EOS are dropped, UNK and bytes that are no UTF-8 become U+FFFD."""
        between = b" " if self.kind == "words" else b""
        known = between.join(self._texts[id] for id in ids if id not in (PAD, BOS, EOS))
        text = known.decode("utf-8", errors="replace")
        if self.kind in SPACE_PREPENDED:
            text = text.removeprefix(" ")
        return unicodedata.normalize("NFC", text) if self.normalization == "NFD" else text

    def piece(self, id: int) -> str:
        """A token to look at: its text (a byte that is no UTF-8 by itself as \\xc3), or GO and the like."""
        if id <= EOS:
            return SPECIAL_PIECES[id]
        return self._texts[id].decode("utf-8", errors="backslashreplace")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The `piece` of each id."""
        return [self.piece(id) for id in ids]


@dataclass(frozen=True)
class TokenizerPair:
    """The tokenizers of both sides; `joint` when one vocabulary serves both, as shared embeddings need."""

    source: Tokenizer
    target: Tokenizer
    joint: bool = False

    def __post_init__(self) -> None:
        assert not self.joint or self.source.vocabulary == self.target.vocabulary


def train_tokenizers(pairs: Iterable[tuple[str, str]], config: TokenizerConfig) -> TokenizerPair:
    """Tokenizers for both sides of `pairs`. The same pairs give the same tokenizers, bit for bit.

    Raises ValueError when the settings cannot be met.
    """
    pairs = pairs if isinstance(pairs, Sequence) else list(pairs)
    kinds = _choose_kinds(pairs, config)
    joint = config.joint
    if joint == "auto":
        joint = kinds[0] == kinds[1] and kinds[0] in BYTE_LEVEL
    forms = (config.source_normalization, config.target_normalization)
    sides = tuple(_Texts(pairs, side, forms[side]) for side in (0, 1))
    if joint:
        model = _train_model(kinds[0], [*sides], config.vocab_size)
        source = _assemble(kinds[0], forms[0], model)
        return TokenizerPair(
            source, source if forms[0] == forms[1] else _assemble(kinds[0], forms[1], model), joint=True
        )
    source, target = (
        _assemble(kind, side.form, _train_model(kind, [side], config.vocab_size))
        for kind, side in zip(kinds, sides, strict=True)
    )
    return TokenizerPair(source, target)


def save(pair: TokenizerPair, folder: Path) -> None:
    """Write the tokenizers into `folder`, where `load` finds them.

    A joint vocabulary is `tokenizer.json`, with `target.tokenizer.json` beside it only if the target is
    normalized in another way; otherwise there are `source.tokenizer.json` and `target.tokenizer.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {JOINT_FILE if pair.joint else SOURCE_FILE: pair.source}
    if pair.source is not pair.target:
        files[TARGET_FILE] = pair.target
    for name in (JOINT_FILE, SOURCE_FILE, TARGET_FILE):
        if name in files:
            (folder / name).write_text(files[name].backend.to_str(pretty=True) + "\n", encoding="utf-8")
        else:
            (folder / name).unlink(missing_ok=True)


def load(folder: Path) -> TokenizerPair:
    """The tokenizers that `save` wrote into `folder`. Raises ValueError when they are missing or broken."""
    joint = (folder / JOINT_FILE).exists()
    if not joint and not (folder / SOURCE_FILE).exists():
        raise ValueError(
            f"{folder}: expected {JOINT_FILE}, or {SOURCE_FILE} and {TARGET_FILE}, found neither; give the "
            "folder of a trained model."
        )
    source = _load_file(folder / (JOINT_FILE if joint else SOURCE_FILE))
    if joint and not (folder / TARGET_FILE).exists():
        return TokenizerPair(source, source, joint=True)
    target = _load_file(folder / TARGET_FILE)
    if joint and source.vocabulary != target.vocabulary:
        raise ValueError(
            f"{folder / TARGET_FILE}: expected the vocabulary of {JOINT_FILE}, found another; copy both files again."
        )
    return TokenizerPair(source, target, joint)


# Choosing the kinds


def _choose_kinds(pairs: Sequence[tuple[str, str]], config: TokenizerConfig) -> tuple[Kind, Kind]:
    """The kind of each side; under joint=True a side that is "auto" follows the other one."""
    asked: tuple[TokenizerKind, TokenizerKind] = (config.source, config.target)
    source, target = (
        _suitable_kind([pair[side] for pair in pairs]) if kind == "auto" else kind for side, kind in enumerate(asked)
    )
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


def _suitable_kind(texts: Sequence[str]) -> Kind:
    """`words` for a small closed set of symbols, `chars` for text without spaces, else `bpe`."""
    texts = [text for text in texts if text and not text.isspace()]
    if not texts:
        return "bpe"
    if _are_symbols(texts):
        return "words"
    unspaced = sum(len(text.split(maxsplit=1)) == 1 for text in texts)
    return "chars" if unspaced >= 0.95 * len(texts) else "bpe"


# A number of two digits, or a letter with a punctuation mark after it, says that texts are written language:
# there will be other numbers and other words than those seen. A colon says nothing: it is a long vowel in
# many transcripts.
_WRITTEN = re.compile(r"\d\d|\w[.,;!?]")


def _are_symbols(texts: Sequence[str]) -> bool:
    """Whether texts are symbols joined by single spaces (phonemes, commands), few, frequent and closed."""
    seen: set[str] = set()
    count = several = joined = 0
    for text in texts:
        symbols = text.split()
        seen.update(symbols)
        if len(seen) > 200:
            return False
        count += len(symbols)
        several += len(symbols) > 1
        joined += " ".join(symbols) == text
    if any(_WRITTEN.search(symbol) for symbol in seen):
        return False
    return count >= 50 * len(seen) and several >= 0.5 * len(texts) and joined >= 0.99 * len(texts)


# Training


class _Texts:
    """One side of the pairs in its Unicode form, to be gone through more than once."""

    def __init__(self, pairs: Sequence[tuple[str, str]], side: int, form: Normalization) -> None:
        self.pairs, self.side, self.form = pairs, side, form

    def __iter__(self) -> Iterator[str]:
        for number, pair in enumerate(self.pairs):
            text = pair[self.side]
            try:
                yield text if self.form == "none" else _FORMS[self.form].normalize_str(text)
            except (TypeError, UnicodeEncodeError):
                _check_text(text, f"pair {number + 1}")
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
        _check_text("".join(alphabet), "training data")
        return models.BPE(_numbered([*SPECIAL_TOKENS, *alphabet]), [], unk_token=SPECIAL_TOKENS[UNK])
    return models.BPE(_numbered([*SPECIAL_TOKENS, *_byte_symbols()]), [])


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
        initial_alphabet=_byte_symbols(),
        max_token_length=max_token_length,
        show_progress=False,
    )
    return _run(trainer, models.BPE(), texts, _pre_tokenizer("bpe"), _normalizer("bpe", "none"))


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
    _equip(backend, normalizer, cut)
    backend.train_from_iterator(_batched(texts), trainer)
    trained: dict[str, Any] = json.loads(backend.to_str())["model"]
    return trained


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(islice(texts, _BATCH)):
        try:
            "".join(batch).encode()
        except UnicodeEncodeError:
            for text in batch:
                _check_text(text, "training data")
        yield batch


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


def _check_text(text: str, place: str = "text") -> None:
    half = _SURROGATE.search(text)
    if half:
        raise ValueError(
            f"{place}: expected Unicode characters, found half of a surrogate pair "
            f"(\\u{ord(half.group()):04x}) at character {half.start() + 1}; remove it, or decode the text "
            "that it came from again."
        )


# The unigram model


def _train_unigram(sides: Sequence[_Texts], vocab_size: int) -> models.Unigram:
    """The pieces of a BPE vocabulary four times as large, thinned out by their worth to a unigram language
    model.

    The library's own trainer is not used because it gives another vocabulary on every run.
    """
    words, counts = _count_words(sides)
    trained = _train_bpe(chain.from_iterable(sides), 4 * vocab_size, max_token_length=24)
    scores = _substring_scores([name for name in trained["vocab"] if name not in SPECIAL_TOKENS], words, counts)
    size = vocab_size - len(SPECIAL_TOKENS)
    while True:
        for _ in range(2):
            scores = _reestimate(scores, words, counts)
        if len(scores) <= size:
            break
        scores = _prune(scores, max(size, int(0.75 * len(scores))))
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    # Short decimals survive being written and read again.
    vocab = [(name, 0.0) for name in SPECIAL_TOKENS] + [(name, round(score, 6)) for name, score in ranked]
    return models.Unigram(vocab, unk_id=UNK, byte_fallback=False)


def _count_words(sides: Sequence[_Texts]) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct byte-level words of the texts, and how often each occurs."""
    vocab = _train_words(chain.from_iterable(sides), _pre_tokenizer("unigram"), _normalizer("unigram", "none"))
    backend = _backend("unigram", "none", models.WordLevel(vocab, unk_token=SPECIAL_TOKENS[UNK]))
    counts = np.zeros(len(vocab), dtype=np.int64)
    for batch in _batched(chain.from_iterable(sides)):
        ids = chain.from_iterable(encoding.ids for encoding in backend.encode_batch_fast(batch))
        counts += np.bincount(np.fromiter(ids, dtype=np.int64), minlength=len(vocab))
    words = sorted(vocab, key=vocab.__getitem__)
    return words[len(SPECIAL_TOKENS) :], counts[len(SPECIAL_TOKENS) :]


def _substring_scores(pieces: Sequence[str], words: Sequence[str], counts: NDArray[np.int64]) -> dict[str, float]:
    """Log-probability of each piece by how often it stands anywhere in the words."""
    found = dict.fromkeys(pieces, 0)
    longest = max(map(len, pieces))
    for word, count in zip(words, counts.tolist(), strict=True):
        for start in range(len(word)):
            for end in range(start + 1, min(start + longest, len(word)) + 1):
                piece = word[start:end]
                if piece in found:
                    found[piece] += count
    return _log_shares(found)


def _reestimate(scores: dict[str, float], words: Sequence[str], counts: NDArray[np.int64]) -> dict[str, float]:
    """One step of hard EM: cut each word in its most probable way, and count the pieces."""
    backend = tokenizers.Tokenizer(models.Unigram(list(scores.items()), unk_id=None, byte_fallback=False))
    found = np.zeros(len(scores))
    for start in range(0, len(words), _BATCH):
        cuts = [encoding.ids for encoding in backend.encode_batch_fast(list(words[start : start + _BATCH]))]
        ids = np.fromiter(chain.from_iterable(cuts), dtype=np.int64)
        weights = np.repeat(counts[start : start + _BATCH], [len(cut) for cut in cuts])
        found += np.bincount(ids, weights=weights, minlength=len(scores))
    return _log_shares(dict(zip(scores, found.tolist(), strict=True)))


def _log_shares(found: dict[str, float] | dict[str, int]) -> dict[str, float]:
    # A byte that was never seen must stay possible: it counts as half a time.
    total = sum(max(count, 0.5) for count in found.values())
    return {piece: math.log(max(count, 0.5) / total) for piece, count in found.items()}


def _prune(scores: dict[str, float], size: int) -> dict[str, float]:
    """`size` pieces: all single bytes, and those without which the texts would lose the most probability."""
    single = [piece for piece in scores if len(piece) == 1]
    longer = [piece for piece in scores if len(piece) > 1]
    loss = {piece: math.exp(scores[piece]) * (scores[piece] - _score_without(piece, scores)) for piece in longer}
    longer.sort(key=lambda piece: (-loss[piece], piece))
    return {piece: scores[piece] for piece in chain(single, longer[: size - len(single)])}


def _score_without(piece: str, scores: dict[str, float]) -> float:
    """The score of the best way to write a piece with at least two others."""
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end == len(piece), end):
            score = scores.get(piece[start:end])
            if score is not None and best[start] + score > best[end]:
                best[end] = best[start] + score
    return best[-1]


# The parts of a tokenizer of each kind

_FORMS: dict[Normalization, Normalizer] = {
    "NFC": normalizers.NFC(),
    "NFD": normalizers.NFD(),
    "NFKC": normalizers.NFKC(),
}


def _pre_tokenizer(kind: Kind) -> PreTokenizer | None:
    if kind == "words":
        return pre_tokenizers.WhitespaceSplit()
    if kind == "chars":
        return None
    if kind == "bytes":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _normalizer(kind: Kind, form: Normalization) -> Normalizer | None:
    parts = [_FORMS[form]] if form != "none" else []
    if kind in SPACE_PREPENDED:
        parts.append(normalizers.Prepend(" "))
    return normalizers.Sequence(parts) if parts else None


def _decoder(kind: Kind) -> decoders.Decoder | None:
    """How others that read the file get text from ids; it takes no part in `Tokenizer.decode`."""
    if kind == "words":
        return None
    if kind == "chars":
        return decoders.Fuse()
    if kind == "bytes":
        return decoders.ByteLevel()
    return decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])


def _backend(kind: Kind, form: Normalization, model: models.Model) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    _equip(backend, _normalizer(kind, form), _pre_tokenizer(kind), _decoder(kind))
    return backend


def _equip(
    backend: tokenizers.Tokenizer,
    normalizer: Normalizer | None,
    cut: PreTokenizer | None,
    decoder: decoders.Decoder | None = None,
) -> None:
    # Older releases of the library do not take None here.
    if normalizer is not None:
        backend.normalizer = normalizer
    if cut is not None:
        backend.pre_tokenizer = cut
    if decoder is not None:
        backend.decoder = decoder


def _assemble(kind: Kind, form: Normalization, model: models.Model) -> Tokenizer:
    # Through its JSON, so that what was just trained is what will be loaded, to the last bit of a score.
    return Tokenizer(tokenizers.Tokenizer.from_str(_backend(kind, form, model).to_str()), kind, form)


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
        (kind, form, _outline(_backend(kind, form, model)))
        for (kind, model), form in product(empty.items(), get_args(Normalization))
    ]


def _outline(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads(backend.to_str())
    for name in ("vocab", "merges"):
        parts["model"].pop(name, None)
    return parts


def _load_file(path: Path) -> Tokenizer:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a tokenizer, but there is no such file; copy the model again.") from None
    except OSError as error:
        raise ValueError(f"{path}: expected a tokenizer, but it cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ValueError(
            f"{path}: expected a tokenizer, found bytes that are no UTF-8; copy the model again."
        ) from None
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower one
        raise ValueError(f"{path}: expected a tokenizer, found a broken one ({error}); copy the model again.") from None
    outline = _outline(backend)
    for kind, form, known in _outlines():
        if outline == known:
            try:
                return Tokenizer(backend, kind, form)
            except KeyError as error:
                what = f"without or with a misplaced {error}"
                raise ValueError(
                    f"{path}: expected a {kind} tokenizer, found one {what}; copy the model again."
                ) from None
    raise ValueError(
        f"{path}: expected a tokenizer made by Antiphon, found another one; give the folder of a model trained by it."
    )


def _token_texts(backend: tokenizers.Tokenizer, kind: Kind) -> list[bytes]:
    """The UTF-8 of every token by id. Raises KeyError for a vocabulary that is none of ours."""
    vocab = backend.get_vocab()
    names = {id: name for name, id in vocab.items()}
    byte_of = {symbol: byte for byte, symbol in enumerate(_byte_symbols())}
    for id, name in enumerate(SPECIAL_TOKENS):
        if names.get(id) != name:
            raise KeyError(name)
    if kind in BYTE_LEVEL and (lacking := byte_of.keys() - vocab.keys()):
        raise KeyError(min(lacking))
    texts = [b"", UNKNOWN_TEXT.encode(), b"", b""]
    for id in range(len(SPECIAL_TOKENS), len(vocab)):
        name = names[id]
        texts.append(bytes(byte_of[symbol] for symbol in name) if kind in BYTE_LEVEL else name.encode())
    return texts


@cache
def _byte_symbols() -> list[str]:
    """The printable character that byte-level text has for each byte: itself, or one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
