"""Searches, rules and sampling on a mock model whose distributions are known."""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws.toys import FAMILIES, TableModel, random_model, random_source
from torch import Tensor

from antiphon import kernels
from antiphon.config import GenerationConfig
from antiphon.decoding import generate
from antiphon.decoding.active import ActiveBatch
from antiphon.decoding.candidates import candidates, sample
from antiphon.decoding.generate import decode, decode_stream
from antiphon.decoding.rules import repeats
from antiphon.decoding.search import EOS, Hypothesis, make_search

SOURCE = (5, 6, EOS)


def found(
    model: Any,
    max_length: int = 8,
    prefix: tuple[int, ...] = (),
    source: tuple[int, ...] = SOURCE,
    **settings: Any,
) -> list[Hypothesis]:
    return decode(model, [source], [make_search(GenerationConfig(**settings), max_length, prefix)])[0]


def outputs(*args: Any, **settings: Any) -> list[tuple[int, ...]]:
    return [hypothesis.tokens for hypothesis in found(*args, **settings)]


searching = st.one_of(
    st.builds(lambda n: {"beam_size": n, "n_best": n}, st.integers(1, 5)),
    st.builds(lambda n, seed: {"sample": True, "n_best": n, "seed": seed}, st.integers(1, 5), st.integers(0, 99)),
)


@given(st.integers(0, 999), searching, st.lists(st.integers(4, 9), max_size=4))
def test_every_output_begins_with_the_forced_prefix(seed: int, settings: dict[str, Any], prefix: list[int]) -> None:
    for tokens in outputs(TableModel(10, seed), prefix=tuple(prefix), **settings):
        assert tokens[: len(prefix)] == tuple(prefix)
        assert len(tokens) > len(prefix)


@given(st.integers(0, 999), searching, st.integers(0, 6), st.integers(6, 9))
def test_no_output_is_shorter_than_min_length_or_longer_than_max_length(
    seed: int, settings: dict[str, Any], shortest: int, longest: int
) -> None:
    hypotheses = found(TableModel(8, seed), max_length=longest, min_length=shortest, **settings)
    assert hypotheses
    for hypothesis in hypotheses:
        assert len(hypothesis.tokens) <= longest
        assert EOS not in hypothesis.tokens[:-1]
        assert not hypothesis.ended or len(hypothesis.tokens) - 1 >= shortest
        assert hypothesis.ended or len(hypothesis.tokens) == longest


@given(st.integers(0, 999), searching, st.integers(1, 3))
def test_no_run_of_tokens_comes_twice(seed: int, settings: dict[str, Any], size: int) -> None:
    for tokens in outputs(TableModel(7, seed, spread=3), max_length=20, no_repeat_ngram=size, **settings):
        runs = [tokens[start : start + size] for start in range(len(tokens) - size + 1)]
        assert len(runs) == len(set(runs))


@given(st.lists(st.integers(4, 6), max_size=12), st.integers(1, 4))
def test_repeats_are_what_would_complete_a_run_again(tokens: list[int], size: int) -> None:
    runs = {tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)}
    for token in range(4, 7):
        new = (*tokens, token)[-size:]
        assert (token in repeats(tokens, size)) == (new in runs)
    assert repeats(tokens, 0) == []


@pytest.mark.parametrize("settings", [{"beam_size": 2}, {"sample": True, "n_best": 3}])
def test_rules_that_leave_nothing_let_an_output_end(settings: dict[str, Any]) -> None:
    """Three tokens cannot fill five places without a repeat."""
    found = outputs(TableModel(7), max_length=9, min_length=5, no_repeat_ngram=1, **settings)
    assert found
    for tokens in found:
        assert sorted(tokens[:3]) == [4, 5, 6]
        assert tokens[3:] == (EOS,)


@given(st.integers(0, 999), searching)
def test_special_tokens_are_never_output(seed: int, settings: dict[str, Any]) -> None:
    for tokens in outputs(TableModel(6, seed), **settings):
        assert all(token >= EOS for token in tokens)


def test_a_forced_prefix_counts_with_the_probability_that_the_model_gives_it() -> None:
    model = TableModel(8)
    free = found(model, beam_size=1, n_best=1)[0]
    forced = found(model, prefix=free.tokens[:2], beam_size=1, n_best=1)[0]
    assert forced.tokens == free.tokens
    assert forced.score == pytest.approx(free.score)


def test_a_hypothesis_s_length_for_the_penalty_counts_its_end() -> None:
    assert Hypothesis((4, 5, EOS), score=-6.0).normalized(1.0) == -2.0
    assert Hypothesis((4, 5, EOS), score=-6.0).normalized(0.0) == -6.0


@given(st.integers(0, 999), st.integers(1, 6))
def test_the_n_best_are_different_and_the_best_come_first(seed: int, width: int) -> None:
    hypotheses = found(TableModel(9, seed), beam_size=width, n_best=width)
    assert len({h.tokens for h in hypotheses}) == len(hypotheses) == width
    scores = [h.normalized(1.0) for h in hypotheses]
    assert scores == sorted(scores, reverse=True)


@given(st.integers(0, 999))
def test_asking_for_more_of_the_same_beam_never_changes_the_best(seed: int) -> None:
    """Stopping early is exact: with n_best=1 the beam stops sooner, and has found what the full one finds."""
    model = TableModel(9, seed)
    full = found(model, beam_size=5, n_best=5, length_penalty=0.0)
    assert found(model, beam_size=5, n_best=1, length_penalty=0.0)[0].score >= full[0].score - 1e-9


# Sampling


def distribution(logits: torch.Tensor, settings: GenerationConfig) -> torch.Tensor:
    """What the settings shape `logits` into, written plainly."""
    probabilities = torch.softmax(logits / settings.temperature, 0)
    order = probabilities.argsort(descending=True).tolist()
    kept, total = [], 0.0
    for token in order[: settings.top_k or len(order)]:
        if kept and total >= settings.top_p:
            break
        kept.append(token)
        total += float(probabilities[token])
    shaped = torch.zeros_like(probabilities)
    shaped[kept] = probabilities[kept]
    return shaped / shaped.sum()


SHAPES = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 3},
    {"top_p": 0.6},
    {"top_k": 4, "top_p": 0.9, "temperature": 1.3},
    {"top_p": 0.01},
    {"top_k": 1},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_follow_the_distribution_that_the_settings_shape(shape: dict[str, Any]) -> None:
    model, count = TableModel(10), 4000
    settings = GenerationConfig(sample=True, n_best=count, seed=1, **shape)
    drawn = Counter(h.tokens[0] for h in decode(model, [SOURCE], [make_search(settings, 1)])[0])
    logits = model.logits((*SOURCE, 2)).clone()
    logits[:3] = -torch.inf
    expected = distribution(logits, settings) * count
    assert all(expected[token] > 0 for token in drawn)
    squares = [(drawn[token] - float(e)) ** 2 / float(e) for token, e in enumerate(expected) if e > 0]
    assert (
        sum(squares) < 25
    )  # chi-square of at most 6 degrees of freedom: once in 3,000 by chance, and the seed is fixed


@given(
    st.integers(0, 999),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 8),
    st.floats(0.01, 1),
    st.floats(0.1, 3),
)
def test_a_drawn_token_is_where_its_number_falls_in_the_distribution(
    seed: int, number: float, top_k: int, top_p: float, temperature: float
) -> None:
    logits = TableModel(8, seed).logits(SOURCE)
    settings = GenerationConfig(sample=True, top_k=top_k, top_p=top_p, temperature=temperature)
    token = int(sample(logits.unsqueeze(0), torch.tensor([number], dtype=torch.float64), settings))
    shaped = distribution(logits, settings)
    order = shaped.argsort(descending=True).tolist()
    before = float(shaped[order[: order.index(token)]].sum())
    assert shaped[token] > 0
    assert before - 1e-9 <= number <= before + float(shaped[token]) + 1e-9


def test_the_greatest_number_draws_a_token_that_is_allowed() -> None:
    logits = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf]])
    assert sample(logits, torch.tensor([1.0]), GenerationConfig(sample=True)).tolist() == [1]


def test_the_same_seed_gives_the_same_samples_and_another_seed_others() -> None:
    model = TableModel(30)
    first = outputs(model, sample=True, n_best=5, seed=1)
    assert first == outputs(model, sample=True, n_best=5, seed=1)
    assert first != outputs(model, sample=True, n_best=5, seed=2)
    assert len(set(first)) > 1


@given(st.integers(0, 999), st.integers(1, 6))
def test_a_sample_does_not_depend_on_how_many_are_drawn_beside_it(seed: int, count: int) -> None:
    model = TableModel(12, seed)
    fewer = outputs(model, sample=True, n_best=count, seed=seed)
    more = outputs(model, sample=True, n_best=count + 3, seed=seed)
    assert not Counter(fewer) - Counter(more)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    model, settings = TableModel(12), GenerationConfig(sample=True, n_best=2, seed=7)
    sources = [(token, EOS) for token in range(4, 10)]
    alone = [found(model, source=source, sample=True, n_best=2, seed=7) for source in sources]
    assert decode(model, sources, [make_search(settings, 8) for _ in sources]) == alone


# The running batch


def test_results_come_in_the_order_of_the_sources_whatever_their_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generate, "MAX_ROWS", 6)
    model, dice = TableModel(9), random.Random(1)
    sources = [random_source(dice) for _ in range(20)]
    settings = GenerationConfig(beam_size=2)
    expected = [found(model, source=source, beam_size=2) for source in sources]
    assert decode(model, sources, [make_search(settings, 8) for _ in sources]) == expected
    streamed = list(decode_stream(model, sources, [make_search(settings, 8) for _ in sources]))
    assert sorted(index for index, _ in streamed) == list(range(20))
    assert all(hypotheses == expected[index] for index, hypotheses in streamed)


@pytest.mark.parametrize("prefix", [(), (4, 5, 6, 7)])
def test_the_running_batch_is_filled_up_to_its_limit_and_not_beyond(
    prefix: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "MAX_ROWS", 8)
    widest: list[int] = []
    step = ActiveBatch.step

    def watched(self: ActiveBatch) -> Any:
        ended = step(self)
        widest.append(self.num_rows)
        return ended

    monkeypatch.setattr(ActiveBatch, "step", watched)
    sources = [(4, EOS)] * 15
    settings = GenerationConfig(beam_size=3, min_length=6)
    decode(TableModel(9), sources, [make_search(settings, 10, prefix) for _ in sources])
    assert 6 <= max(widest) <= 8


def test_a_request_wider_than_the_batch_is_decoded_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "MAX_ROWS", 2)
    assert len(outputs(TableModel(9), beam_size=5, n_best=5)) == 5


def test_nothing_asked_is_nothing_found() -> None:
    assert decode(TableModel(9), [], []) == []


def test_a_finished_row_leaves_at_once() -> None:
    model = TableModel(9)
    batch = ActiveBatch(model)
    searches = [make_search(GenerationConfig(), length) for length in (1, 2, 3)]
    batch.add([(4, EOS), (5, EOS), (6, EOS)], searches)
    rows = [batch.num_rows]
    while batch.searches:
        batch.step()
        rows.append(batch.num_rows)
        assert batch.num_rows == (0 if batch._state is None else len(batch._state.rows))
    assert rows[0] == 3
    assert rows[-1] == 0
    assert rows == sorted(rows, reverse=True)


def test_dropping_what_is_not_there_changes_nothing() -> None:
    batch = ActiveBatch(TableModel(9))
    batch.drop(make_search(GenerationConfig(), 5))
    assert batch.num_rows == 0


def test_attention_is_kept_only_where_asked_for() -> None:
    model = random_model(FAMILIES[0])
    search = [make_search(GenerationConfig(beam_size=2), 5)]
    assert decode(model, [SOURCE], search)[0][0].attention == ()
    search = [make_search(GenerationConfig(beam_size=2), 5)]
    hypothesis = decode(model, [SOURCE], search, keep_attention=True)[0][0]
    assert len(hypothesis.attention) == len(hypothesis.tokens)
    assert hypothesis.attention[0].shape == (2, 2, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_batches_side_by_side_find_what_one_finds(workers: int) -> None:
    model = TableModel(10, 3)
    sources = [(number % 7 + 4, number, EOS) for number in range(60)]
    settings = GenerationConfig(beam_size=3, n_best=2)
    expected = decode(model, sources, [make_search(settings, 8) for _ in sources])
    assert decode(model, sources, [make_search(settings, 8) for _ in sources], workers=workers) == expected


class Failing(TableModel):
    """Fails at the second step of every batch."""

    def step(self, state: Any, tokens: Sequence[int]) -> Tensor:
        if max(len(row) for row in state.rows) > 3:
            raise RuntimeError("out of order")
        return super().step(state, tokens)


def test_an_error_in_a_worker_is_raised_and_leaves_no_thread() -> None:
    searches = [make_search(GenerationConfig(), 8) for _ in range(40)]
    with pytest.raises(RuntimeError, match="out of order"):
        decode(Failing(10, 3), [(4, 5, EOS)] * 40, searches, workers=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("antiphon-decode")]


def test_workers_stop_when_nobody_reads_on() -> None:
    searches = [make_search(GenerationConfig(), 8) for _ in range(400)]
    stream = decode_stream(TableModel(10, 3), [(4, 5, EOS)] * 400, searches, workers=2)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("antiphon-decode")]


@pytest.mark.parametrize("workers", [0, 2])
def test_decoding_ends_at_the_step_after_which_nobody_wants_it(workers: int) -> None:
    searches = [make_search(GenerationConfig(min_length=50), 60) for _ in range(4)]
    asked = iter([True] * 10)
    model = TableModel(10, 3)
    assert not list(
        decode_stream(model, [(4, 5, EOS)] * 4, searches, workers=workers, wanted=lambda: next(asked, False))
    )
    assert 0 < max(len(search.live[0].tokens) for search in searches) <= 10


def searches_of(shapes: list[tuple[int, int]], rows: random.Random, **settings: Any) -> list[Any]:
    """A search of each beam size with so many live rows, whose scores are random."""
    found = []
    for beam_size, count in shapes:
        search = make_search(GenerationConfig(beam_size=beam_size, **settings), 20)
        search.live = [Hypothesis((5,), (-1.0,), -10 * rows.random()) for _ in range(count)]
        found.append(search)
    return found


@pytest.mark.skipif(kernels.library() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("vocab", [5, 70, 2000])
def test_the_kernel_finds_the_candidates_that_torch_finds(vocab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(1, 1), (4, 4), (2, 1), (5, 3)]
    logits = 5 * torch.randn(9, vocab, generator=torch.Generator().manual_seed(vocab))
    searches = searches_of(shapes, random.Random(1))
    ours = candidates(logits.clone(), searches)
    beside_ruled = candidates(
        torch.cat([logits, logits[:1]]), searches + searches_of([(1, 1)], random.Random(2), min_length=3)
    )
    assert beside_ruled[:-1] == ours
    assert beside_ruled[-1].tokens[0] != EOS
    monkeypatch.setattr(kernels, "can_choose", lambda logits: False)
    for mine, theirs in zip(ours, candidates(logits, searches), strict=True):
        there = [value > -torch.inf for value in theirs.log_probs]
        for name in ("rows", "tokens"):
            kept = [one for one, real in zip(getattr(theirs, name), there, strict=True) if real]
            assert getattr(mine, name) == kept[: len(getattr(mine, name))]
            assert len(kept) == len(getattr(mine, name))
        assert mine.log_probs == pytest.approx([v for v in theirs.log_probs if v > -torch.inf], abs=1e-5)


@pytest.mark.skipif(kernels.library() is None, reason="there is no C++ compiler")
def test_logits_that_went_wrong_end_the_output() -> None:
    (found,) = candidates(torch.full((1, 20), torch.nan), searches_of([(1, 1)], random.Random(1)))
    assert (found.rows, found.tokens) == ([0], [EOS])
