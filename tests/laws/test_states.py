"""Laws 1 to 3 on the model's own verbs: start, step, select, join."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.checks import assert_close, check_padding, check_rows, check_stepping
from laws.toys import ARCHITECTURES, FAMILIES, VOCAB, random_model, random_source

from antiphon.ids import BOS
from antiphon.model.attention import CACHE_BLOCK

pytestmark = pytest.mark.usefixtures("in_float64")
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
TARGET = [4 + (place * place) % (VOCAB - 4) for place in range(CACHE_BLOCK + 3)]


@every_architecture
def test_stepping_through_a_target_is_forward(name: str) -> None:
    check_stepping(random_model(name), random_source(random.Random(1)), TARGET)


@every_architecture
def test_a_source_alone_is_the_same_source_in_a_padded_batch(name: str) -> None:
    dice = random.Random(2)
    check_padding(random_model(name), [random_source(dice) for _ in range(4)], TARGET[:6])


@every_architecture
def test_rows_that_are_selected_and_joined_are_each_apart(name: str) -> None:
    check_rows(random_model(name), seed=3)


@settings(max_examples=15)
@given(st.sampled_from(list(ARCHITECTURES)), st.integers(0, 2**32))
def test_rows_are_each_apart_on_any_path(name: str, seed: int) -> None:
    check_rows(random_model(name), seed, moves=15)


@settings(max_examples=20)
@given(
    st.sampled_from(list(ARCHITECTURES)),
    st.lists(st.lists(st.integers(4, VOCAB - 1), max_size=7).map(lambda ids: [*ids, 3]), min_size=1, max_size=5),
    st.lists(st.integers(4, VOCAB - 1), max_size=5),
)
def test_any_source_in_any_padded_batch(name: str, sources: list[list[int]], target: list[int]) -> None:
    check_padding(random_model(name), sources, target)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_two_running_batches_joined_are_each_apart(name: str) -> None:
    """Both mid-flight, of different ages and widths, with different longest sources."""
    model, dice = random_model(name), random.Random(4)
    pasts = []
    for steps, longest in ((18, 4), (5, 9)):
        state = model.start([random_source(dice, longest) for _ in range(3)])
        state = state.select([0, 0, 1, 2, 2, 2])
        for step in range(steps):
            model.step(state, [dice.randrange(4, VOCAB) if step else BOS for _ in range(state.num_rows)])
        pasts.append(state)
    tokens = [dice.randrange(4, VOCAB) for _ in range(12)]
    joined = pasts[0].join([pasts[1]])
    found = model.step(joined, tokens)
    assert_close(found[:6], model.step(pasts[0], tokens[:6]), "the first batch")
    assert_close(found[6:], model.step(pasts[1], tokens[6:]), "the second batch")
