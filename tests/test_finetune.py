"""Fine-tuning: a training begins where a run ended, with its tokens, and with the weights that fit."""

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from antiphon.cli import main
from antiphon.config import Config, changed
from antiphon.data.pairs import Pair
from antiphon.run import WEIGHTS, Model
from antiphon.text_side import CHECKPOINTS
from antiphon.training.distill import distill
from antiphon.training.finetune import TABLES, TIED, Origin
from antiphon.training.train import train

SMALL = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
TRAINING = {
    "batch_tokens": 128,
    "max_steps": 60,
    "warmup_steps": 5,
    "learning_rate": 1e-2,
    "validations": 2,
    "metric": "loss",
    "average": 1,
    "dev_pairs": 4,
    "precision": "float32",
    "device": "cpu",
}
WORDS = {"source": "words", "target": "words", "joint": False, "vocab_size": 100}
CONFIG = Config.model_validate({"tokenizer": WORDS, "model": SMALL, "training": TRAINING})


def letters(count: int, alphabet: str = "abcd", repeat: int = 3) -> list[Pair]:
    """Sources of letters, with the same in capitals as their targets."""
    words = [
        " ".join(alphabet[(number * 7 + place * place) % len(alphabet)] for place in range(number % repeat + 2))
        for number in range(count)
    ]
    return [Pair(word, word.upper()) for word in words]


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.plots.loss_curve", lambda *paths: None)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("origin") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("antiphon.plots.loss_curve", lambda *paths: None)
        train(letters(60), out, config=CONFIG)
    return out


def told_by(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What `antiphon` says on standard error."""
    monkeypatch.setattr(sys, "argv", ["antiphon", *map(str, words)])
    handler = signal.getsignal(signal.SIGINT)
    try:
        with suppress(SystemExit):
            main()
    finally:
        signal.signal(signal.SIGINT, handler)
    return capsys.readouterr().err


def first_dev_loss(run: Path) -> float:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(next(line["dev_loss"] for line in lines if "dev_loss" in line))


def test_nothing_is_lost_when_nothing_is_learned(origin: Path, tmp_path: Path) -> None:
    still = changed(CONFIG, {"training": {"learning_rate": 1e-12, "max_steps": 1, "weight_decay": 0}})
    model = train(letters(30), tmp_path / "run", config=still, begin_from=origin)
    before, after = (load_file(folder / WEIGHTS) for folder in (origin, tmp_path / "run"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (tensor - after[name]).abs().max() < 1e-6, name
    assert model.facts.begun_parameters == model.network.num_parameters
    assert model.facts.begun_from == str(origin)
    assert Model.load(tmp_path / "run").generate(["a b", "c a d"]) == Model.load(origin).generate(["a b", "c a d"])


def test_a_run_goes_on_from_where_the_other_ended(origin: Path, tmp_path: Path) -> None:
    few = {"training": {"max_steps": 6, "validations": 6, "learning_rate": 1e-3}}
    train(letters(30), tmp_path / "tuned", config=changed(CONFIG, few), begin_from=origin)
    train(letters(30), tmp_path / "anew", config=changed(CONFIG, few))
    assert first_dev_loss(tmp_path / "tuned") < first_dev_loss(tmp_path / "anew") / 2


def test_settings_are_those_of_the_run_and_what_is_said_over_them(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{source}\t{target}\n" for source, target in letters(30)), encoding="utf-8")
    words = ["train", pairs, "--out", tmp_path / "run", "--from", origin, "--set", "training.max_steps=3"]
    assert "kept the weights of step 3" in told_by(monkeypatch, capsys, *words)
    config = Model.load(tmp_path / "run").config
    assert (config.training.max_steps, config.training.learning_rate) == (3, 1e-2)
    assert (config.model, config.tokenizer) == (CONFIG.model, Model.load(origin).config.tokenizer)


@pytest.mark.parametrize(
    ("model", "parts", "whole"),
    [
        ({"decoder_layers": 1}, ("encoder.", "decoder.layers.0."), True),
        ({"decoder": "ssru", "decoder_layers": 1}, ("encoder.", "decoder.layers.0.cross."), False),
        ({"decoder": "gru", "decoder_layers": 1}, ("encoder.",), False),
        ({"encoder_layers": 3}, ("encoder.layers.0.", "encoder.layers.1.", "decoder."), False),
    ],
)
def test_another_architecture_takes_what_fits(
    origin: Path, tmp_path: Path, model: dict[str, object], parts: tuple[str, ...], whole: bool
) -> None:
    still = {"learning_rate": 1e-12, "max_steps": 1, "weight_decay": 0}
    config = changed(CONFIG, {"model": model, "training": still})
    tuned = train(letters(30), tmp_path / "run", config=config, begin_from=origin)
    before = load_file(origin / WEIGHTS)
    taken = {name: tensor for name, tensor in tuned.network.named_parameters() if name.startswith(parts)}
    assert taken
    for name, tensor in taken.items():
        assert (tensor - before[name]).abs().max() < 1e-6, name
    assert sum(tensor.numel() for tensor in taken.values()) <= tuned.facts.begun_parameters
    assert (tuned.facts.begun_parameters == tuned.network.num_parameters) == whole


def test_a_student_begins_from_its_teacher(origin: Path, tmp_path: Path) -> None:
    short = {"model": {"decoder_layers": 1}, "training": {"max_steps": 2}}
    student = distill(origin, letters(30), tmp_path / "run", config=changed(CONFIG, short), begin_from=origin)
    assert student is not None
    assert student.facts.begun_from == str(origin)
    assert student.config.model.decoder_layers == 1
    own = distill(origin, letters(30), tmp_path / "own", begin_from=origin)
    assert own is not None
    assert own.config.model == CONFIG.model


def test_a_distillation_that_was_stopped_while_decoding_begins_from_its_run_too(origin: Path, tmp_path: Path) -> None:
    asked = iter([True] * 3)
    pairs, out = letters(30), tmp_path / "run"
    config = changed(CONFIG, {"training": {"max_steps": 2}})
    stopped = distill(origin, pairs, out, config=config, begin_from=origin, wanted=lambda: next(asked, False))
    assert stopped is None
    with pytest.raises(ValueError, match="goes on as it was begun; leave begin_from away"):
        distill(origin, pairs, out, begin_from=origin, resume=True)
    student = distill(origin, pairs, out, resume=True)
    assert student is not None
    assert student.facts.begun_parameters == student.network.num_parameters


@pytest.mark.parametrize("own", [False, True])
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_from_there_again(
    origin: Path, tmp_path: Path, own: bool
) -> None:
    config = changed(CONFIG, {"training": {"max_steps": 2, "own_tokens": own}})
    pairs = letters(30, "dcx")
    whole = train(pairs, tmp_path / "whole", config=config, begin_from=origin)
    train(pairs, tmp_path / "run", config=config, begin_from=origin, wanted=lambda: False)
    for checkpoint in (tmp_path / "run" / CHECKPOINTS).glob("*"):
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    (tmp_path / "run" / WEIGHTS).unlink(missing_ok=True)
    again = train(pairs, tmp_path / "run", resume=True)
    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert one.equal(other)


def test_tags_are_those_of_the_run_that_are_learned_again(tmp_path: Path) -> None:
    config = changed(CONFIG, {"training": {"max_steps": 1}})
    pairs = {tag: [Pair(f"{tag} {source}", target) for source, target in letters(12)] for tag in ("fr", "de")}
    out = tmp_path / "both"
    both = train(pairs["fr"] + pairs["de"], out, tags=["fr", "de", "it"], config=config)
    assert both.facts.tags == ["fr", "de"]
    assert train(pairs["de"], tmp_path / "tuned", begin_from=out).facts.tags == ["de"]
    assert train(letters(12), tmp_path / "untagged", begin_from=out).facts.tags == []
    student = distill(out, pairs["fr"], tmp_path / "student", config=config)
    assert student is not None
    assert student.facts.tags == ["fr"]


def test_unknown_tokens_are_counted_and_told(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("a z\tA Z\n" * 30, encoding="utf-8")
    words = [
        "train",
        pairs,
        "--dev",
        pairs,
        "--out",
        tmp_path / "run",
        "--from",
        origin,
        "--set",
        "training.max_steps=1",
    ]
    told = told_by(monkeypatch, capsys, *words)
    assert f"begins from {origin}, with " in told
    assert "60 tokens are unknown to it" in told


def test_what_cannot_be_is_a_sentence(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size is 100 there, and cannot be 9"):
        train(letters(30), out, config=changed(CONFIG, {"tokenizer": {"vocab_size": 9}}), begin_from=origin)
    with pytest.raises(ValueError, match=r"model\.d_model is 16 there, and cannot be 8"):
        train(letters(30), out, config=changed(CONFIG, {"model": {"d_model": 8}}), begin_from=origin)
    with pytest.raises(ValueError, match="is an ensemble of 2 runs; begin from one of them"):
        train(letters(30), out, begin_from=[origin, origin])
    with pytest.raises(ValueError, match="there is no such folder"):
        train(letters(30), out, begin_from=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has its own weights; leave begin_from away"):
        train(letters(60), origin, begin_from=origin, resume=True)
    assert not out.exists()
    auto = changed(CONFIG, {"tokenizer": {"source": "auto", "target": "auto"}, "training": {"max_steps": 1}})
    assert train(letters(30), tmp_path / "auto", config=auto, begin_from=origin).tokenizers.source.kind == "words"
    for words, told in (
        (["--preset", "tiny"], "leave --preset away"),
        (["--resume"], "leave --preset, --config and --from away"),
    ):
        assert told in told_by(monkeypatch, capsys, "train", "pairs.tsv", "--out", out, "--from", origin, *words)


@pytest.mark.parametrize("tied", [True, False])
def test_own_tokens_keep_what_was_learned_of_those_that_both_have(origin: Path, tmp_path: Path, tied: bool) -> None:
    pairs = [Pair(source.replace("d", "e"), target.replace("D", "E")) for source, target in letters(30)]
    still = {"learning_rate": 1e-12, "max_steps": 1, "weight_decay": 0, "own_tokens": True}
    config = changed(CONFIG, {"model": {"tie_embeddings": tied}, "training": still})
    tuned, before = train(pairs, tmp_path / "run", config=config, begin_from=origin), Model.load(origin)
    names = {piece for pair in pairs for piece in pair.source.split()}
    assert {*tuned.tokenizers.source.vocabulary} == {*before.tokenizers.source.vocabulary} - {"d"} | {"e"} >= names
    tables, kept = dict(tuned.network.named_parameters()), load_file(origin / WEIGHTS)
    for name in TABLES & tables.keys():
        side = "source" if name.startswith("encoder") else "target"
        here, there = (getattr(one.tokenizers, side).vocabulary for one in (tuned, before))
        rows = kept[name if name in kept else "decoder.output"]
        for token in here.keys() & there.keys():
            assert (tables[name][here[token]] - rows[there[token]]).abs().max() < 1e-6, token
    new = tuned.network.num_parameters - tuned.facts.begun_parameters
    assert new == (2 if tied else 3) * tuned.config.model.d_model  # one row of each table
    sources = ["a b", "c a b"]
    assert Model.load(tmp_path / "run").generate(sources) == before.generate(sources)


def test_own_tokens_are_of_the_runs_kind_and_of_any_number(origin: Path, tmp_path: Path) -> None:
    own = changed(CONFIG, {"tokenizer": {"vocab_size": 50}, "training": {"own_tokens": True, "max_steps": 1}})
    run = train(letters(30, "abc"), tmp_path / "run", config=own, begin_from=origin)
    assert run.config.tokenizer.vocab_size == 50
    after = train(letters(30), tmp_path / "after", begin_from=tmp_path / "run")  # which keeps that run's tokens again
    assert after.tokenizers == run.tokenizers
    assert not after.config.training.own_tokens
    chars = changed(own, {"tokenizer": {"source": "chars"}})
    with pytest.raises(ValueError, match=r"tokenizer\.source is 'words' there, and cannot be 'chars'"):
        train(letters(30), tmp_path / "chars", config=chars, begin_from=origin)
    with pytest.raises(ValueError, match="own_tokens is for a training that begins from a run"):
        train(letters(30), tmp_path / "nothing", config=own)
    with pytest.raises(ValueError, match="own_tokens is for a training that begins from a run"):
        distill(origin, letters(30), tmp_path / "nothing", config=own)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("joint", [True, False])
def test_tables_that_were_one_are_taken_for_each_of_their_uses(tmp_path: Path, joint: bool) -> None:
    tokens = {"source": "bpe", "target": "bpe", "joint": joint, "vocab_size": 300}
    config = changed(CONFIG, {"tokenizer": tokens, "training": {"max_steps": 2}})
    tied = train(letters(60), tmp_path / "tied", config=config)
    untied = changed(tied.config, {"model": {"tie_embeddings": False}, "training": {"max_steps": 1}})
    network = Model.new(untied, tied.tokenizers, tied.facts).network
    Origin.read(tmp_path / "tied").give_weights(network, tied.tokenizers)
    tables = {name: weight for name, weight in network.named_parameters() if name in {*TIED, *TIED.values()}}
    assert len(tables) == 3
    for name, weight in tables.items():
        own: Any = tied.network.encoder if name.startswith("encoder") else tied.network.decoder
        assert torch.equal(weight, own.embedding.weight), name
