"""Files and streams of pairs, and of single lines.

A pair comes from a line of tab-separated text, a line of JSON, or a line in each of two parallel files; any
of them may be gzipped, and "-" is standard input. Text is UTF-8, and a line ends at a newline (with or
without a carriage return before it) and nowhere else: all other characters, quotes included, are text. What
cannot be read is an error with its place, never skipped. What was read waits in a temporary file (in the folder that
TMPDIR names), so that memory does not grow with the number of pairs. This file knows no token ids and no settings;
an empty side is a pair like any other.
"""

import gzip
import io
import json
import re
import sys
import weakref
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import chain, compress, islice, repeat
from operator import eq
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NamedTuple, cast, overload

import numpy as np
import numpy.typing as npt

from antiphon.data.mixture import exists, files_of, parts

PathLike = str | Path
GZIP_MAGIC = b"\x1f\x8b"
JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})
BLOCK = 1024  # stored pairs that are read back together
IN_MEMORY = 1 << 24  # bytes that a temporary file holds in memory before it is one
_BETWEEN = b"\xff"  # stands in no UTF-8
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Pair(NamedTuple):
    """One example to imitate: what goes in and what should come out."""

    source: str
    target: str


def temporary_file(owner: object) -> SpooledTemporaryFile[bytes]:
    """A file that is in memory while it is small, and closed and gone when its owner is."""
    file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the owner reads it later
    weakref.finalize(owner, file.close)
    return file


class StoredPairs(Sequence[Pair]):
    """Pairs whose texts are in a temporary file, gone when they are; each use reads them again, a block at a time."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._file = temporary_file(self)
        self._starts = [0]  # of each block, and the end
        self._count = 0
        self._recent: tuple[int, list[Pair]] = (-1, [])
        pairs = iter(pairs)
        while block := list(islice(pairs, BLOCK)):
            self._file.write(_BETWEEN.join([text.encode() for text in chain.from_iterable(block)]))
            self._starts.append(self._file.tell())
            self._count += len(block)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Pair]:
        return chain.from_iterable(map(self._block, range(len(self._starts) - 1)))

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[one] for one in range(self._count)[index]]
        number, place = divmod(range(self._count)[index], BLOCK)
        if self._recent[0] != number:
            self._recent = number, self._block(number)
        return self._recent[1][place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def _block(self, number: int) -> list[Pair]:
        start, end = self._starts[number : number + 2]
        self._file.seek(start)
        texts = iter([text.decode() for text in self._file.read(end - start).split(_BETWEEN)])
        return list(map(Pair._make, zip(texts, texts, strict=True)))


class ChosenPairs(Collection[Pair]):
    """Some of the pairs, in their order: those where `chosen` (N,) is true."""

    def __init__(self, pairs: Collection[Pair], chosen: npt.NDArray[np.bool_]) -> None:
        self.pairs, self.chosen = pairs, chosen.tobytes()

    def __len__(self) -> int:
        return self.chosen.count(True)

    def __iter__(self) -> Iterator[Pair]:
        return compress(self.pairs, self.chosen)

    def __contains__(self, pair: object) -> bool:
        return any(pair == one for one in self)


class DataError(ValueError):
    """Data that cannot be used; the message is a sentence with the place, what was found and what to do."""


def read_pairs(
    path: PathLike | Sequence[PathLike],
    *,
    source_key: str = "source",
    target_key: str = "target",
    stdin: BinaryIO | None = None,
) -> StoredPairs:
    """All pairs of a file, of two parallel files (a sequence of two, or "first,second"), of standard input, "-", or of
    several of them ("first.tsv+second.tsv", with tags and weights: see `mixture`).

    They are read once, errors and all, and can be gone through as often as need be; `list` of them is one to change.
    `stdin` stands in for the process's own standard input. Raises DataError.
    """
    return StoredPairs(iter_pairs(path, source_key=source_key, target_key=target_key, stdin=stdin))


def given_pairs(pairs: PathLike | Sequence[Pair]) -> Sequence[Pair]:
    """As `read_pairs` of a path, and pairs as they are. Raises DataError for what is neither."""
    if isinstance(pairs, str | Path):
        return read_pairs(pairs)
    for number, pair in enumerate(() if isinstance(pairs, StoredPairs) else pairs, 1):
        if not (isinstance(pair, Pair) and isinstance(pair.source, str) and isinstance(pair.target, str)):
            raise DataError(f"pair {number}: expected Pair(source, target), both texts, found {pair!r:.60}; make one.")
    return pairs


def iter_pairs(
    path: PathLike | Sequence[PathLike],
    *,
    source_key: str = "source",
    target_key: str = "target",
    stdin: BinaryIO | None = None,
) -> Iterator[Pair]:
    """The pairs of `read_pairs`, one by one. Raises DataError at the line at fault, or if there are none."""
    if not isinstance(path, str):
        yield from _pairs(_split_names(path), source_key, target_key, stdin)
        return
    for part in parts(path):
        if not part.name:
            raise DataError(f"{path!r}: expected a file at each side of a plus sign, found none; give its path.")
        for source, target in _pairs(_split_names(part.name), source_key, target_key, stdin):
            yield from repeat(Pair(part.tagged(source), target), part.times)


def _pairs(names: Sequence[str], source_key: str, target_key: str, stdin: BinaryIO | None) -> Iterator[Pair]:
    """Of one file, or two parallel ones."""
    if len(names) == 2:
        pairs = _parallel_pairs(names[0], names[1], stdin)
    else:
        pairs = _file_pairs(names[0], source_key, target_key, stdin)
    empty = True
    for pair in pairs:
        empty = False
        yield pair
    if empty:
        place = ",".join(_place(name) for name in names)
        raise DataError(f"{place}: expected pairs, found nothing; give a file with at least one pair.")


def read_lines(path: PathLike, *, stdin: BinaryIO | None = None) -> Iterator[str]:
    """Each line of a file, or of standard input ("-"), empty ones too. Raises DataError."""
    name = str(path)
    with _open_lines(name, stdin) as lines:
        for number, line in enumerate(lines, 1):
            yield _decode(line, name, number)


def split_pairs(pairs: Collection[Pair], max_dev: int) -> tuple[ChosenPairs, list[Pair]]:
    """(train, dev): no source stands on both sides; which side it is on depends on the pairs, not on their
    order.

    Dev gets at most `max_dev` pairs and at most a tenth, but one source at least. Raises DataError when there
    is only one source.
    """
    hashes = np.fromiter(map(_hash_source, pairs), dtype=np.uint64, count=len(pairs))
    values, counts = np.unique(hashes, return_counts=True)
    if len(values) < 2:
        found = "only one" if len(values) else "none"
        raise DataError(
            "training data: expected 2 different sources at least, to set pairs aside for validation, "
            f"found {found}; add pairs, or give dev pairs of your own."
        )
    room = min(max_dev, len(pairs) // 10)
    chosen = []
    for value, count in zip(values, counts, strict=True):
        if room == 0:
            break
        if count <= room:
            chosen.append(value)
            room -= count
    if not chosen:
        chosen = [values[counts.argmin()]]
    in_dev = np.take(chosen, np.searchsorted(chosen, hashes), mode="clip") == hashes
    return ChosenPairs(pairs, ~in_dev), list(ChosenPairs(pairs, in_dev))


def _hash_source(pair: Pair) -> int:
    digest = blake2b(pair.source.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _split_names(path: PathLike | Sequence[PathLike]) -> tuple[str, ...]:
    """The one or two names that `path` stands for; a file whose name has a comma goes before two files."""
    if not isinstance(path, str | Path):
        names = tuple(str(name) for name in path)
        if len(names) != 2:
            raise DataError(
                f"{','.join(names) or 'no file'}: expected two parallel files, found {len(names)}; give a "
                "file of sources and a file of targets."
            )
    else:
        names = files_of(str(path)) or (str(path),)
    if names == ("-", "-"):
        raise DataError("-,-: expected two parallel files, found standard input twice; give a file for one side.")
    if len(names) == 1 and "," in names[0] and not exists(names[0]):
        missing = next((part for part in names[0].split(",", 1) if not exists(part)), names[0])
        raise DataError(
            f"{names[0]}: expected a file, or two parallel files with a comma between them, but there is no "
            f"{missing!r}; check the names."
        )
    return names


def _place(name: str, line: int | None = None) -> str:
    where = "standard input" if name == "-" else name
    return where if line is None else f"{where}, line {line}"


def _file_pairs(name: str, source_key: str, target_key: str, stdin: BinaryIO | None) -> Iterator[Pair]:
    path = Path(name)
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    is_json = suffix.lower() in JSON_LINES
    with _open_lines(name, stdin) as lines:
        for number, line in enumerate(lines, 1):
            if number == 1 and name == "-":
                is_json = _looks_like_json(line, source_key)
            text = _decode(line, name, number)
            if is_json:
                yield _parse_json(text, name, number, source_key, target_key)
            else:
                yield _parse_tsv(text, name, number)


def _looks_like_json(line: bytes, source_key: str) -> bool:
    """Whether the first line of a stream without a name is a JSON object rather than two columns."""
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and (source_key in record or b"\t" not in line)


def _parse_tsv(text: str, name: str, number: int) -> Pair:
    columns = text.split("\t")
    if len(columns) == 2:
        return Pair(columns[0], columns[1])
    found = str(len(columns)) if text else "an empty line"
    if not text:
        advice = "remove the line"
    elif len(columns) == 1:
        advice = "put a tab between source and target"
    else:
        advice = "keep the source and the target only, with no tab inside them"
    raise DataError(f"{_place(name, number)}: expected 2 columns separated by a tab, found {found}; {advice}.")


def _parse_json(text: str, name: str, number: int, source_key: str, target_key: str) -> Pair:
    place = _place(name, number)
    if not text.strip():
        raise DataError(f"{place}: expected a JSON object, found an empty line; remove the line.")
    try:
        record = json.loads(text)
    except RecursionError:
        raise DataError(f"{place}: expected a JSON object, found one nested too deeply; simplify it.") from None
    except ValueError as error:
        what = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"{place}: expected a JSON object on one line, found invalid JSON ({what}); write one object a line."
        ) from None
    if not isinstance(record, dict):
        raise DataError(
            f"{place}: expected a JSON object, found {_kind_of(record)}; write one object with "
            f"{source_key!r} and {target_key!r} a line."
        )
    return Pair(_value(record, source_key, place), _value(record, target_key, place))


def _value(record: Mapping[str, object], key: str, place: str) -> str:
    if key not in record:
        names = [repr(name if len(name) <= 40 else name[:40] + "…") for name in list(record)[:8]]
        found = ", ".join(names) + (", …" if len(record) > 8 else "")
        raise DataError(
            f"{place}: expected the key {key!r}, found {found or 'no keys'}; rename the key, or say which one to read."
        )
    value = record[key]
    if not isinstance(value, str):
        raise DataError(
            f"{place}: expected text under {key!r}, found {_kind_of(value)}; write it as a string in quotes."
        )
    half = _SURROGATE.search(value) if not value.isascii() else None
    if half:
        raise DataError(
            f"{place}: expected text under {key!r}, found half of a surrogate pair "
            f"(\\u{ord(half.group()):04x}), which is no character; write both halves, or the character "
            "itself."
        )
    return value


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def _parallel_pairs(source_name: str, target_name: str, stdin: BinaryIO | None) -> Iterator[Pair]:
    with _open_lines(source_name, stdin) as sources, _open_lines(target_name, stdin) as targets:
        number = 0
        while True:
            source, target = next(sources, None), next(targets, None)
            if source is None or target is None:
                break
            number += 1
            yield Pair(_decode(source, source_name, number), _decode(target, target_name, number))
        num_sources = number + (source is not None) + sum(1 for _ in sources)
        num_targets = number + (target is not None) + sum(1 for _ in targets)
    if num_sources != num_targets:
        raise DataError(
            f"{_place(source_name)},{_place(target_name)}: expected files of equal length, found "
            f"{num_sources} and {num_targets} lines; make line n of one the other's line n."
        )


def _decode(line: bytes, name: str, number: int) -> str:
    """The text of a line without its end."""
    if line.endswith(b"\n"):
        line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{_place(name, number)}: expected UTF-8, found 0x{line[error.start]:02x} at byte "
            f"{error.start + 1} of the line; save the file as UTF-8."
        ) from None


@contextmanager
def _open_lines(name: str, stdin: BinaryIO | None) -> Iterator[Iterator[bytes]]:
    """The lines of a file or of standard input, as bytes with their ends, unzipped, no byte order mark."""
    if name == "-":
        stream = stdin if stdin is not None else sys.stdin.buffer
        # A stream that cannot peek is wrapped; detached at the end, since closing is its owner's affair.
        buffered = stream if hasattr(stream, "peek") else io.BufferedReader(cast(io.RawIOBase, stream))
        try:
            yield _lines(cast(io.BufferedReader, buffered), name)
        finally:
            if buffered is not stream:
                cast(io.BufferedReader, buffered).detach()
        return
    with _open_file(name) as file:
        yield _lines(file, name)


def _open_file(name: str) -> io.BufferedReader:
    try:
        return Path(name).open("rb")
    except FileNotFoundError:
        raise DataError(f"{name}: expected a file, but there is none of that name; check the path.") from None
    except IsADirectoryError:
        raise DataError(f"{name}: expected a file, found a folder; give a file in it.") from None
    except PermissionError:
        raise DataError(f"{name}: expected a file that can be read, found no permission to; change its mode.") from None
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        raise DataError(f"{name}: expected a file, but it cannot be opened ({why}); check the path.") from None


def _lines(file: io.BufferedReader, name: str) -> Iterator[bytes]:
    try:
        start = file.peek(2)
        zipped = start.startswith(GZIP_MAGIC)
        if start and not zipped and name.lower().endswith(".gz"):
            raise DataError(
                f"{_place(name)}: expected gzip data because the name ends in .gz, found none; rename the file."
            )
        lines: Iterable[bytes] = gzip.GzipFile(fileobj=file) if zipped else file
        for number, line in enumerate(lines):
            yield line.removeprefix(_BOM) if number == 0 else line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = "its end is missing" if isinstance(error, EOFError) else str(error)
        raise DataError(
            f"{_place(name)}: expected gzip data, found it broken ({what}); make or copy the file again."
        ) from None
    except OSError as error:
        raise DataError(
            f"{_place(name)}: expected to read on, but could not ({error.strerror or error}); try again."
        ) from None
