"""Law 7: a break made on purpose makes a law fail. The laws are those that the other tests here call."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from laws.checks import (
    check_attention,
    check_batches,
    check_brute_force,
    check_padding,
    check_requests,
    check_rows,
    check_scores,
    check_stepping,
)
from laws.toys import ARCHITECTURES, TableModel, random_model, random_source
from torch import Tensor

from antiphon.decoding import active
from antiphon.decoding.search import BeamSearch, Candidates, Sampling
from antiphon.model import recurrent, state, transformer
from antiphon.model.attention import RecurrentAttention
from antiphon.model.state import DecodeState

pytestmark = pytest.mark.usefixtures("in_float64")

TRANSFORMERS = ("transformer>transformer-rotary", "gru>transformer-relative", "lstm>transformer-sinusoidal")
ATTENDING = ("gru>gru-additive-feeding", "lstm>gru-dot", "transformer>lstm-additive-rotary")
BLIND = ("gru>gru-none", "lstm>lstm-none")
SOURCES = [random_source(random.Random(seed), longest) for seed, longest in enumerate((9, 3, 6, 9))]


def sound(check: Callable[[], None]) -> None:
    """The check passes before the break, so that it is the break that it fails by."""
    check()


def broken(check: Callable[[], None]) -> None:
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("name", TRANSFORMERS + ATTENDING + BLIND)
def test_caches_that_are_not_selected_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)
    checks = (lambda: check_rows(model, 1), lambda: check_scores(model, 1))
    for check in checks:
        sound(check)
    gather = DecodeState._gather

    def stay(self: DecodeState, tensors: dict[str, Tensor], rows: Sequence[int], length: int | None) -> Any:
        past = tensors is self.past
        return gather(self, tensors, [i % self.num_rows for i in range(len(rows))] if past else rows, length)

    monkeypatch.setattr(DecodeState, "_gather", stay)
    for check in checks:
        broken(check)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_one_position_for_all_rows_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)
    checks = (lambda: check_rows(model, 2), lambda: check_requests(model, 2))
    for check in checks:
        sound(check)
    step = transformer.TransformerDecoder.step

    def level(self: transformer.TransformerDecoder, state: DecodeState, tokens: Tensor) -> Tensor:
        state.ages = [max(state.ages)] * state.num_rows
        return step(self, state, tokens)

    monkeypatch.setattr(transformer.TransformerDecoder, "step", level)
    for check in checks:
        broken(check)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_that_sees_padding_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)
    checks = (
        lambda: check_padding(model, SOURCES, [4, 5, 6]),
        lambda: check_batches(model, SOURCES, 3),
        lambda: check_rows(model, 3),
    )
    for check in checks:
        sound(check)
    monkeypatch.setattr(transformer, "mask_bias", lambda mask: torch.zeros(mask.shape)[:, None, None, :])
    for check in checks:
        broken(check)


@pytest.mark.parametrize("name", ATTENDING)
def test_recurrent_attention_that_sees_padding_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)
    checks = (
        lambda: check_padding(model, SOURCES, [4, 5, 6]),
        lambda: check_batches(model, SOURCES, 1),
        lambda: check_rows(model, 4),
    )
    for check in checks:
        sound(check)
    forward = RecurrentAttention.forward

    def see_all(self: RecurrentAttention, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Any:
        return forward(self, query, keys, values, torch.ones_like(mask))

    monkeypatch.setattr(RecurrentAttention, "forward", see_all)
    for check in checks:
        broken(check)


@pytest.mark.parametrize("name", TRANSFORMERS + ATTENDING)
def test_padding_at_the_wrong_end_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)
    checks = (lambda: check_rows(model, 5), lambda: check_requests(model, 5))
    for check in checks:
        sound(check)
    pad = state.pad_axis
    monkeypatch.setattr(state, "pad_axis", lambda x, axis, length: pad(x.flip(axis), axis, length).flip(axis))
    for check in checks:
        broken(check)


@pytest.mark.parametrize("name", TRANSFORMERS + ATTENDING)
def test_memory_that_stays_when_a_source_leaves_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)
    checks = (lambda: check_rows(model, 6), lambda: check_requests(model, 6))
    for check in checks:
        sound(check)
    gather = DecodeState._gather

    def stay(self: DecodeState, tensors: dict[str, Tensor], rows: Sequence[int], length: int | None) -> Any:
        return gather(self, tensors, range(len(rows)) if tensors is self.shared else rows, length)

    monkeypatch.setattr(DecodeState, "_gather", stay)
    for check in checks:
        broken(check)


@pytest.mark.parametrize("name", ["gru>gru-none", "lstm>gru-dot", "gru>transformer-rotary"])
def test_reading_backwards_from_the_padding_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)
    checks = (lambda: check_padding(model, SOURCES, [4, 5, 6]), lambda: check_batches(model, SOURCES, 1))
    for check in checks:
        sound(check)
    monkeypatch.setattr(recurrent, "_take", lambda x, places: x.flip(1))
    for check in checks:
        broken(check)


@pytest.mark.parametrize("name", ["transformer>transformer-rotary", "gru>gru-none", "mock"])
@pytest.mark.parametrize("wrong", [lambda parents: [0] * len(parents), lambda parents: parents[::-1]])
def test_wrong_parents_of_a_beam_are_found(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TableModel(7) if name == "mock" else random_model(name, vocab=7)

    def check() -> None:
        check_brute_force(model, (4, 6, 5, 3), vocab=7, max_length=3, penalty=1.0)

    sound(check)
    advance = BeamSearch.advance

    def misremember(self: BeamSearch, candidates: Candidates) -> None:
        advance(self, candidates)
        self.parents = wrong(self.parents)

    monkeypatch.setattr(BeamSearch, "advance", misremember)
    broken(check)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_seeing_the_future_in_training_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)

    def check() -> None:
        check_stepping(model, SOURCES[0], [4, 5, 6, 7])

    sound(check)
    monkeypatch.setattr(transformer, "causal_bias", lambda length, device: torch.zeros(length, length))
    broken(check)


@pytest.mark.parametrize("name", ["lstm>lstm-additive-feeding", "gru>gru-dot-feeding"])
def test_input_feeding_that_is_forgotten_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(name)

    def check() -> None:
        check_stepping(model, SOURCES[0], [4, 5, 6, 7])

    sound(check)
    step = recurrent.RecurrentDecoder.step

    def forget(self: recurrent.RecurrentDecoder, state: DecodeState, tokens: Tensor) -> Tensor:
        state.past["context"] = torch.zeros_like(state.past["context"])
        return step(self, state, tokens)

    monkeypatch.setattr(recurrent.RecurrentDecoder, "step", forget)
    broken(check)


def test_attention_of_the_wrong_row_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(TRANSFORMERS[0])

    def check() -> None:
        check_attention(model, SOURCES, 3)

    sound(check)
    candidates = active.ActiveBatch._candidates

    def first(self: active.ActiveBatch, logits: Tensor) -> list[Candidates]:
        found = candidates(self, logits)
        for one in found:
            one.attention = one.attention and list(one.attention[:1]) * len(one.attention)
        return found

    monkeypatch.setattr(active.ActiveBatch, "_candidates", first)
    broken(check)


def test_samples_that_share_one_stream_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TableModel(11)

    def check() -> None:
        for seed in range(5):
            check_requests(model, seed)

    sound(check)
    stream = random.Random(0)
    draws = Sampling.draws

    def shared(self: Sampling) -> list[tuple[int, float]]:
        return [(row, stream.random()) for row, _ in draws(self)]

    monkeypatch.setattr(Sampling, "draws", shared)
    broken(check)


def test_the_breaks_are_tried_on_architectures_that_exist() -> None:
    assert {*TRANSFORMERS, *ATTENDING, *BLIND} <= set(ARCHITECTURES)
