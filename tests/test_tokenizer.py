"""Laws of the tokenizers: what is encoded or saved comes back, and no text is taken for a special token."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.config import Normalization, TokenizerConfig, TokenizerKind
from antiphon.ids import BOS, EOS, PAD, UNK
from antiphon.tokenizer import (
    JOINT_FILE,
    SOURCE_FILE,
    SPECIAL_TOKENS,
    TARGET_FILE,
    TokenizerPair,
    load,
    save,
    train_tokenizers,
)

PAIRS = [
    ("The cat sat on the mat.", "Le chat était assis sur le tapis."),
    ("Two cats, 12 mats", "Deux chats, 12 tapis"),
    ("   <pad> PAD </s>", "«été» naïf"),
    ("", ""),
    ("日本語 text", "한국어 😀"),
] * 3
KINDS: tuple[TokenizerKind, ...] = ("bpe", "unigram", "bytes", "chars", "words")
REVERSIBLE: tuple[TokenizerKind, ...] = ("bpe", "unigram", "bytes")

any_text = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "<pad>", "GO", "</s>", "[UNK]", "Ġ", "▁", "\0", "\r\n", "\x85", "\u2028"])
    | st.sampled_from(["  ", " ", "e\u0301", "\u0301", "é", "12", "cat", "\ufeff", "\ufffd", "😀", "👩\u200d👩"])
).map("".join)


def trained(
    kind: TokenizerKind,
    pairs: list[tuple[str, str]] = PAIRS,
    source_normalization: Normalization = "none",
    target_normalization: Normalization = "none",
    joint: bool | Literal["auto"] = "auto",
) -> TokenizerPair:
    config = TokenizerConfig(
        source=kind,
        target=kind,
        vocab_size=320,
        source_normalization=source_normalization,
        target_normalization=target_normalization,
        joint=joint,
    )
    return train_tokenizers(pairs, config)


@pytest.fixture(scope="module")
def pairs_by_kind() -> dict[TokenizerKind, TokenizerPair]:
    return {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", REVERSIBLE)
@settings(deadline=None, max_examples=300)
@given(text=any_text)
def test_any_text_comes_back(pairs_by_kind: dict[TokenizerKind, TokenizerPair], kind: TokenizerKind, text: str) -> None:
    tokenizer = pairs_by_kind[kind].source
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text
    assert next(tokenizer.encode_batch([text, "x"])) == ids
    assert all(EOS < id < tokenizer.vocab_size for id in ids)
    # Others that read the file get the same text.
    assert tokenizer.backend.decode(ids) == text


@settings(deadline=None)
@given(text=st.text(st.sampled_from(sorted({char for pair in PAIRS for char in pair[0]}))))
def test_text_of_known_characters_comes_back(pairs_by_kind: dict[TokenizerKind, TokenizerPair], text: str) -> None:
    tokenizer = pairs_by_kind["chars"].source
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text == tokenizer.backend.decode(ids)


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(sorted({word for pair in PAIRS for word in pair[0].split()}))))
def test_known_words_come_back(pairs_by_kind: dict[TokenizerKind, TokenizerPair], words: list[str]) -> None:
    tokenizer = pairs_by_kind["words"].source
    assert tokenizer.decode(tokenizer.encode("  ".join(words))) == " ".join(words)
    assert tokenizer.pieces(tokenizer.encode(" ".join(words))) == words


@pytest.mark.parametrize("kind", ["chars", "words"])
@settings(deadline=None)
@given(text=any_text)
def test_no_text_yields_a_special_token_but_unk(
    pairs_by_kind: dict[TokenizerKind, TokenizerPair], kind: TokenizerKind, text: str
) -> None:
    tokenizer = pairs_by_kind[kind].source
    assert all(id == UNK or EOS < id < tokenizer.vocab_size for id in tokenizer.encode(text))


def test_what_is_unknown_shows(pairs_by_kind: dict[TokenizerKind, TokenizerPair]) -> None:
    chars, words = pairs_by_kind["chars"].source, pairs_by_kind["words"].source
    assert chars.decode(chars.encode("cØt")) == "c\ufffdt"
    assert words.decode(words.encode("The dog sat")) == "The \ufffd sat"


def test_special_ids_and_pieces(pairs_by_kind: dict[TokenizerKind, TokenizerPair]) -> None:
    for pair in pairs_by_kind.values():
        tokenizer = pair.source
        assert [tokenizer.vocabulary[name] for name in SPECIAL_TOKENS] == [PAD, UNK, BOS, EOS]
        assert tokenizer.pieces([PAD, UNK, BOS, EOS]) == ["PAD", "UNK", "GO", "EOS"]
        assert tokenizer.decode([PAD, BOS, EOS]) == ""
    chars = pairs_by_kind["bytes"].source
    assert chars.pieces(chars.encode("aé")) == ["a", "\\xc3", "\\xa9"]
    assert chars.decode(chars.encode("é")[:1]) == "\ufffd"


def test_a_word_is_the_same_token_wherever_it_stands() -> None:
    tokenizer = trained("bpe", [("cat cat cat", "chat chat chat")] * 5).source
    assert len(set(tokenizer.encode("cat cat cat"))) == 1
    assert tokenizer.pieces(tokenizer.encode("cat")) == [" cat"]


def test_digits_stand_alone() -> None:
    tokenizer = trained("bpe", [("in 2021", "en 2021")] * 50).source
    assert tokenizer.pieces(tokenizer.encode("in 2021")) == [" in", " ", "2", "0", "2", "1"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forms", [("none", "none"), ("NFC", "NFC"), ("NFKC", "NFD")])
@pytest.mark.parametrize("joint", [True, False])
def test_saved_and_loaded_is_the_same(
    tmp_path: Path, kind: TokenizerKind, forms: tuple[Normalization, Normalization], joint: bool
) -> None:
    pair = trained(kind, PAIRS, *forms, joint)
    save(trained("chars"), tmp_path)
    save(pair, tmp_path)
    files = {JOINT_FILE if joint else SOURCE_FILE} | ({TARGET_FILE} if not joint or forms[0] != forms[1] else set())
    assert {file.name for file in tmp_path.iterdir()} == files
    again = load(tmp_path)
    assert again.joint == joint
    assert (again.source is again.target) == (TARGET_FILE not in files)
    for before, after in ((pair.source, again.source), (pair.target, again.target)):
        assert (after.kind, after.normalization) == (kind, before.normalization)
        for text in [*PAIRS[0], *PAIRS[1], "ﬁ e\u0301 <pad> PAD", ""]:
            assert after.encode(text) == before.encode(text)
            assert after.decode(after.encode(text)) == before.decode(before.encode(text))
    save(again, tmp_path / "again")
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_normalization() -> None:
    pairs = [("ﬁn é e\u0301", "é e\u0301 한")] * 10
    pair = trained("chars", pairs, "NFKC", "NFD", joint=False)
    assert pair.source.decode(pair.source.encode("ﬁ e\u0301")) == "fi é"
    ids = pair.target.encode("é한")
    assert pair.target.pieces(ids) == ["e", "\u0301", *"\u1112\u1161\u11ab"]
    assert pair.target.decode(ids) == "é한"


@pytest.mark.parametrize("form", get_args(Normalization))
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_as_written_is_what_decoding_its_ids_gives(kind: TokenizerKind, form: Normalization) -> None:
    texts = [
        "K AE1  T ",
        " a\tb",
        "25\u00a0\u20ac \ufb01n\u2026",
        "e\u0301 \u00e9 \ufb01",
        "\u00a8 \u2009",
        "a\x1fb c\x85d",
        "",
    ]
    target = trained(kind, [(text, text) for text in texts], form, form).target
    for text in texts:
        assert target.as_written(text) == target.decode(target.encode(text))


def test_one_vocabulary_for_two_normalizations_is_trained_on_both() -> None:
    pair = trained("chars", [("éa", "éb")] * 5, "NFC", "NFD", joint=True)
    assert pair.joint
    assert pair.source.vocabulary == pair.target.vocabulary
    assert set("éab e\u0301".replace(" ", "")) <= pair.source.vocabulary.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], [""], ["a"], [" "], ["aaaa"] * 9, ["\n\t "], [" ", "", "\0"]])
def test_hardly_any_data(kind: TokenizerKind, texts: list[str]) -> None:
    pair = trained(kind, [(text, text) for text in texts])
    for tokenizer in (pair.source, pair.target):
        assert len(SPECIAL_TOKENS) <= tokenizer.vocab_size <= 320
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text)) == ("" if kind == "words" and text.isspace() else text)


def test_vocab_size_is_kept_to() -> None:
    lines = [" ".join(f"w{chr(97 + i % 26)}{chr(97 + j % 26)}" for j in range(i, i + 8)) for i in range(300)]
    for kind in ("bpe", "unigram"):
        assert trained(kind, [(line, line) for line in lines]).source.vocab_size == 320
    with pytest.raises(ValueError, match=r"vocab_size is 100, but a bpe vocabulary has 260 tokens at least"):
        train_tokenizers(PAIRS, TokenizerConfig(source="bpe", vocab_size=100))


AUTO = {
    "words": ["K AE T", "D AO1 G", "AH0"] * 100,
    "chars": ["cat", "dog's", "naïve", "Zoë 2"] + ["word"] * 100,
    "bpe": ["The cat sat.", "A dog ran."] * 100,
}


@pytest.mark.parametrize(("kind", "texts"), AUTO.items())
def test_auto_looks_at_the_texts(kind: str, texts: list[str]) -> None:
    pair = train_tokenizers([(text, text) for text in texts], TokenizerConfig())
    assert (pair.source.kind, pair.target.kind) == (kind, kind)
    assert pair.joint == (kind == "bpe")


@pytest.mark.parametrize(("kind", "texts"), AUTO.items())
def test_auto_looks_at_sources_without_their_tags(kind: str, texts: list[str]) -> None:
    tagged = [(f"{tag} {text}", text) for tag in ("fr", "de") for text in texts]
    pair = train_tokenizers(tagged, TokenizerConfig(), ["de", "fr"])
    assert (pair.source.kind, pair.target.kind) == (kind, kind)
    for source, _ in tagged:
        ids = pair.source.encode(source)
        assert UNK not in ids
        assert pair.source.decode(ids) == source


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param(["3 May 2021", "4 June 2022"] * 100, id="numbers"),
        pytest.param([f"{chr(97 + i // 26)}{chr(97 + i % 26)} x" for i in range(600)] * 60, id="many"),
        pytest.param(["one two", "three four"] * 10, id="rare"),
        pytest.param(["K AE T  D AO G"] * 100, id="two spaces that would be lost"),
        pytest.param(["", " "], id="nothing"),
    ],
)
def test_auto_is_bpe_where_words_would_not_do(texts: list[str]) -> None:
    assert train_tokenizers([(text, text) for text in texts], TokenizerConfig(vocab_size=300)).source.kind == "bpe"


def test_joint() -> None:
    mixed = [("cat", "K AE T"), ("dog", "D AO G")] * 100
    assert not train_tokenizers(mixed, TokenizerConfig()).joint
    both = train_tokenizers(mixed, TokenizerConfig(joint=True))
    assert (both.joint, both.source.kind, both.source is both.target) == (True, "bpe", True)
    assert train_tokenizers(mixed, TokenizerConfig(joint=True, target="chars")).source.kind == "chars"
    assert train_tokenizers(mixed, TokenizerConfig(joint=True, source="words")).target.kind == "words"
    with pytest.raises(ValueError, match=r"the source is cut into chars and the target into words; give both"):
        train_tokenizers(mixed, TokenizerConfig(source="chars", target="words", joint=True))
    apart = train_tokenizers(mixed, TokenizerConfig(source="bytes", target="bytes", joint=False))
    assert not apart.joint


TRAIN_TWICE = """
import hashlib, random, sys
from antiphon.config import TokenizerConfig
from antiphon.tokenizer import train_tokenizers
draw = random.Random(0)
words = ["".join(draw.choices("abcdé", k=draw.randint(1, 7))) for _ in range(600)]
pairs = [(" ".join(draw.choices(words, k=7)), " ".join(draw.choices(words, k=7))) for _ in range(800)]
for kind in ("bpe", "unigram", "words", "chars"):
    config = TokenizerConfig(source=kind, target=kind, vocab_size=500, joint=False)
    pair = train_tokenizers(iter(pairs), config)
    print(*(hashlib.md5(side.backend.to_str().encode()).hexdigest() for side in (pair.source, pair.target)))
"""


def test_training_gives_the_same_in_every_process() -> None:
    command = [sys.executable, "-c", TRAIN_TWICE]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    assert runs[0].count("\n") == 4
    assert len(set(runs)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_surrogate_pair_is_a_sentence(
    pairs_by_kind: dict[TokenizerKind, TokenizerPair], kind: TokenizerKind
) -> None:
    tokenizer = pairs_by_kind[kind].source
    with pytest.raises(ValueError, match=r"^text: expected Unicode .*\(\\ud800\) at character 3; remove it"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(ValueError, match=r"^text 2: expected Unicode .*\(\\udfff\) at character 1"):
        list(tokenizer.encode_batch(["ab", "\udfff"]))
    if kind != "bytes":
        for form in ("none", "NFC"):
            with pytest.raises(ValueError, match=r"half of a surrogate pair \(\\ud800\)"):
                trained(kind, [("a\ud800", "b")], form, form)


FOREIGN = b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "found a broken one"),
        (b"{}", "found a broken one"),
        (b"\xff\xfe", "no UTF-8"),
        (FOREIGN, "made by Antiphon"),
    ],
)
def test_a_foreign_or_corrupt_file_is_a_sentence(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / JOINT_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=rf"tokenizer\.json: expected a tokenizer.*{what}.*\.$"):
        load(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_a_sentence_or_a_tokenizer(
    tmp_path_factory: pytest.TempPathFactory,
    pairs_by_kind: dict[TokenizerKind, TokenizerPair],
    kind: TokenizerKind,
    data: st.DataObject,
) -> None:
    content = bytearray(pairs_by_kind[kind].source.backend.to_str().encode())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:position]
    else:
        content[position] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / JOINT_FILE).write_bytes(content)
    try:
        load(folder)
        message = ""
    except ValueError as error:
        message = str(error)
    assert not message or message.startswith(f"{folder / JOINT_FILE}: expected a")


def test_damage_that_is_valid_json_is_a_sentence(
    tmp_path: Path, pairs_by_kind: dict[TokenizerKind, TokenizerPair]
) -> None:
    parts = json.loads(pairs_by_kind["bytes"].source.backend.to_str())
    vocab = parts["model"]["vocab"]
    for broken in (
        {name: id for name, id in vocab.items() if name != "a"},
        {name: id for name, id in vocab.items() if id != EOS},
        vocab | {"z": 9999},
        vocab | {"日": len(vocab)},
    ):
        parts["model"]["vocab"] = broken
        (tmp_path / JOINT_FILE).write_text(json.dumps(parts), encoding="utf-8")
        with pytest.raises(ValueError, match=r"tokenizer\.json: expected a bytes tokenizer, found one"):
            load(tmp_path)


def test_missing_files_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found neither; give the folder of a trained model\.$"):
        load(tmp_path)
    save(trained("chars"), tmp_path)
    (tmp_path / TARGET_FILE).unlink()
    with pytest.raises(ValueError, match=r"target\.tokenizer\.json: expected a tokenizer, but there is no such file"):
        load(tmp_path)
    save(trained("words"), tmp_path)
    (tmp_path / SOURCE_FILE).rename(tmp_path / JOINT_FILE)
    with pytest.raises(ValueError, match=r"expected the vocabulary of tokenizer\.json, found another"):
        load(tmp_path)
