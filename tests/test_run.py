"""A model in its folder: loading what is whole, refusing what is not, and text in, text out."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from laws.toys import FAMILIES, word_model
from letters import SMALL
from safetensors.torch import load_file, save_file

from antiphon import run, text_side
from antiphon.config import load_config
from antiphon.data.pairs import Pair
from antiphon.run import Model
from antiphon.text_side import Output
from antiphon.tokenizer import train_tokenizers
from antiphon.training.train import train

SOURCES = ["a b c", "g", "d e f g a b c d", "c", "a a", "f e d c b a"]
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    word_model().save(tmp_path)
    return tmp_path


def refusal(folder: Path | str) -> str:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        Model.load(folder)
    message = str(caught.value)
    assert type(caught.value) is ValueError
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", [text_side.CONFIG, text_side.FACTS, "source.tokenizer.json", "target.tokenizer.json", run.WEIGHTS]
)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    message = refusal(folder)
    assert name in message or name == run.WEIGHTS
    assert str(folder) in message


@pytest.mark.parametrize("name", [text_side.CONFIG, text_side.FACTS, "source.tokenizer.json", run.WEIGHTS])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"model": {"d_modle": 3}}', b"\xff\xfe\x00", b"\x00" * 64]
)
def test_a_broken_file_is_a_sentence(name: str, content: bytes, folder: Path) -> None:
    if name == text_side.CONFIG and content == b"{}":
        content = b'{"model": {"d_model": "wide"}}'  # all defaults would be another model, but whole
    (folder / name).write_bytes(content)
    assert str(folder / name) in refusal(folder)


def test_weights_cut_off_in_the_middle_are_refused(folder: Path) -> None:
    whole = (folder / run.WEIGHTS).read_bytes()
    (folder / run.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as weights" in refusal(folder)


def test_a_tensor_of_another_shape_or_missing_is_named(folder: Path) -> None:
    tensors = load_file(folder / run.WEIGHTS)
    name = "decoder.norm.weight"
    save_file(tensors | {name: torch.zeros(3)}, folder / run.WEIGHTS)
    assert "tensor 'decoder.norm.weight' is [3], expected [16]" in refusal(folder)
    save_file(tensors | {"encoder.layers.7.bias": torch.zeros(3)}, folder / run.WEIGHTS)
    assert "has a tensor 'encoder.layers.7.bias' too many" in refusal(folder)
    del tensors[name]
    save_file(tensors, folder / run.WEIGHTS)
    assert "has no tensor 'decoder.norm.weight'" in refusal(folder)


def test_a_model_s_folder_holds_what_its_page_says(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "facts.json",
        "source.tokenizer.json",
        "target.tokenizer.json",
        "model.safetensors",
    }
    assert json.loads((folder / text_side.FACTS).read_text(encoding="utf-8"))["train_pairs"] == 10


@every_family
def test_outputs_come_in_the_order_of_the_sources(name: str) -> None:
    model = word_model(name)
    together = model.generate(SOURCES, beam_size=3)
    assert together == [model.generate([source], beam_size=3)[0] for source in SOURCES]


@every_family
def test_each_source_has_its_n_best_with_the_best_first(name: str) -> None:
    for outputs in word_model(name).outputs(SOURCES, beam_size=4, n_best=3, length_penalty=0.0):
        assert len(outputs) == 3
        scores = [output.score for output in outputs]
        assert scores == sorted(scores, reverse=True)
        for output in outputs:
            assert output.score == pytest.approx(sum(output.token_scores))
            assert len(output.token_scores) == len(output.tokens) + output.finished
            assert output.text == " ".join(output.tokens)


@every_family
def test_the_score_of_a_pair_is_that_of_the_output_found(name: str) -> None:
    model = word_model(name)
    found = model.outputs(SOURCES, beam_size=1)
    ended = [(source, outputs[0]) for source, outputs in zip(SOURCES, found, strict=True) if outputs[0].finished]
    scores = model.score([(source, output.text) for source, output in ended])
    assert scores == pytest.approx([output.score for _, output in ended], abs=1e-4)


def test_scores_come_in_the_order_of_the_pairs_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = word_model()
    pairs = list(zip(SOURCES, reversed(SOURCES), strict=True))
    together = model.score(pairs)
    monkeypatch.setattr(run, "SCORE_TOKENS", 1)
    assert model.score(pairs) == pytest.approx(together, abs=1e-4)
    assert model.score([]) == []
    assert len(set(together)) == len(pairs)


def test_scores_that_nobody_wants_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = word_model()
    pairs = list(zip(SOURCES, reversed(SOURCES), strict=True))
    monkeypatch.setattr(run, "SCORE_TOKENS", 1)
    asked = iter([True, True])
    found = model.score(pairs, lambda: next(asked, False))
    whole = model.score(pairs)
    assert sum(map(math.isnan, found)) == len(pairs) - 2
    assert all(math.isnan(one) or one == other for one, other in zip(found, whole, strict=True))


def test_an_empty_side_has_a_score() -> None:
    assert all(score < 0 for score in word_model().score([("", "a"), ("a", ""), ("", "")]))


def test_an_empty_source_works_beside_others() -> None:
    model = word_model()
    found = model.generate(["", "a b", "   "], beam_size=2)
    assert found[1] == model.generate(["a b"], beam_size=2)[0]
    assert len(found) == 3
    assert model.generate([]) == []


def test_one_text_instead_of_a_list_is_told() -> None:
    with pytest.raises(ValueError, match="expected a list of texts, found one text"):
        word_model().generate("a b c")
    wrong: list[Any] = ["a", None]
    with pytest.raises(ValueError, match="source 2: expected a text, found None"):
        word_model().generate(wrong)


def test_a_setting_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'beam_size'"):
        word_model().generate(["a"], beam=5)


def test_every_output_begins_with_its_prefix() -> None:
    for outputs in word_model().outputs(SOURCES, prefix="g f", beam_size=2, n_best=2):
        assert all(output.text.startswith("g f") for output in outputs)


def test_a_prefix_that_the_model_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix: the model does not know all of 'g unheard'"):
        word_model().generate(SOURCES, prefix="g unheard")


def test_a_source_that_is_far_too_long_is_refused_in_a_sentence() -> None:
    model = word_model()
    limit = run.LONGEST * model.config.training.max_length
    model.generate(["a " * 20])
    with pytest.raises(ValueError, match=f"has {limit + 1:,} tokens, and at most {limit:,} can be read at once"):
        model.generate(["a", "b " * (limit + 1)])


def test_loading_leaves_the_random_numbers_of_others_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Model.load(folder)
    assert torch.equal(torch.rand(2), expected)


def test_rules_hold_for_text() -> None:
    model = word_model()
    for output, *_ in model.outputs(SOURCES, min_length=3, max_length=4):
        assert 3 <= len(output.tokens) <= 4
    assert all(
        len(output.tokens) <= model.max_length(4, model.config.generation) for [output] in model.outputs(["a b c"])
    )
    assert model.generate(["a"], no_repeat_ngram=1, min_length=20, max_length=30, beam_size=2)


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.endswith("none")])
def test_attention_has_a_weight_for_each_token_of_output_and_source(name: str) -> None:
    for source, outputs in zip(
        SOURCES, word_model(name).outputs(SOURCES, attention=True, beam_size=3, n_best=2), strict=True
    ):
        for output in outputs:
            assert output.attention is not None
            assert output.attention.shape[0] == len(output.token_scores)
            assert output.attention.shape[3] == len(source.split()) + 1
            torch.testing.assert_close(output.attention.sum(-1), torch.ones_like(output.attention[..., 0]))


def test_without_attention_there_are_no_weights() -> None:
    assert word_model(FAMILIES[-1]).outputs(["a b"], attention=True)[0][0].attention is None
    assert word_model().outputs(["a b"])[0][0].attention is None


def test_results_stream_as_they_are_found() -> None:
    model = word_model()
    streamed = dict(model.stream(SOURCES, beam_size=2))
    assert [streamed[index] for index in range(len(SOURCES))] == model.outputs(SOURCES, beam_size=2)
    assert all(isinstance(output, Output) for outputs in streamed.values() for output in outputs)


@pytest.mark.parametrize(("wrong", "told"), [({"precision": "int4"}, "int4"), ({"workers": -1}, "workers is -1")])
def test_a_precision_or_number_of_workers_that_cannot_be_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Model.load("nowhere", **wrong)


def ensemble_folders(tmp_path: Path) -> list[Path]:
    """Runs of three architectures, with one vocabulary."""
    folders = []
    for number, name in enumerate(FAMILIES[:3]):
        word_model(name, seed=number).save(tmp_path / str(number))
        folders.append(tmp_path / str(number))
    return folders


def test_an_ensemble_is_loaded_from_a_list_or_a_sum_of_runs(tmp_path: Path) -> None:
    folders = ensemble_folders(tmp_path)
    listed, joined = Model.load(folders), Model.load("+".join(map(str, folders)))
    outputs = listed.outputs(SOURCES, beam_size=3, n_best=2)
    assert outputs == joined.outputs(SOURCES, beam_size=3, n_best=2)
    alone = [Model.load(folder).outputs(SOURCES, beam_size=3, n_best=2) for folder in folders]
    assert outputs not in alone
    pairs = [(source, "a b") for source in SOURCES]
    members = torch.tensor([Model.load(folder).score(pairs) for folder in folders])
    assert (torch.tensor(listed.score(pairs)) >= members.min(0).values).all()


def test_the_score_of_an_ensemble_is_that_of_the_output_found(tmp_path: Path) -> None:
    model = Model.load(ensemble_folders(tmp_path))
    found = model.outputs(SOURCES, beam_size=2)
    ended = [(source, outputs[0]) for source, outputs in zip(SOURCES, found, strict=True) if outputs[0].finished]
    scores = model.score([(source, output.text) for source, output in ended])
    assert scores == pytest.approx([output.score for _, output in ended], abs=1e-4)


def test_an_ensemble_keeps_the_mean_of_its_members_attention(tmp_path: Path) -> None:
    for [output] in Model.load(ensemble_folders(tmp_path)).outputs(SOURCES, attention=True):
        assert output.attention.shape[1:3] == (1, 1)
        torch.testing.assert_close(output.attention.sum(-1), torch.ones_like(output.attention[..., 0]))


def test_an_ensemble_of_other_vocabularies_is_refused(folder: Path, tmp_path: Path) -> None:
    other = word_model()
    pairs = [Pair("a b", "x y")]
    other.side.tokenizers = train_tokenizers(pairs, other.config.tokenizer)
    other.save(tmp_path / "other")
    message = refusal(f"{folder}+{tmp_path / 'other'}")
    assert str(tmp_path / "other") in message
    assert "share their vocabularies" in message


def test_a_member_that_is_not_there_is_told(folder: Path) -> None:
    assert "nowhere: there is no such folder" in refusal(f"{folder}+nowhere")


def test_what_needs_one_run_refuses_an_ensemble(tmp_path: Path) -> None:
    model = Model.load(ensemble_folders(tmp_path))
    with pytest.raises(ValueError, match="with one run, and here are 3"):
        model.save_weights(tmp_path)


def test_a_save_that_is_refused_has_touched_nothing(tmp_path: Path) -> None:
    word_model().save(tmp_path / "run")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match="with one run, and here are 3"):
        Model.load(ensemble_folders(tmp_path)).save(tmp_path / "run")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}


def test_a_folder_with_a_plus_in_its_name_is_that_folder(tmp_path: Path) -> None:
    word_model().save(tmp_path / "a+b")
    assert len(Model.load(tmp_path / "a+b").members) == 1


def test_the_tags_of_a_mixture_are_remembered(tmp_path: Path) -> None:
    for side in ("one", "two"):
        (tmp_path / f"{side}.tsv").write_text("".join(f"a {i}\tb {i}\n" for i in range(8)), encoding="utf-8")
    config = load_config("tiny", None, [*SMALL, "training.max_steps=1"])
    train(f"1={tmp_path / 'one.tsv'}+2={tmp_path / 'two.tsv'}*2", tmp_path / "run", config=config)
    facts = Model.load(tmp_path / "run").facts
    assert facts.tags == ["1", "2"]
    assert facts.train_pairs + facts.dev_pairs == 24
    stored = json.loads((tmp_path / "run" / "facts.json").read_text(encoding="utf-8"))
    del stored["tags"]  # of a run from before there were any
    (tmp_path / "run" / "facts.json").write_text(json.dumps(stored), encoding="utf-8")
    assert not Model.load(tmp_path / "run").facts.tags
