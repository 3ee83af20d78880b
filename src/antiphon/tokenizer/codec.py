"""The tokenizers of the two sides: text to ids and back, and the folder that they are kept in.

Text is a string of Unicode characters; half of a surrogate pair is refused. This file knows nothing of training.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import tokenizers

from antiphon.config import Normalization
from antiphon.ids import BOS, EOS, PAD
from antiphon.tokenizer.kinds import BATCH, BYTE_LEVEL, SPACE_PREPENDED, SPECIAL_TOKENS, Kind, byte_symbols, recognise

SPECIAL_PIECES = ("PAD", "UNK", "GO", "EOS")
UNKNOWN_TEXT = "\ufffd"

JOINT_FILE, SOURCE_FILE, TARGET_FILE = "tokenizer.json", "source.tokenizer.json", "target.tokenizer.json"

_SURROGATE = re.compile("[\ud800-\udfff]")


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

    def __eq__(self, other: object) -> bool:
        """Both make the same ids of every text."""
        return isinstance(other, Tokenizer) and self.backend.to_str() == other.backend.to_str()

    __hash__ = object.__hash__

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
            check_text(text)
            raise

    def encode_batch(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """`encode` of each text, on all processors; of some thousand at once, when the first of them is asked for."""
        texts = iter(texts)
        for start in count(1, BATCH):
            batch = list(islice(texts, BATCH))
            try:
                ids = [encoding.ids for encoding in self.backend.encode_batch_fast(batch)]
            except (TypeError, UnicodeEncodeError):
                for number, text in enumerate(batch, start):
                    check_text(text, f"text {number}")
                raise
            if not ids:
                return
            yield from ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids: PAD, BOS and EOS are dropped, UNK and bytes that are no UTF-8 become U+FFFD."""
        between = b" " if self.kind == "words" else b""
        known = between.join(self._texts[id] for id in ids if id not in (PAD, BOS, EOS))
        text = known.decode("utf-8", errors="replace")
        if self.kind in SPACE_PREPENDED:
            text = text.removeprefix(" ")
        return unicodedata.normalize("NFC", text) if self.normalization == "NFD" else text

    def as_written(self, text: str) -> str:
        """A text in the form in which `decode` gives it, to be compared with what it gives: in this side's Unicode
        form, composed, and with one space between words where these are the tokens."""
        if self.normalization != "none":
            text = unicodedata.normalize("NFKC" if self.normalization == "NFKC" else "NFC", text)
        if self.kind != "words":
            return text
        return " ".join(word for word, _ in self.backend.pre_tokenizer.pre_tokenize_str(text))

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
    found = recognise(backend)
    if found is None:
        raise ValueError(
            f"{path}: expected a tokenizer made by Antiphon, found another one; give the folder of a model trained "
            "by it."
        )
    try:
        return Tokenizer(backend, *found)
    except KeyError as error:
        what = f"without or with a misplaced {error}"
        raise ValueError(f"{path}: expected a {found[0]} tokenizer, found one {what}; copy the model again.") from None


def _token_texts(backend: tokenizers.Tokenizer, kind: Kind) -> list[bytes]:
    """The UTF-8 of every token by id. Raises KeyError for a vocabulary that is none of ours."""
    vocab = backend.get_vocab()
    names = {id: name for name, id in vocab.items()}
    byte_of = {symbol: byte for byte, symbol in enumerate(byte_symbols())}
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


def check_text(text: str, place: str = "text") -> None:
    """Raise ValueError for half of a surrogate pair, which is no character and has no UTF-8."""
    half = _SURROGATE.search(text)
    if half:
        raise ValueError(
            f"{place}: expected Unicode characters, found half of a surrogate pair "
            f"(\\u{ord(half.group()):04x}) at character {half.start() + 1}; remove it, or decode the text "
            "that it came from again."
        )
