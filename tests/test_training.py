"""Training: what is learned, when it stops, what is kept, and that what is kept comes back bit for bit."""

import ast
import itertools
import json
import math
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from laws.toys import VOCAB, float64, tiny

from antiphon import files
from antiphon.config import (
    Config,
    MetricName,
    TokenizerConfig,
    TrainingConfig,
    TrainingPrecision,
    changed,
    load_config,
)
from antiphon.data.batches import Batch, EncodedPairs
from antiphon.data.pairs import Pair
from antiphon.evaluation.evaluate import answer
from antiphon.evaluation.summary import summarize
from antiphon.model.dropout import Dropout
from antiphon.model.seq2seq import Seq2Seq, build
from antiphon.plots import read_curves
from antiphon.run import Model
from antiphon.text_side import Facts
from antiphon.tokenizer import train_tokenizers
from antiphon.training import checkpoint, loop, precision
from antiphon.training import train as training
from antiphon.training.checkpoint import Progress
from antiphon.training.loop import LIMIT, StepReport, Trainer, Validation
from antiphon.training.loss import batch_loss
from antiphon.training.optim import clip_gradients, learning_rate, make_optimizer
from antiphon.training.precision import choose_precision
from antiphon.training.train import train
from antiphon.training.validator import SAMPLES, Validator

LETTERS = "abcdefg"


def random_pairs(count: int, longest: int = 5, shortest: int = 1) -> list[Pair]:
    dice = random.Random(1)
    texts = [" ".join(dice.choices(LETTERS, k=dice.randint(shortest, longest))) for _ in range(count)]
    return [Pair(text, text[::-1]) for text in texts]


def encoded(pairs: Sequence[Pair]) -> EncodedPairs:
    words = TokenizerConfig(source="words", target="words", joint=False)
    return EncodedPairs(pairs, train_tokenizers([Pair(" ".join(LETTERS), " ".join(LETTERS))], words), 100)


def settings(**values: Any) -> TrainingConfig:
    usual = {"batch_tokens": 64, "precision": "float32", "warmup_steps": 5, "learning_rate": 0.01, "patience": 0}
    return TrainingConfig.model_validate(usual | values)


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.validations: list[tuple[int, Validation, bool]] = []
        self.kept: list[training.Kept] = []

    def stepped(self, report: StepReport) -> None:
        self.steps.append(report)

    def started(self, model: Model, resumed: bool) -> None: ...

    def finished(self, kept: training.Kept) -> None:
        self.kept.append(kept)

    def validated(self, step: int, validation: Validation, best: bool) -> None:
        self.validations.append((step, validation, best))


def trainer(
    folder: Path,
    config: TrainingConfig,
    model: Seq2Seq | None = None,
    scores: Callable[[], float] = lambda: 0.0,
    keep_best: Callable[[], None] = lambda: None,
    wanted: Callable[[], bool] = lambda: True,
    data: EncodedPairs | None = None,
) -> Trainer:
    folder.mkdir(exist_ok=True)

    def validate() -> Validation:
        return Validation(1.0, "exact_match", score := scores(), score)

    return Trainer(
        model or build(tiny(dropout=0.2), VOCAB, VOCAB, False),
        encoded(random_pairs(40)) if data is None else data,
        config,
        folder / "checkpoints",
        folder / "metrics.jsonl",
        validate,
        keep_best,
        Recorder(),
        wanted,
    )


def weights(model: Seq2Seq) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


# Learning


@pytest.mark.parametrize("kind", ["transformer", "gru"])
def test_a_small_model_learns_to_reverse(kind: str, tmp_path: Path) -> None:
    texts = [" ".join(letters) for size in (1, 2, 3) for letters in itertools.product("abcde", repeat=size)]
    random.Random(1).shuffle(texts)
    pairs = [Pair(text, text[::-1]) for text in texts]
    config = Config.model_validate(
        {
            "tokenizer": {"source": "words", "target": "words", "joint": False},
            "model": {
                "encoder": kind,
                "decoder": kind,
                "d_model": 32,
                "d_ff": 64,
                "num_heads": 4,
                "encoder_layers": 1,
                "decoder_layers": 1,
            },
            "training": {
                "batch_tokens": 128,
                "max_steps": 300,
                "learning_rate": 0.01,
                "warmup_steps": 20,
                "validations": 4,
                "precision": "float32",
                "device": "cpu",
            },
        }
    )
    model = train(pairs[:-20], tmp_path, dev=pairs[-20:], config=config)
    sources, targets = zip(*pairs[-20:], strict=True)
    found = model.generate(sources)
    assert sum(a == b for a, b in zip(found, targets, strict=True)) > 18
    assert Model.load(tmp_path).generate(sources, beam_size=2) == model.generate(sources, beam_size=2)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert model.config.training.metric == "exact_match"
    assert not list(tmp_path.rglob("*.part"))
    assert_no_pickle(tmp_path)
    with pytest.raises(ValueError, match=r"there is a run already; go on with it \(--resume\)"):
        train(pairs, tmp_path, config=config)
    with pytest.raises(ValueError, match="was trained on other pairs"):
        train(pairs[:-21], tmp_path, dev=pairs[-20:], resume=True)
    with pytest.raises(ValueError, match=r"model\.d_ff of a run cannot be changed"):
        train(pairs, tmp_path, config=changed(model.config, {"model": {"d_ff": 8}}), resume=True)


def assert_no_pickle(folder: Path) -> None:
    """No file begins as a pickle (protocol 2 or later) or a zip of one does, and all are kinds that are known."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in found} == {".json", ".jsonl", ".safetensors", ".png"}
    assert [path for path in found if path.read_bytes()[:1] == b"\x80" or path.read_bytes()[:2] == b"PK"] == []


def test_the_source_reads_and_writes_no_pickle() -> None:
    source = Path(loop.__file__).parents[1]
    names = {"pickle", "cPickle", "dill", "joblib", "shelve", "cloudpickle"}
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not names & {alias.name.partition(".")[0] for alias in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in names, path
                assert node.module != "torch" or not {"save", "load"} & {alias.name for alias in node.names}, path
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "save"), ("torch", "load")}, path


def test_data_that_cannot_be_used_is_told_before_anything_is_written(tmp_path: Path) -> None:
    config = load_config("tiny", None, ["training.max_length=2"])
    with pytest.raises(
        ValueError, match=r"no pair can be used: of 2, 1 have an empty side and 1 have more than 2 tokens"
    ):
        train([Pair("a b c", "a b c"), Pair(" ", "a")], tmp_path / "run", dev=[Pair("a", "a")], config=config)
    config = changed(config, {"training": {"max_length": 9, "swap_words": 0.5}})
    with pytest.raises(ValueError, match=r"0 of its pairs are a token each side"):
        train(random_pairs(9, shortest=2), tmp_path / "run", dev=[Pair("a", "a")], config=config)
    config = changed(config, {"training": {"device": "gpu", "swap_words": 0.0}})
    with pytest.raises(ValueError, match=r"device (is )?'gpu'"):
        train(random_pairs(9), tmp_path / "run", dev=[Pair("a", "a")], config=config)
    told = r"pair 1: expected Pair\(source, target\), both texts, found \('a', 'b'\)"
    wrong: list[Any] = [("a", "b")]
    with pytest.raises(ValueError, match=told):
        train(wrong, tmp_path / "run")
    with pytest.raises(ValueError, match=told):
        train(random_pairs(9), tmp_path / "run", dev=wrong)
    assert not (tmp_path / "run").exists()


# The learning rate


def test_the_rate_rises_while_warming_up() -> None:
    config = settings(schedule="constant", warmup_steps=9, learning_rate=1.0)
    rates = [learning_rate(config, step, 0.0) for step in range(12)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1])
    assert learning_rate(settings(schedule="constant", warmup_steps=0, learning_rate=1.0), 0, 0.0) == 1


def test_a_cosine_falls_to_nothing() -> None:
    config = settings(schedule="cosine", warmup_steps=0, learning_rate=2.0)
    shares = [learning_rate(config, 100, share) for share in (0, 0.25, 0.5, 1, 1.5)]
    assert shares == pytest.approx([2, 1 + math.sqrt(0.5), 1, 0, 0])


def test_an_inverse_square_root_halves_in_four_times_the_steps() -> None:
    config = settings(schedule="inverse_sqrt", warmup_steps=99, learning_rate=1.0)
    assert [learning_rate(config, step - 1, 0.0) for step in (50, 100, 400, 1600)] == pytest.approx([0.5, 1, 0.5, 0.25])


def test_the_rates_of_a_run_are_the_schedule_s(tmp_path: Path) -> None:
    running = trainer(tmp_path, settings(max_steps=20, validations=1))
    running.fit()
    rates = [report.learning_rate for report in running.listener.steps]  # type: ignore[attr-defined]
    assert rates == [learning_rate(running.config, step, step / 20) for step in range(20)]
    assert rates[-1] < 0.0001 < max(rates)


# One update


def test_gradients_are_clipped_to_their_limit_and_their_length_is_told() -> None:
    model = build(tiny(), VOCAB, VOCAB, False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    length = math.sqrt(model.num_parameters)
    assert clip_gradients(model, 0).item() == pytest.approx(length)
    assert all((parameter.grad == 1).all() for parameter in model.parameters())
    assert clip_gradients(model, 0.5).item() == pytest.approx(length)
    assert clip_gradients(model, 0.5).item() == pytest.approx(0.5, rel=1e-4)


def test_matrices_decay_and_vectors_do_not() -> None:
    optimizer = make_optimizer(build(tiny(), VOCAB, VOCAB, False), settings(weight_decay=0.3))
    decays = {
        parameter.dim(): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]
    }
    assert decays == {1: 0.0, 2: 0.3}


def test_two_batches_accumulated_are_one_of_twice_the_size(tmp_path: Path) -> None:
    with float64():
        data = encoded(random_pairs(16, longest=3, shortest=3))  # all of one length: 4 tokens with EOS
        models = [build(tiny(dropout=0.0), VOCAB, VOCAB, False) for _ in range(2)]
        for model, batch_tokens, accumulate in zip(models, (64, 32), (1, 2), strict=True):
            config = settings(batch_tokens=batch_tokens, accumulate=accumulate, max_steps=6)
            trainer(tmp_path / str(accumulate), config, model, data=data).fit()
    for name, found in weights(models[1]).items():
        torch.testing.assert_close(found, weights(models[0])[name], rtol=1e-9, atol=1e-9)


def test_a_batch_in_parts_teaches_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with float64():
        data = encoded(random_pairs(30))
        models = [build(tiny(dropout=0.0), VOCAB, VOCAB, False) for _ in range(2)]
        for model, at_once in zip(models, (1000, 10), strict=True):
            monkeypatch.setattr(loop, "AT_ONCE", at_once)
            trainer(tmp_path / str(at_once), settings(batch_tokens=100, max_steps=6), model, data=data).fit()
    for name, found in weights(models[1]).items():
        torch.testing.assert_close(found, weights(models[0])[name], rtol=1e-9, atol=1e-9)


def test_the_loss_reported_is_a_mean_over_real_tokens() -> None:
    model = build(tiny(dropout=0.0), VOCAB, VOCAB, False).eval()
    pairs = random_pairs(6)
    data = encoded(pairs)
    batch = next(data.batches(1000, 1, 0))
    together = batch_loss(model, batch, 0.1, torch.float32)
    apart = [batch_loss(model, next(encoded([pair]).batches(1000, 1, 0)), 0.1, torch.float32) for pair in pairs]
    for side in (0, 1):
        torch.testing.assert_close(
            together[side], torch.stack([one[side] for one in apart]).sum(), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("copying", [False, True])
def test_a_loss_in_bfloat16_is_close_to_the_one_in_float32(copying: bool) -> None:
    model = build(tiny(dropout=0.0, copying=copying), VOCAB, VOCAB, copying)
    batch = next(encoded(random_pairs(10)).batches(1000, 1, 0))
    exact, rough = (batch_loss(model, batch, 0.1, dtype)[0] for dtype in (torch.float32, torch.bfloat16))
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    rough.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("wanted", ["auto", "float32", "bfloat16"])
def test_choosing_a_precision_leaves_no_trace(wanted: TrainingPrecision) -> None:
    model = build(tiny(dropout=0.3), VOCAB, VOCAB, False).train()
    before, noise = weights(model), model.noise.state()
    chosen = choose_precision(wanted, model, next(encoded(random_pairs(5)).batches(1000, 1, 0)))
    assert wanted in ("auto", str(chosen).removeprefix("torch."))
    assert_equal(weights(model), before)
    assert model.noise.state() == noise
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_else_a_machine_does_for_a_while_does_not_choose_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter([5.0] * 3)  # times as slow, while other work begins
    seconds = {torch.bfloat16: 1.0, torch.float32: 2.0}
    monkeypatch.setattr(precision, "_pass", lambda model, batch, dtype: seconds[dtype] * next(busy, 1.0))
    monkeypatch.setattr(precision, "_product_seconds", lambda dtype: 1.0)
    model, batch = build(tiny(), VOCAB, VOCAB, False), next(encoded(random_pairs(5)).batches(1000, 1, 0))
    assert choose_precision("auto", model, batch) == torch.bfloat16


def test_a_precision_that_the_machine_cannot_do_is_a_sentence_or_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: Seq2Seq, batch: Batch, smoothing: float, dtype: torch.dtype) -> Any:
        if dtype == torch.bfloat16:
            raise RuntimeError("could not create a primitive descriptor for the LSTM")
        return batch_loss(model, batch, smoothing, dtype)

    monkeypatch.setattr(precision, "batch_loss", fails)
    monkeypatch.setattr(precision, "_product_seconds", lambda dtype: 1.0)
    model, batch = build(tiny(), VOCAB, VOCAB, False), next(encoded(random_pairs(5)).batches(1000, 1, 0))
    assert choose_precision("auto", model, batch) == torch.float32
    with pytest.raises(ValueError, match="bfloat16, in which this machine cannot train this model; set it to float32"):
        choose_precision("bfloat16", model, batch)


def test_a_run_that_this_machine_cannot_go_on_with_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("tiny", None, ["training.max_steps=1", "training.precision=bfloat16", "model.d_model=16"])
    out, pairs, wanted = tmp_path / "run", random_pairs(9), iter([False])
    train(pairs, out, dev=pairs, config=config, wanted=lambda: next(wanted))

    def fails(*_: Any) -> Any:
        raise RuntimeError("could not create a primitive descriptor for the LSTM")

    monkeypatch.setattr(precision, "batch_loss", fails)
    with pytest.raises(ValueError, match=r"run: is trained in bfloat16, .* resume it on one that can"):
        train(pairs, out, dev=pairs, resume=True)


def test_a_loss_that_is_no_number_stops_the_run_with_a_sentence(tmp_path: Path) -> None:
    model = build(tiny(), VOCAB, VOCAB, False)
    torch.nn.init.constant_(next(model.parameters()), math.nan)
    with pytest.raises(ValueError, match=r"step 1: the loss is nan; train again"):
        trainer(tmp_path, settings(max_steps=3), model).fit()


# Limits


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_epochs": 2}, None),
        ({"max_steps": 5, "max_epochs": 100}, 5),
        ({"max_minutes": 0.002}, None),
    ],
)
def test_a_run_ends_at_its_nearest_limit(limit: dict[str, Any], steps: int | None, tmp_path: Path) -> None:
    running = trainer(tmp_path, settings(validations=2, **limit))
    progress = running.fit()
    assert progress.finished == "the limit"
    assert running.share() >= 1
    if "max_epochs" in limit and steps is None:
        steps = 2 * sum(1 for _ in running.data.batches(64, 1, 0))
    if steps is None:
        assert progress.seconds >= 0.12
    else:
        assert progress.step == steps
    validations = running.listener.validations  # type: ignore[attr-defined]
    assert validations[-1][0] == progress.step


def test_validations_are_evenly_spaced_and_the_last_is_at_the_end(tmp_path: Path) -> None:
    running = trainer(tmp_path, settings(max_steps=20, validations=5))
    running.fit()
    assert [step for step, *_ in running.listener.validations] == [4, 8, 12, 16, 20]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("cost", "count"), [(0, 20), (5, 6), (30, 2)])
def test_a_training_by_the_clock_is_not_spent_on_validations(
    cost: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0  # that an update takes
        return now

    def slow_score() -> float:
        nonlocal now
        now += cost
        return now

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=clock, monotonic=lambda: 0.0))
    running = trainer(tmp_path, settings(max_minutes=5, validations=20), scores=slow_score)
    progress = running.fit()
    found = [step for step, *_ in running.listener.validations]  # type: ignore[attr-defined]
    assert len(found) == count
    assert found[-1] == progress.step
    assert progress.seconds - progress.validating == pytest.approx(progress.step)
    assert progress.validating < 0.1 * 300 + 2 * (cost + 1)


def test_patience_ends_a_run_and_the_best_is_kept(tmp_path: Path) -> None:
    scores = iter([1.0, 3.0, 2.0, 3.0, 2.0, 9.0])
    kept: list[int] = []
    running = trainer(
        tmp_path,
        settings(max_steps=60, validations=30, patience=3),
        scores=lambda: next(scores),
        keep_best=lambda: kept.append(running.progress.step),
    )
    progress = running.fit()
    assert progress.finished == "no gain in 3 validations"
    assert (progress.step, progress.best, progress.best_score) == (10, "the weights of step 4", 3.0)
    assert kept == [2, 4]
    assert [best for *_, best in running.listener.validations] == [True, True, False, False, False]  # type: ignore[attr-defined]


def test_a_run_that_ended_for_want_of_gain_goes_on_with_more_patience(tmp_path: Path) -> None:
    limits = {"max_steps": 20, "validations": 10}
    for patience, steps, finished in (
        (2, 6, "no gain in 2 validations"),
        (2, 6, "no gain in 2 validations"),
        (0, 20, LIMIT),
    ):
        progress = trainer(tmp_path, settings(patience=patience, **limits), scores=lambda: 1.0).fit()
        assert (progress.step, progress.finished) == (steps, finished)


def test_what_ended_a_run_is_told_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Validator", lambda *_: lambda: Validation(1.0, "bleu", 1.0, 1.0))
    monkeypatch.setattr("antiphon.plots.loss_curve", lambda *_: None)
    small = {"d_model": 8, "d_ff": 8, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    limits = {"max_steps": 8, "validations": 4, "precision": "float32", "device": "cpu"}
    for patience, ended in ((1, "no gain in 1 validations"), (0, LIMIT)):
        told = Recorder()
        config = Config.model_validate({"model": small, "training": limits | {"patience": patience}})
        train(random_pairs(40), tmp_path / str(patience), config=config, listener=told)
        logged = json.loads((tmp_path / str(patience) / "metrics.jsonl").read_text().splitlines()[-1])
        assert [kept.ended for kept in told.kept] == [logged["ended"]] == [ended]


def test_the_tags_of_a_file_that_is_no_mixture_are_those_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_fit", lambda out, model, *_: model)
    file = tmp_path / "pairs.tsv"
    file.write_text(
        "".join(f"{'fr' if one.source < 'd' else 'de'} {one.source}\t{one.target}\n" for one in random_pairs(20))
    )
    for number, pairs in enumerate((str(file), file)):
        assert train(pairs, tmp_path / str(number), tags=("fr", "de")).facts.tags == ["fr", "de"]
    assert train(f"it={file}", tmp_path / "mixture", tags=("fr", "de")).facts.tags == ["it"]


def test_references_are_compared_in_the_form_that_outputs_have() -> None:
    words = TokenizerConfig(source="words", target="chars", target_normalization="NFD", joint=False)
    pairs = [Pair("a", "e\u0301"), Pair("b", "\u00e9")]
    tokenizers = train_tokenizers(pairs, words)
    model = Model.new(load_config("tiny", None), tokenizers, Facts(2, 2, 0, 0, 6, 6, 1.0, 0.0, ""))
    assert Validator(model, EncodedPairs(pairs, tokenizers, 10)).references == [["\u00e9"], ["\u00e9"]]
    assert answer(model, pairs, max_length=1).references == [["\u00e9"], ["\u00e9"]]


def test_a_run_that_is_not_wanted_any_more_finishes_its_step_and_saves(tmp_path: Path) -> None:
    answers = iter([True, True, True, False])
    progress = trainer(tmp_path, settings(max_steps=50, validations=5), wanted=lambda: next(answers)).fit()
    assert (progress.step, progress.finished) == (3, "")
    [saved] = checkpoint.checkpoints(tmp_path / "checkpoints")
    assert json.loads((saved / checkpoint.PROGRESS).read_text(encoding="utf-8"))["step"] == 3


# Checkpoints


def trained(folder: Path, steps: int = 7, **values: Any) -> Trainer:
    running = trainer(folder, settings(**({"max_steps": steps, "validations": steps} | values)))
    running.fit()
    return running


def test_a_checkpoint_brings_everything_back_bit_for_bit(tmp_path: Path) -> None:
    running = trained(tmp_path)
    model = build(tiny(dropout=0.2), VOCAB, VOCAB, False, seed=9)
    optimizer = make_optimizer(model, running.config)
    progress = checkpoint.restore(tmp_path / "checkpoints", model, optimizer)
    assert progress == running.progress
    assert_equal(weights(model), weights(running.model))
    assert_equal(checkpoint._moments(model, optimizer), checkpoint._moments(running.model, running.optimizer))
    assert model.noise.state() == running.model.noise.state()
    dropped = [Dropout(0.5, noise).train()(torch.ones(50)) for noise in (model.noise, running.model.noise)]
    assert torch.equal(*dropped)


def test_only_the_newest_checkpoint_keeps_its_optimiser_and_only_some_are_kept(tmp_path: Path) -> None:
    trained(tmp_path, average=3)
    found = checkpoint.checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in found] == ["step-00000005", "step-00000006", "step-00000007"]
    assert [(path / checkpoint.OPTIMIZER).exists() for path in found] == [False, False, True]
    assert all((path / checkpoint.MODEL).exists() for path in found)


def test_the_average_is_the_mean_of_the_last_weights(tmp_path: Path) -> None:
    trained(tmp_path, average=3)
    parts = [checkpoint._read(path / checkpoint.MODEL) for path in checkpoint.checkpoints(tmp_path / "checkpoints")]
    for name, found in checkpoint.average(tmp_path / "checkpoints", 3).items():
        mean = torch.stack([part[name].double() for part in parts]).mean(0)
        torch.testing.assert_close(found, mean.float(), rtol=0, atol=1e-8)
        assert found.dtype == torch.float32


def test_the_average_does_not_depend_on_when_a_run_was_stopped(tmp_path: Path) -> None:
    config = settings(max_steps=9, validations=4, average=2, swap_words=0.5)
    trainer(tmp_path / "whole", config).fit()
    for steps in (3, 2, 3, 9):
        left = iter([True] * steps + [False])
        trainer(tmp_path / "stopped", config, wanted=lambda left=left: next(left)).fit()  # type: ignore[misc]
    found, expected = (checkpoint.validated(tmp_path / run / "checkpoints", 2) for run in ("stopped", "whole"))
    assert [path.name for path in found] == [path.name for path in expected]
    averages = [checkpoint.average(tmp_path / run / "checkpoints", 2) for run in ("stopped", "whole")]
    assert_equal(*averages)
    assert not list((tmp_path / "stopped" / "checkpoints").glob("*.passing"))


def test_a_run_that_goes_on_has_the_average_that_it_kept_to_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([1.0, 1.0, 1.0, 2.0, 5.0, 3.0, 4.0])  # four validations and the average, then two
    told = lambda: Validation(1.0, "exact_match", score := next(scores, 0.0), score)  # noqa: E731
    monkeypatch.setattr(training, "Validator", lambda *_: told)
    for limit in (4, 8):
        config = Config(
            tokenizer=TokenizerConfig(source="words", target="words", joint=False),
            model=tiny(),
            training=settings(metric="exact_match", device="cpu", max_steps=limit, validations=4, average=2),
        )
        train(random_pairs(20), tmp_path / "run", config=config, resume=limit > 4)
        kept = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
        assert (kept["kept"], kept["value"]) == ("the average of the last 2 validated checkpoints", 5.0)


def test_a_kill_before_old_checkpoints_are_gone_does_not_change_the_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path, steps=5, average=2)
    expected = checkpoint.average(tmp_path / "checkpoints", 2)
    half = tmp_path / "checkpoints" / "step-00000003"
    half.mkdir()
    shutil.copy(tmp_path / "checkpoints" / "step-00000005" / checkpoint.PROGRESS, half)
    assert_equal(checkpoint.average(tmp_path / "checkpoints", 2), expected)


def test_a_checkpoint_that_is_there_is_not_taken_away_to_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in between would leave none that a run can go on from."""
    running = trained(tmp_path)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: pytest.fail("takes away"))
    for passing in (True, False):
        checkpoint.save(tmp_path / "checkpoints", running.model, running.optimizer, running.progress, 3, passing)


@pytest.mark.parametrize("moment", ["write_tensors", "write_text"])
def test_a_checkpoint_half_written_is_not_there(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = trained(tmp_path)
    step = running.progress.step

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, moment, fail)
    running.progress.step += 1
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "checkpoints", running.model, running.optimizer, running.progress, 3)
    restored = checkpoint.restore(tmp_path / "checkpoints", running.model, running.optimizer)
    assert restored is not None
    assert restored.step == step


@pytest.mark.parametrize("content", [b"", b'{"x": 1}', b"\x00" * 64])
@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.PROGRESS])
def test_a_broken_checkpoint_is_a_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    running = trained(tmp_path, steps=2)
    found = checkpoint.newest(tmp_path / "checkpoints")
    assert found is not None
    (found / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(found / name)) + r": .*\.$"):
        checkpoint.restore(tmp_path / "checkpoints", running.model, running.optimizer)


def test_tensors_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / ".weights.part").mkdir()
    with pytest.raises(ValueError, match=r"weights: cannot be written \(.*\); check its rights and the disk's room\.$"):
        files.write_tensors(tmp_path / "weights", {"x": torch.zeros(2)})


def test_without_a_checkpoint_nothing_is_restored(tmp_path: Path) -> None:
    model = build(tiny(), VOCAB, VOCAB, False)
    assert checkpoint.restore(tmp_path / "nowhere", model, make_optimizer(model, settings())) is None


def test_saving_by_the_clock_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(tmp_path / "rarely", validations=2)
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1)
    running = trained(tmp_path / "often", validations=2)
    assert_equal(weights(running.model), weights(expected.model))
    names = [
        [path.name for path in checkpoint.checkpoints(tmp_path / run / "checkpoints")] for run in ("rarely", "often")
    ]
    assert names[0] == names[1]


# What is told


def test_metrics_have_a_line_for_each_step_and_each_validation(tmp_path: Path) -> None:
    running = trained(tmp_path, steps=6, validations=2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "dev_loss" in line] == [3, 6]
    assert [line["loss"] for line in steps] == [report.loss for report in running.listener.steps]  # type: ignore[attr-defined]
    assert lines[-1]["dev_exact_match"] == 0.0


def test_samples_are_written_with_their_validation_and_are_nothing_to_the_loop(tmp_path: Path) -> None:
    running = trainer(tmp_path, settings(max_steps=4, validations=2))
    records = [{"anything": "at all"}]
    running.validate = lambda: Validation(1.0, "exact_match", 0.0, 0.0, records)
    running.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    samples = [index for index, line in enumerate(lines) if "samples" in line]
    assert [lines[index] for index in samples] == [{"step": step, "samples": records} for step in (2, 4)]
    assert all("dev_loss" in lines[index - 1] for index in samples)


@pytest.mark.parametrize("metric", ["exact_match", "loss"])
def test_a_validation_samples_the_same_sources_from_the_shortest_to_the_longest(metric: MetricName) -> None:
    pairs = [Pair(" ".join(LETTERS[:size]) + f" {LETTERS[end]}", "a") for size in (5, 3, 1, 4, 2) for end in range(4)]
    pairs.append(Pair(pairs[0].source, "another reference"))
    data = encoded(pairs)
    words = TokenizerConfig(source="words", target="words", joint=False)
    tokenizers = train_tokenizers([Pair(" ".join(LETTERS), " ".join(LETTERS))], words)
    config = changed(load_config("tiny", None), {"training": {"metric": metric}})
    model = Model.new(config, tokenizers, Facts(20, 20, 0, 0, 6, 6, 1.0, 0.0, ""))
    model.network.eval()
    validate = Validator(model, data)
    with torch.inference_mode():
        first, second = validate().samples, validate().samples
    assert first == second
    assert len({one["source"] for one in first}) == SAMPLES
    lengths = [len(one["source"]) for one in first]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (min(len(one.source) for one in pairs), max(len(one.source) for one in pairs))
    assert [one["reference"] for one in first] == ["a"] * SAMPLES
    assert [one["output"] for one in first] == model.generate([one["source"] for one in first], beam_size=1, n_best=1)


def test_fewer_dev_sources_than_samples_are_all_sampled(tmp_path: Path) -> None:
    words = ["training.max_steps=2", "training.validations=1", "model.d_model=16", "model.d_ff=16", "model.num_heads=2"]
    pairs = random_pairs(40)
    train(pairs[3:], tmp_path, dev=pairs[:3], config=load_config("tiny", None, words))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    (samples,) = [line["samples"] for line in lines if "samples" in line]
    assert {one["source"] for one in samples} == {pair.source for pair in pairs[:3]}
    assert summarize(tmp_path)["training"]["steps"] == 2
    assert set(read_curves(tmp_path / "metrics.jsonl")) == {"loss", "dev_loss", "dev_bleu"}


@pytest.mark.parametrize("end", ["", '{"step": 3, "lo', '{"step": 9, "loss": 1.0}\n{"step'])
def test_lines_after_the_last_checkpoint_are_forgotten(end: str, tmp_path: Path) -> None:
    whole = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 2, "dev_loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_text(whole + end, encoding="utf-8")
    loop._forget_after(tmp_path / "metrics.jsonl", 2)
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == whole


def test_a_longer_limit_lets_a_finished_run_go_on(tmp_path: Path) -> None:
    trained(tmp_path, steps=4)
    running = trainer(tmp_path, settings(max_steps=10, validations=5))
    progress = running.fit()
    assert (progress.step, progress.finished) == (10, "the limit")
    assert [step for step, *_ in running.listener.validations] == [6, 8, 10]  # type: ignore[attr-defined]


def test_progress_is_plain_json() -> None:
    assert json.loads(json.dumps(Progress().__dict__)) == Progress().__dict__
