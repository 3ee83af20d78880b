"""Reading pairs: every format gives back what was written, and what is bad is a sentence with its place."""

import gzip
import io
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.data.mixture import parts, tags_of
from antiphon.data.pairs import BLOCK, DataError, Pair, iter_pairs, read_lines, read_pairs, split_pairs
from antiphon.text_side import members_of

BOM = b"\xef\xbb\xbf"

# Everything but what ends a column or a line; the mixed-in characters end lines for str.splitlines.
column = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r") | st.sampled_from('"\x0b\x0c\x1c\x85\u2028\0')
)
column_pairs = st.lists(st.builds(Pair, column, column), min_size=1)
any_pairs = st.lists(st.builds(Pair, *[st.text(st.characters(exclude_categories=["Cs"]))] * 2), min_size=1)


class Stream(io.BytesIO):
    """Standard input that must be left open."""


def tsv(pairs: list[Pair], end: str = "\n") -> bytes:
    return end.join(f"{source}\t{target}" for source, target in pairs).encode()


def jsonl(pairs: list[Pair], ascii: bool = False) -> bytes:
    return "".join(
        json.dumps({"source": source, "n": 1, "target": target}, ensure_ascii=ascii) + "\n" for source, target in pairs
    ).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def rejected(path: Path | str | tuple[Path | str, ...], **options: object) -> str:
    """The sentence with which a file is rejected."""
    with pytest.raises(DataError) as caught:
        read_pairs(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


@settings(deadline=None)
@given(pairs=column_pairs, crlf=st.booleans(), bom=st.booleans(), final=st.booleans(), zipped=st.booleans())
def test_tsv_comes_back(folder: Path, pairs: list[Pair], crlf: bool, bom: bool, final: bool, zipped: bool) -> None:
    end = "\r\n" if crlf else "\n"
    content = BOM * bom + tsv(pairs, end) + end.encode() * final
    if not bom and content.startswith(BOM):
        content = BOM + content
    content = gzip.compress(content, 1) if zipped else content
    for name in ["pairs.tsv.gz", "pairs.txt.GZ"] if zipped else ["pairs.tsv", "pairs"]:
        (folder / name).write_bytes(content)
        assert read_pairs(folder / name) == pairs
    assert read_pairs("-", stdin=Stream(content)) == pairs


@settings(deadline=None)
@given(pairs=any_pairs, ascii=st.booleans(), bom=st.booleans(), zipped=st.booleans())
def test_jsonl_comes_back(folder: Path, pairs: list[Pair], ascii: bool, bom: bool, zipped: bool) -> None:
    content = BOM * bom + jsonl(pairs, ascii)
    content = gzip.compress(content, 1) if zipped else content
    for name in ["pairs.jsonl", "pairs.ndjson", "pairs.JSON"]:
        path = folder / (name + ".gz" * zipped)
        path.write_bytes(content)
        assert read_pairs(path) == pairs
    assert read_pairs("-", stdin=Stream(content)) == pairs


@settings(deadline=None)
@given(pairs=column_pairs, crlf=st.booleans(), zipped=st.booleans())
def test_parallel_files_come_back(folder: Path, pairs: list[Pair], crlf: bool, zipped: bool) -> None:
    paths = folder / "train.en", folder / "train.fr"
    for path, side in zip(paths, zip(*pairs, strict=True), strict=True):
        content = BOM + "".join(line + ("\r\n" if crlf else "\n") for line in side).encode()
        path.write_bytes(gzip.compress(content, 1) if zipped else content)
    assert read_pairs(paths) == pairs
    assert read_pairs(f"{paths[0]},{paths[1]}") == pairs
    assert list(read_lines(paths[0])) == [pair.source for pair in pairs]
    with paths[1].open("rb") as stream:
        assert read_pairs((paths[0], "-"), stdin=stream) == pairs


@settings(deadline=None, max_examples=300)
@given(
    content=st.binary()
    | st.lists(
        st.sampled_from(
            [
                b"{",
                b'{"source":',
                b'"target":"x"}',
                b'"a",',
                b"\t",
                b"\n",
                b"\r\n",
                b"a",
                b"\xff",
                b"[" * 9000,
            ]
        )
        | st.sampled_from([b'{"source":"a","target":"b"}', b"\\ud800", b"null", b"1" * 5000, BOM, b"\xc3", b"NaN"])
    ).map(b"".join)
    | st.binary().map(lambda data: gzip.compress(data, 1)[:-3])
    | st.tuples(st.binary(), st.binary()).map(lambda halves: gzip.compress(halves[0], 1) + halves[1])
)
def test_any_bytes_are_pairs_or_an_error(folder: Path, content: bytes) -> None:
    def attempt(read: Callable[[], Sequence[Pair]]) -> None:
        try:
            pairs = read()
        except DataError:
            return
        assert pairs
        assert all(isinstance(text.encode(), bytes) for pair in pairs for text in pair)

    for name in ("any.tsv", "any.jsonl", "any.gz"):
        (folder / name).write_bytes(content)
        attempt(lambda name=name: read_pairs(folder / name))  # type: ignore[misc]
    (folder / "plain").write_bytes(b"a\nb\n")
    attempt(lambda: read_pairs((folder / "any.tsv", folder / "plain")))
    attempt(lambda: read_pairs("-", stdin=Stream(content)))


def test_standard_input_is_left_open_and_may_be_a_pipe() -> None:
    stream = Stream(b"a\tb\n")
    assert read_pairs("-", stdin=stream) == [("a", "b")]
    assert not stream.closed
    reading, writing = os.pipe()
    os.write(writing, b"a\tb\nc")
    with os.fdopen(reading, "rb") as pipe:
        pairs = iter_pairs("-", stdin=pipe)
        assert next(pairs) == ("a", "b")
        os.write(writing, b"\td\n")
        os.close(writing)
        assert list(pairs) == [("c", "d")]


def test_standard_input_with_braces_can_be_tsv() -> None:
    assert read_pairs("-", stdin=Stream(b'{x}\t"y"\n')) == [("{x}", '"y"')]
    assert read_pairs("-", stdin=Stream(b'{"a":\t1}')) == [('{"a":', "1}")]
    assert rejected("-", stdin=Stream(b'{"a": "x"}')).startswith("standard input, line 1: expected the key")


def test_stored_pairs_are_a_sequence(write: Callable[[str, bytes], Path]) -> None:
    pairs = [Pair(f"{n}", "é" * (n % 3)) for n in range(2 * BLOCK + 5)]
    stored = read_pairs(write("pairs.tsv", tsv(pairs)))
    assert (len(stored), list(stored)) == (len(pairs), pairs)
    for index in (0, BLOCK - 1, BLOCK, -1):
        assert stored[index] == pairs[index]
    assert stored[BLOCK - 2 : BLOCK + 2] == pairs[BLOCK - 2 : BLOCK + 2]
    assert stored[::-700] == pairs[::-700]
    assert list(zip(stored, stored, strict=True)) == list(zip(pairs, pairs, strict=True))
    assert stored != pairs[:-1]
    assert stored != [*pairs[:-1], pairs[0]]
    with pytest.raises(IndexError):
        stored[len(pairs)]


def test_other_keys(write: Callable[[str, bytes], Path]) -> None:
    path = write("pairs.jsonl", b'{"nl": "list", "bash": "ls"}\n')
    assert read_pairs(path, source_key="nl", target_key="bash") == [("list", "ls")]


def test_a_file_whose_name_has_a_comma_goes_first(write: Callable[[str, bytes], Path]) -> None:
    one, two, both = write("a", b"1\n"), write("b", b"2\n"), write("c,d", b"x\ty\n")
    write("c", b"1\n")
    assert read_pairs(str(both)) == [("x", "y")]
    assert read_pairs(f"{one},{two}") == [("1", "2")]
    assert read_pairs(f"{both},{one}"[: len(str(both))]) == [("x", "y")]
    plain = write("e", b"x\ty\n")
    assert read_pairs(f"{both},{plain}") == [("x\ty", "x\ty")]


def test_empty_sides_are_kept(write: Callable[[str, bytes], Path]) -> None:
    assert read_pairs(write("pairs.tsv", b"\tx\ny\t\n\t\n")) == [("", "x"), ("y", ""), ("", "")]
    assert read_pairs((write("a", b"\nx\n"), write("b", b"y\n\n"))) == [("", "y"), ("x", "")]


def test_lines_keep_order_and_emptiness(write: Callable[[str, bytes], Path]) -> None:
    path = write("sources.txt", BOM + b"b\r\n\n\n a\tb \nlast")
    assert list(read_lines(path)) == ["b", "", "", " a\tb ", "last"]
    assert list(read_lines("-", stdin=Stream(b"\n\nx"))) == ["", "", "x"]
    assert list(read_lines(write("empty", b""))) == []
    with pytest.raises(DataError, match=r"bad, line 2: expected UTF-8, found 0xff at byte 2 of the line"):
        list(read_lines(write("bad", b"fine\na\xff\n")))
    with pytest.raises(DataError, match=r"nowhere: expected a file, but there is none of that name"):
        list(read_lines("nowhere"))


COLUMNS = "expected 2 columns separated by a tab, found"
TSV_ERRORS = {
    b"a\tb\nabc\n": f"line 2: {COLUMNS} 1; put a tab between source and target.",
    b"a\tb\tc\n": f"line 1: {COLUMNS} 3; keep the source and the target only, with no tab inside them.",
    b"a\tb\n\nc\td\n": f"line 2: {COLUMNS} an empty line; remove the line.",
    b"a\tb\r\n\r\n": f"line 2: {COLUMNS} an empty line; remove the line.",
    b"a\tb\nab\xe9\tc\n": "line 2: expected UTF-8, found 0xe9 at byte 3 of the line; save the file as UTF-8.",
    "a\tb\n".encode("utf-16"): "line 1: expected UTF-8, found 0xff at byte 1 of the line",
    b"": "expected pairs, found nothing; give a file with at least one pair.",
    gzip.compress(b""): "expected pairs, found nothing; give a file with at least one pair.",
}


@pytest.mark.parametrize(("content", "message"), TSV_ERRORS.items())
def test_bad_tsv(write: Callable[[str, bytes], Path], content: bytes, message: str) -> None:
    path = write("pairs.tsv", content)
    where = f"{path}, " if message.startswith("line") else f"{path}: "
    assert rejected(path).startswith(where + message)
    assert rejected("-", stdin=Stream(content)).startswith(where.replace(str(path), "standard input") + message)


GOOD = b'{"source": "a", "target": "b"}\n'
JSON_ERRORS = {
    b"\n": "expected a JSON object, found an empty line; remove the line.",
    b'{"source": "a", "target"}\n': "expected a JSON object on one line, found invalid JSON (Expecting ':' "
    "delimiter at character 25); write one object a line.",
    b"[1]\n": "expected a JSON object, found an array; write one object with 'source' and 'target' a line.",
    b'"x"\n': "expected a JSON object, found a string; write",
    b"null\n": "expected a JSON object, found null; write",
    b"[" * 100_000: "expected a JSON object, found one nested too deeply; simplify it.",
    b"1" * 5000: "expected a JSON object on one line, found invalid JSON (",
    b'{"source": "a", "goal": "b"}\n': "expected the key 'target', found 'source', 'goal'; rename the key",
    b"{}\n": "expected the key 'source', found no keys; rename the key",
    b'{"source": 1.5, "target": "b"}\n': "expected text under 'source', found a number; write it as a string",
    b'{"source": "a", "target": null}\n': "expected text under 'target', found null; write",
    b'{"source": "a", "target": true}\n': "expected text under 'target', found true; write",
    b'{"source": ["a"], "target": ""}\n': "expected text under 'source', found an array; write",
    b'{"source": {}, "target": ""}\n': "expected text under 'source', found an object; write",
    b'{"source": "a", "target": "\\ud800"}\n': "expected text under 'target', found half of a surrogate pair "
    "(\\ud800), which is no character; write both halves, or the character itself.",
    b'{"source": "\xff"}\n': "expected UTF-8, found 0xff at byte 13 of the line; save the file as UTF-8.",
}


@pytest.mark.parametrize(("content", "message"), JSON_ERRORS.items(), ids=range(len(JSON_ERRORS)))
def test_bad_json(write: Callable[[str, bytes], Path], content: bytes, message: str) -> None:
    path = write("pairs.jsonl", GOOD + content)
    assert rejected(path).startswith(f"{path}, line 2: {message}")


def test_many_and_strange_keys_make_a_short_sentence(write: Callable[[str, bytes], Path]) -> None:
    record = {f"k{n}": "" for n in range(50)}
    path = write("pairs.jsonl", json.dumps({"\ud800\n" + "x" * 1000: ""} | record).encode())
    message = rejected(path)
    assert "'k6', …;" in message
    assert len(message) < len(str(path)) + 250
    message.encode()


def test_parallel_files_of_unequal_length(write: Callable[[str, bytes], Path]) -> None:
    one, two = write("a.en", b"1\n2\n3"), write("a.fr", b"1\n\n2\n3\n4\n")
    expected = "expected files of equal length, found {} and {} lines; make line n of one the other's line n."
    assert rejected((one, two)) == f"{one},{two}: {expected.format(3, 5)}"
    assert rejected((two, one)) == f"{two},{one}: {expected.format(5, 3)}"
    nothing = write("none", b"")
    assert rejected((one, nothing)) == f"{one},{nothing}: {expected.format(3, 0)}"
    assert rejected((nothing, nothing)).startswith(f"{nothing},{nothing}: expected pairs, found nothing")


def test_an_error_in_a_parallel_file_names_that_file(write: Callable[[str, bytes], Path]) -> None:
    one, two = write("a.en", b"1\n2\n"), write("a.fr", b"1\n\xff\n")
    assert rejected((one, two)).startswith(f"{two}, line 2: expected UTF-8, found 0xff at byte 1 of the line")


def test_wrong_names(tmp_path: Path, write: Callable[[str, bytes], Path]) -> None:
    one = write("one", b"x\n")
    missing = tmp_path / "missing.tsv"
    assert rejected(missing) == f"{missing}: expected a file, but there is none of that name; check the path."
    assert rejected((one, missing)).startswith(f"{missing}: expected a file, but there is none of that name")
    assert f"there is no '{missing}'; check the names." in rejected(f"{one},{missing}")
    assert f"there is no '{missing}'; check the names." in rejected(f"{missing},{one}")
    assert rejected(tmp_path) == f"{tmp_path}: expected a file, found a folder; give a file in it."
    assert rejected("\0").startswith("\0: expected a file, but it cannot be opened (embedded null byte)")
    assert rejected((one,)).startswith(f"{one}: expected two parallel files, found 1;")
    assert rejected(()).startswith("no file: expected two parallel files, found 0;")
    for twice in (("-", "-"), "-,-", "fr=-,-"):
        assert rejected(twice).startswith("-,-: expected two parallel files, found standard input twice;")
    assert f"there is no '{missing}'; check the names." in rejected(f"-,{missing}")


def test_no_permission(write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("pairs.tsv", b"a\tb\n")

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    what = "expected a file that can be read, found no permission to; change its mode."
    assert rejected(path) == f"{path}: {what}"


def test_broken_gzip(write: Callable[[str, bytes], Path]) -> None:
    whole = gzip.compress(b"".join(b"%d\tx\n" % n for n in range(5000)))
    for content, what in (
        (whole[:-20], "its end is missing"),
        (whole[:-8] + bytes(8), "CRC check failed"),
        (whole[:50] + bytes(50) + whole[100:], "Error -3"),
        (whole + b"more", "Not a gzipped file"),
    ):
        path = write("pairs.tsv.gz", content)
        assert rejected(path).startswith(f"{path}: expected gzip data, found it broken ({what}")
    path = write("pairs.tsv.gz", b"a\tb\n")
    assert rejected(path).startswith(f"{path}: expected gzip data because the name ends in .gz, found none")


sources = st.lists(st.text(st.sampled_from("abcd"), max_size=3), min_size=2, max_size=200)


@given(texts=sources, max_dev=st.integers(1, 30), seed=st.integers())
def test_split(texts: list[str], max_dev: int, seed: int) -> None:
    pairs = [Pair(text, str(n)) for n, text in enumerate(texts)]
    if len(set(texts)) < 2:
        with pytest.raises(DataError, match=r"^training data: expected 2 different sources .* found only one"):
            split_pairs(pairs, max_dev)
        return
    train, dev = split_pairs(pairs, max_dev)
    assert train
    assert dev
    assert sorted([*train, *dev]) == sorted(pairs)
    assert len(train) == len(pairs) - len(dev)
    assert not {pair.source for pair in train} & {pair.source for pair in dev}
    room = min(max_dev, len(pairs) // 10)
    assert len(dev) <= room or len({pair.source for pair in dev}) == 1
    assert list(train) == sorted(train, key=lambda pair: int(pair.target))
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    assert [set(side) for side in split_pairs(shuffled, max_dev)] == [set(train), set(dev)]


def test_split_fills_dev_and_is_the_same_everywhere() -> None:
    pairs = [Pair(f"source {n}", "") for n in range(10_000)]
    train, dev = split_pairs(pairs, 500)
    assert (len(train), len(dev)) == (9500, 500)
    assert len(split_pairs(pairs[:1000], 500)[1]) == 100
    assert dev == split_pairs(pairs[::-1], 500)[1][::-1]
    assert [pair.source for pair in dev[:3]] == ["source 5", "source 6", "source 7"]


def test_split_of_nothing_is_a_sentence() -> None:
    with pytest.raises(DataError, match=r"found none; add pairs, or give dev pairs of your own\.$"):
        split_pairs([], 10)


def test_several_files_are_one_with_tags_and_as_often_as_told(write: Callable[[str, bytes], Path]) -> None:
    french, german = write("fr.tsv", b"a\tun\nb\tdeux\n"), write("de.jsonl", jsonl([Pair("c", "drei")]))
    sources, targets = write("en", b"d\n"), write("it", b"quattro\n")
    found = read_pairs(f"<fr>={french}+de={german}*3+{sources},{targets}*2")
    expected = [("<fr> a", "un"), ("<fr> b", "deux"), *[("de c", "drei")] * 3, *[("d", "quattro")] * 2]
    assert list(found) == [Pair(*pair) for pair in expected]


@pytest.mark.parametrize("name", ["a+b=c.tsv", "x=1.tsv", "x.tsv*2", "run+1/x.tsv"])
def test_a_file_that_exists_goes_before_a_mixture(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("a\tb\n")
    for path in (str(file), file):
        assert list(read_pairs(path)) == [Pair("a", "b")]


@pytest.mark.parametrize("folder", ["c++", "lang=fr"])
def test_parallel_files_that_exist_go_before_a_mixture(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir()
    for name, text in {f"{folder}/a.en": "a\n", f"{folder}/a.fr": "b\n", "more.tsv": "c\td\n"}.items():
        Path(name).write_text(text)
    name = f"{folder}/a.en,{folder}/a.fr"
    assert list(read_pairs(name)) == [Pair("a", "b")]
    assert tags_of(name) == ()
    if "+" not in folder:
        assert list(read_pairs(f"{name}+de=more.tsv")) == [Pair("a", "b"), Pair("de c", "d")]


def test_many_names_may_be_longer_than_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one name between slashes a file system takes 255 bytes."""
    monkeypatch.chdir(tmp_path)
    names = [f"{number:03}.tsv" for number in range(60)]
    for name in names:
        Path(name).write_text("a\tb\n")
    assert list(read_pairs("+".join(names))) == [Pair("a", "b")] * 60
    assert len(parts("+".join(f"{name},{name}" for name in names))) == 60
    assert members_of("+".join(names)) == list(map(Path, names))
    assert rejected("x" * 300 + ".tsv").endswith("check the path.")
    assert rejected("x" * 300 + ".tsv," + names[0]).endswith("check the names.")


def test_a_blank_source_gets_no_tag(write: Callable[[str, bytes], Path]) -> None:
    file = write("blank.tsv", b" a\tb\n\tc\n \td\n")
    assert list(read_pairs(f"fr={file}")) == [Pair("fr  a", "b"), Pair("", "c"), Pair(" ", "d")]


def test_a_file_of_a_mixture_that_is_missing_or_broken_is_named(write: Callable[[str, bytes], Path]) -> None:
    good, bad = write("good.tsv", b"a\tb\n"), write("bad.tsv", b"a\tb\nc\n")
    assert rejected(f"fr={good}+de=nowhere.tsv*2").startswith("nowhere.tsv: ")
    assert rejected(f"fr={good}+de={bad}").startswith(f"{bad}, line 2: ")
    assert rejected(f"{good}+{write('none.tsv', b'')}").startswith(f"{good.parent / 'none.tsv'}: expected pairs")
    for nothing in (f"{good}+", f"+{good}", ""):
        assert rejected(nothing).startswith(f"{nothing!r}: expected a file at each side of a plus sign")


def test_standard_input_may_be_a_part() -> None:
    found = read_pairs("fr=-*2", stdin=Stream(b"a\tb\n"))
    assert list(found) == [Pair("fr a", "b")] * 2


def test_standard_input_may_be_one_side(write: Callable[[str, bytes], Path]) -> None:
    file = write("one", b"x\n")
    for name, pair in (
        (f"-,{file}", Pair("a", "x")),
        (f"{file},-", Pair("x", "a")),
        (f"fr=-,{file}", Pair("fr a", "x")),
    ):
        assert list(read_pairs(name, stdin=Stream(b"a\n"))) == [pair]
