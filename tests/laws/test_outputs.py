"""Laws 2 to 5 on what is found: padded batches, the running batch, exact searches, saving and loading."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.checks import (
    assert_same,
    check_attention,
    check_batches,
    check_brute_force,
    check_greedy,
    check_requests,
    check_scores,
)
from laws.toys import ARCHITECTURES, FAMILIES, TableModel, random_ensemble, random_model, random_source, word_model

from antiphon.config import GenerationConfig
from antiphon.decoding.generate import decode
from antiphon.decoding.search import make_search
from antiphon.model.ensemble import Ensemble
from antiphon.run import Model

pytestmark = pytest.mark.usefixtures("in_float64")
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
every_family = pytest.mark.parametrize("name", FAMILIES)


@every_architecture
@pytest.mark.parametrize("beam_size", [1, 3, 5])
def test_a_source_is_decoded_alone_as_among_neighbours(name: str, beam_size: int) -> None:
    dice = random.Random(beam_size)
    check_batches(random_model(name), [random_source(dice) for _ in range(4)], beam_size)


@every_architecture
def test_requests_that_join_and_leave_are_each_alone(name: str) -> None:
    check_requests(random_model(name), seed=5)


@settings(max_examples=10)
@given(st.sampled_from(list(ARCHITECTURES)), st.integers(0, 2**32))
def test_requests_at_any_moments_are_each_alone(name: str, seed: int) -> None:
    check_requests(random_model(name), seed, count=6)


@given(st.integers(0, 2**32))
def test_requests_to_a_mock_are_each_alone(seed: int) -> None:
    check_requests(TableModel(11, seed), seed)


@every_architecture
def test_a_beam_of_one_is_greedy(name: str) -> None:
    dice = random.Random(6)
    for _ in range(2):
        check_greedy(random_model(name), random_source(dice))


@every_architecture
def test_scores_are_those_of_teacher_forcing(name: str) -> None:
    check_scores(random_model(name), seed=7)


@every_family
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
def test_a_beam_as_wide_as_the_space_is_brute_force(name: str, penalty: float) -> None:
    check_brute_force(random_model(name, vocab=7), (4, 6, 5, 3), vocab=7, max_length=3, penalty=penalty)


@given(st.integers(0, 2**32), st.floats(0, 3), st.integers(1, 4), st.floats(0.1, 4))
def test_a_beam_as_wide_as_the_space_is_brute_force_for_a_mock(
    seed: int, penalty: float, max_length: int, spread: float
) -> None:
    check_brute_force(TableModel(7, seed, spread), (3,), vocab=7, max_length=max_length, penalty=penalty)


@pytest.mark.parametrize("name", [name for name, config in ARCHITECTURES.items() if config.attention != "none"])
def test_attention_is_kept_through_all_reordering(name: str) -> None:
    dice = random.Random(8)
    check_attention(random_model(name), [random_source(dice, longest) for longest in (9, 2, 5)], beam_size=3)


@every_architecture
def test_a_model_saved_and_loaded_gives_the_same_outputs(name: str, tmp_path: Path) -> None:
    model = word_model(name)
    model.save(tmp_path)
    loaded = Model.load(tmp_path)
    for wanted in ({"beam_size": 3, "n_best": 3}, {"sample": True, "n_best": 2, "seed": 5}):
        assert loaded.outputs(["a b c", "", "g"], **wanted) == model.outputs(["a b c", "", "g"], **wanted)
    assert loaded.score([("a b", "c d e")]) == model.score([("a b", "c d e")])


def test_an_ensemble_obeys_the_laws() -> None:
    """Its scores are the mean probabilities of its members, by teacher forcing; all else is as for one model."""
    ensemble, dice = random_ensemble(), random.Random(9)
    check_batches(ensemble, [random_source(dice) for _ in range(4)], beam_size=3)
    check_requests(ensemble, seed=10)
    check_greedy(ensemble, random_source(dice))
    check_scores(ensemble, seed=11)
    check_attention(ensemble, [random_source(dice, longest) for longest in (9, 2, 5)], beam_size=3)
    check_brute_force(random_ensemble(vocab=7), (4, 6, 5, 3), vocab=7, max_length=3, penalty=1.0)


def test_an_ensemble_of_one_twice_is_that_one() -> None:
    model = random_model(FAMILIES[0])
    sources = [random_source(random.Random(seed)) for seed in range(4)]
    searches = [[make_search(GenerationConfig(beam_size=3, n_best=2), 9) for _ in sources] for _ in range(2)]
    for found, expected in zip(
        decode(Ensemble([model, model]), sources, searches[0]), decode(model, sources, searches[1]), strict=True
    ):
        assert_same(found, expected)
