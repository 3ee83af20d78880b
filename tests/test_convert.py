"""Exported models in the runtimes they were written for: the same tokens and the same scores as here."""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from laws.toys import facts, tiny

from antiphon import files
from antiphon.config import Config
from antiphon.convert import ctranslate2, huggingface
from antiphon.decoding.generate import decode
from antiphon.decoding.search import Hypothesis, make_search
from antiphon.ids import BOS, EOS, PAD
from antiphon.model.packed import works
from antiphon.run import Model
from antiphon.tokenizer import train_tokenizers

PAIRS = [
    (f"the {size} cat saw {count} dogs in {place}.", f"le {size} chat a vu {count} chiens à {place} cet été")
    for size in ("small", "large", "black")
    for count in ("two", "nine", "many")
    for place in ("Paris", "the garden", "BOS")
]
SOURCES = [
    "the cat saw two dogs.",
    "dogs",
    "the large black cat in the garden in Paris saw many many dogs and then nine small cats, and two more in BOS.",
    " PAD and </s> EOS\tin  été, \U0001f431",
    "in the garden",
]
NEVER_ENDS, ENDS, SEED = -4.0, 0.4, 4
JOINT = {"source": "bpe", "target": "bpe", "vocab_size": 300}
LETTERS = {"source": "words", "target": "words", "joint": False}


def random_model(
    end: float = ENDS, tokenizer: dict[str, Any] = JOINT, pairs: Sequence[tuple[str, str]] = PAIRS, **settings: Any
) -> Model:
    """A model with all weights random, but for what decides how probable an end is, and that PAD, UNK and BOS are
    improbable everywhere, as training makes them: the other runtimes do not forbid them."""
    shape = {"d_model": 32, "num_heads": 4, **settings}
    config = Config.model_validate({"tokenizer": tokenizer, "model": tiny(**shape).model_dump()})
    model = Model.new(config, train_tokenizers(pairs, config.tokenizer), facts(longest_source=40))
    generator = torch.Generator().manual_seed(SEED)
    decoder: Any = model.network.decoder
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            spread = 0.6 if ".layers." in name else 0.3
            parameter += spread * torch.randn(parameter.shape, generator=generator)
        if config.model.decoder == "transformer":
            decoder.norm.bias[0] = 6
            decoder.output[:, 0] = 0
            decoder.output[: EOS + 1, 0] = torch.tensor([-4, -4, -4, end])
    model.network.eval()
    return model


def found_here(model: Model, sources: Sequence[str], max_length: int, **settings: Any) -> list[list[Hypothesis]]:
    wanted = model.config.generation.model_copy(update=settings)
    searches = [make_search(wanted, max_length) for _ in sources]
    return decode(model.network, [model.source_ids(source) for source in sources], searches)


def normalized(found: Sequence[Sequence[Hypothesis]], length_penalty: float) -> list[float]:
    return [hypothesis.normalized(length_penalty) for hypotheses in found for hypothesis in hypotheses]


def random_targets(model: Model, count: int) -> list[tuple[str, str]]:
    dice = random.Random(5)
    words = " ".join(target for _, target in PAIRS).split()
    return [(dice.choice(SOURCES), " ".join(dice.choices(words, k=dice.randint(0, 9)))) for _ in range(count)]


# CTranslate2


class Translator:
    """CTranslate2 over an exported folder, from texts to ids, with nothing of ours but that folder."""

    def __init__(self, out: Path, **settings: Any) -> None:
        runtime = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
        names = ["tokenizer.json"] * 2
        if not (out / names[0]).exists():
            names = ["source.tokenizer.json", "target.tokenizer.json"]
        self.source, self.target = (tokenizers.Tokenizer.from_file(str(out / name)) for name in names)
        self.runtime = runtime.Translator(str(out), intra_threads=1, **settings)

    def decode(
        self, sources: Sequence[str], max_length: int, beam_size: int = 1, n_best: int = 1, **settings: Any
    ) -> tuple[list[list[tuple[int | None, ...]]], list[float]]:
        """For each source its outputs with EOS, and all their scores divided by length."""
        results = self.runtime.translate_batch(
            [self.source.encode(source).tokens for source in sources],
            beam_size=beam_size,
            num_hypotheses=n_best,
            max_decoding_length=max_length,
            min_decoding_length=0,
            return_scores=True,
            return_end_token=True,
            **settings,
        )
        outputs = [
            [tuple(map(self.target.token_to_id, hypothesis)) for hypothesis in result.hypotheses] for result in results
        ]
        return outputs, [score for result in results for score in result.scores]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        scored = self.runtime.score_batch(
            [self.source.encode(source).tokens for source, _ in pairs],
            [self.target.encode(target).tokens for _, target in pairs],
        )
        return [sum(result.log_probs) for result in scored]


def in_ctranslate2(model: Model, out: Path, **settings: Any) -> Translator:
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    ctranslate2.export(model, out)
    return Translator(out, **settings)


def check_equal(model: Model, translator: Translator, sources: Sequence[str], max_length: int, **settings: Any) -> None:
    """The same outputs in the same order, with the same scores."""
    expected = found_here(model, sources, max_length, **settings)
    outputs, scores = translator.decode(sources, max_length, **settings)
    assert outputs == [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in expected]
    assert scores == pytest.approx(normalized(expected, settings.get("length_penalty", 1.0)), abs=1e-3)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("feed_forward", ["gelu", "gated"])
@pytest.mark.parametrize("positions", ["rotary", "relative", "sinusoidal"])
def test_ctranslate2_gives_the_same_greedy_outputs_and_scores(
    positions: str, feed_forward: str, tied: bool, tmp_path: Path
) -> None:
    model = random_model(positions=positions, feed_forward=feed_forward, tie_embeddings=tied)
    translator = in_ctranslate2(model, tmp_path / "out")
    check_equal(model, translator, SOURCES, 30)
    expected = found_here(model, SOURCES, 30, no_repeat_ngram=1)  # its scores are those of what is left to choose
    assert translator.decode(SOURCES, 30, no_repeat_ngram_size=1)[0] == [[found.tokens] for [found] in expected]
    assert max(len(set(found.tokens)) for [found] in expected) > 9
    assert len({found.tokens for [found] in expected}) > 3
    pairs = random_targets(model, 40)
    assert translator.score(pairs) == pytest.approx(model.score(pairs), abs=1e-3)


@pytest.mark.parametrize("positions", ["rotary", "relative", "sinusoidal"])
def test_ctranslate2_knows_positions_far_away(positions: str, tmp_path: Path) -> None:
    model = random_model(positions=positions)
    pairs = [(SOURCES[2] * 3, PAIRS[0][1] * 5), (SOURCES[0], PAIRS[1][1] * 6)]
    assert all(len(model.source_ids(pairs[0][0])) > 150 for _ in pairs)
    assert in_ctranslate2(model, tmp_path / "out").score(pairs) == pytest.approx(model.score(pairs), rel=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_ctranslate2_gives_the_same_beams_where_none_ends(length_penalty: float, tmp_path: Path) -> None:
    """Beams differ in what an end does: ours lose the place of a hypothesis that ended, theirs fill it."""
    model = random_model(NEVER_ENDS)
    translator = in_ctranslate2(model, tmp_path / "out")
    for beam_size in (2, 5):
        settings = {"beam_size": beam_size, "n_best": beam_size, "length_penalty": length_penalty}
        check_equal(model, translator, SOURCES, 12, **settings)


@pytest.mark.parametrize("length_penalty", [0.5, 1.0, 2.0])
def test_ctranslate2_gives_the_same_beams_where_they_hold_all_there_is(length_penalty: float, tmp_path: Path) -> None:
    """Seven letters, outputs of three at most: 400, of all lengths."""
    model = random_model(0.0, LETTERS, [("a b c d e f g", "g f e d c b a")])
    settings = {"beam_size": 400, "n_best": 30, "length_penalty": length_penalty}
    check_equal(model, in_ctranslate2(model, tmp_path / "out"), ["a b", "c", "g f e d a b c"], 3, **settings)


def test_ctranslate2_takes_two_vocabularies_and_what_they_do_not_know(tmp_path: Path) -> None:
    model = random_model(tokenizer={"source": "chars", "target": "words"}, encoder_layers=1, decoder_layers=3)
    translator = in_ctranslate2(model, tmp_path / "out")
    check_equal(model, translator, [*SOURCES, "ÿÿ"], 20)
    pairs = [*random_targets(model, 10), ("ÿÿ", "le chien inconnu")]
    assert translator.score(pairs) == pytest.approx(model.score(pairs), abs=1e-3)


def test_ctranslate2_makes_int8_of_the_weights_when_asked(tmp_path: Path) -> None:
    if not works():
        pytest.skip("int8 products are not exact enough on this processor")
    model = random_model()
    translator = in_ctranslate2(model, tmp_path / "out", compute_type="int8")
    pairs = random_targets(model, 10)
    assert translator.runtime.compute_type.startswith("int8")
    assert translator.score(pairs) == pytest.approx(model.score(pairs), rel=0.05)


# Hugging Face


@pytest.fixture(scope="module")
def transformers() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        found = pytest.importorskip("transformers", reason="transformers is not installed")
        found.utils.logging.disable_progress_bar()
        yield found


def cut(row: list[int]) -> tuple[int, ...]:
    """An output without what fills its row up: PAD, or EOS after a beam."""
    return tuple(row[: row.index(EOS) + 1] if EOS in row else [id for id in row if id != PAD])


class Network:
    """Hugging Face's model and tokenizer over an exported folder."""

    def __init__(self, transformers: Any, out: Path) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(out)
        self.network, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(out, output_loading_info=True)
        assert not any(report.values()), report

    def sources(self, texts: Sequence[str]) -> Any:
        return self.tokenizer(list(texts), return_tensors="pt", padding=True)

    def decode(
        self, sources: Sequence[str], **settings: Any
    ) -> tuple[list[tuple[int, ...]], list[str], list[float] | None]:
        """All outputs with EOS, as texts, and their scores where a beam gave them."""
        found = self.network.generate(
            **self.sources(sources), return_dict_in_generate=True, output_scores=True, **settings
        )
        rows = [cut(row[1:]) for row in found.sequences.tolist()]
        scores = found.get("sequences_scores")
        texts = self.tokenizer.batch_decode(found.sequences, skip_special_tokens=True)
        return rows, texts, None if scores is None else scores.tolist()

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
        labels = self.sources(targets).input_ids
        begun = torch.cat([torch.full((len(pairs), 1), BOS), labels[:, :-1]], dim=1)
        log_probs = self.network(**self.sources(sources), decoder_input_ids=begun).logits.log_softmax(-1)
        right = log_probs.gather(2, labels.unsqueeze(2)).squeeze(2)
        return [float(total) for total in (right * (labels != PAD)).sum(1)]


def in_huggingface(transformers: Any, model: Model, out: Path) -> Network:
    huggingface.export(model, out)
    return Network(transformers, out)


def m2m100(end: float = ENDS, **settings: Any) -> Model:
    return random_model(end, positions="sinusoidal", **settings)


@pytest.mark.parametrize("tied", [True, False])
def test_huggingface_gives_the_same_outputs_and_scores(tied: bool, transformers: Any, tmp_path: Path) -> None:
    model = m2m100(tie_embeddings=tied)
    network = in_huggingface(transformers, model, tmp_path / "out")
    for ngram in (0, 1):
        rows, texts, _ = network.decode(SOURCES, max_new_tokens=30, no_repeat_ngram_size=ngram)
        assert rows == [found.tokens for [found] in found_here(model, SOURCES, 30, no_repeat_ngram=ngram)]
        assert texts == model.generate(SOURCES, max_length=30, no_repeat_ngram=ngram)
    pairs = random_targets(model, 40)
    assert network.score(pairs) == pytest.approx(model.score(pairs), abs=1e-3)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_huggingface_gives_the_same_beams_where_none_ends(
    length_penalty: float, transformers: Any, tmp_path: Path
) -> None:
    model = m2m100(NEVER_ENDS)
    network = in_huggingface(transformers, model, tmp_path / "out")
    for width in (2, 5):
        expected = found_here(model, SOURCES, 12, beam_size=width, n_best=width, length_penalty=length_penalty)
        settings = {"num_beams": width, "num_return_sequences": width, "length_penalty": length_penalty}
        rows, _, scores = network.decode(SOURCES, max_new_tokens=12, **settings)
        assert rows == [hypothesis.tokens for hypotheses in expected for hypothesis in hypotheses]
        assert scores == pytest.approx(normalized(expected, length_penalty), abs=1e-3)


def test_huggingface_searches_as_the_run_s_settings_say(transformers: Any, tmp_path: Path) -> None:
    model = m2m100()
    wanted = {"beam_size": 3, "n_best": 2, "min_length": 9, "max_length": 9, "no_repeat_ngram": 1}
    generation = model.config.generation.model_copy(update=wanted)
    model.side.config = model.config.model_copy(update={"generation": generation})
    _, texts, _ = in_huggingface(transformers, model, tmp_path / "out").decode(SOURCES)
    assert texts == [output.text for outputs in model.outputs(SOURCES) for output in outputs]


def test_a_run_that_draws_its_outputs_draws_them_in_huggingface_without_a_beam(tmp_path: Path) -> None:
    model = m2m100()
    generation = model.config.generation.model_copy(update={"sample": True, "beam_size": 3})
    model.side.config = model.config.model_copy(update={"generation": generation})
    huggingface.export(model, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8"))
    assert (written["do_sample"], written["num_beams"]) == (True, 1)


def test_huggingface_never_chooses_what_is_no_text(transformers: Any, tmp_path: Path) -> None:
    model = m2m100(NEVER_ENDS)
    decoder: Any = model.network.decoder
    with torch.no_grad():
        decoder.output[:EOS, 0] = 4
    rows, texts, _ = in_huggingface(transformers, model, tmp_path / "out").decode(SOURCES, max_new_tokens=8)
    assert rows == [hypotheses[0].tokens for hypotheses in found_here(model, SOURCES, 8)]
    assert all(min(row) > EOS for row in rows)
    assert texts == model.generate(SOURCES, max_length=8)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "bytes", "chars", "words"])
def test_huggingface_s_tokenizer_cuts_and_joins_as_ours(kind: str, transformers: Any, tmp_path: Path) -> None:
    asked = {"source": kind, "target": kind, "joint": True, "vocab_size": 300, "source_normalization": "NFKC"}
    model = m2m100(tokenizer=asked)
    huggingface.export(model, tmp_path / "out")
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [*SOURCES, *(target for _, target in PAIRS), "<s> BOS", "ﬁve"]
    assert found(texts).input_ids == [model.source_ids(text) for text in texts]
    targets = [model.tokenizers.target.encode(target) for _, target in PAIRS]
    assert found.batch_decode([[BOS, *ids, EOS, PAD] for ids in targets], skip_special_tokens=True) == [
        model.tokenizers.target.decode(ids) for ids in targets
    ]


# What cannot be exported, and where to

REFUSED: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "ctranslate2, encoder": (ctranslate2, {"encoder": "gru"}, ["model.encoder is gru", "transformer"]),
    "ctranslate2, decoder": (ctranslate2, {"decoder": "lstm"}, ["model.decoder is lstm", "transformer"]),
    "ctranslate2, width": (
        ctranslate2,
        {"positions": "sinusoidal", "d_model": 15, "num_heads": 3},
        ["model.d_model is 15", "even"],
    ),
    "ctranslate2, copying": (
        ctranslate2,
        {"copying": True, "tokenizer": JOINT | {"joint": True}},
        ["model.copying is true", "only generate"],
    ),
    "huggingface, copying": (
        huggingface,
        {"copying": True, "tokenizer": JOINT | {"joint": True}},
        ["model.copying is true", "needs false"],
    ),
    "huggingface, encoder": (huggingface, {"encoder": "lstm"}, ["model.encoder is lstm", "transformer"]),
    "huggingface, decoder": (huggingface, {"decoder": "gru"}, ["model.decoder is gru", "transformer"]),
    "huggingface, rotary": (huggingface, {"positions": "rotary"}, ["is rotary", "sinusoidal", "ctranslate2"]),
    "huggingface, relative": (huggingface, {"positions": "relative"}, ["is relative", "sinusoidal", "ctranslate2"]),
    "huggingface, gated": (huggingface, {"feed_forward": "gated"}, ["feed_forward is gated", "gelu", "ctranslate2"]),
    "huggingface, width": (huggingface, {"d_model": 15, "num_heads": 3}, ["model.d_model is 15", "even"]),
    "huggingface, two": (huggingface, {"tokenizer": LETTERS}, ["joint is false", "true", "ctranslate2"]),
    "huggingface, NFD": (
        huggingface,
        {"tokenizer": JOINT | {"target_normalization": "NFD"}},
        ["target_normalization is NFD", "NFC", "ctranslate2"],
    ),
}


def refusal(convert: Any, model: Model, out: Path) -> str:
    before = sorted(out.parent.iterdir())
    with pytest.raises(ValueError, match=r"\.$") as caught:
        convert.export(model, out)
    assert sorted(out.parent.iterdir()) == before, "nothing half-written"
    return str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_a_format_cannot_hold_is_told(case: str, tmp_path: Path) -> None:
    convert, settings, parts = REFUSED[case]
    message = refusal(convert, random_model(**{"positions": "sinusoidal", **settings}), tmp_path / "out")
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_a_package_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert 'pip install "antiphon[ctranslate2]"' in refusal(ctranslate2, random_model(), tmp_path / "out")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_there_is_never_overwritten(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    inside = out / "mine" if kind == "folder" else out
    inside.write_text("mine")
    assert str(out) in refusal(huggingface, m2m100(), out)
    assert inside.read_text() == "mine"


def test_an_empty_folder_is_filled_and_a_killed_export_is_forgotten(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    (tmp_path / "deep" / ".out.part").mkdir()
    (tmp_path / "deep" / ".out.part" / "half").write_text("x")
    huggingface.export(m2m100(), out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert json.loads((out / "config.json").read_text())["model_type"] == "m2m_100"


def test_an_export_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        huggingface.export(m2m100(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
