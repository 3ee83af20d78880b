"""The batches of an epoch: nothing lost or twice, within the budget, in an order to be taken up again."""

import tracemalloc
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antiphon.config import TokenizerConfig
from antiphon.data import batches
from antiphon.data import pairs as reading
from antiphon.data.batches import EncodedPairs, Ragged, padding_share
from antiphon.data.pairs import Pair, read_pairs, split_pairs
from antiphon.data.swaps import Swaps
from antiphon.ids import BOS, EOS, PAD
from antiphon.tokenizer import TokenizerPair, train_tokenizers

words = st.lists(st.sampled_from("abc"), min_size=1, max_size=9).map(" ".join)
some_pairs = st.lists(st.builds(Pair, words, words), min_size=1, max_size=40)
budgets = st.integers(1, 60)


@cache
def tokenizers() -> TokenizerPair:
    return train_tokenizers([Pair("a b c d", "a b c d")], TokenizerConfig(source="words", target="words", joint=False))


def encoded(pairs: Sequence[Pair], max_length: int = 100) -> EncodedPairs:
    return EncodedPairs(pairs, tokenizers(), max_length)


def decoded(batch: batches.Batch) -> list[Pair]:
    sides = [(tokenizers().source, batch.source), (tokenizers().target, batch.target_out)]
    return [
        Pair(*texts) for texts in zip(*([side.decode(row) for row in ids.tolist()] for side, ids in sides), strict=True)
    ]


@given(some_pairs, budgets, st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_has_every_pair_once_and_every_batch_within_its_budget(
    pairs: list[Pair], budget: int, seed: int, epoch: int
) -> None:
    found = []
    for batch in encoded(pairs).batches(budget, seed, epoch):
        rows, longest = len(batch.source), max(batch.source.shape[1], batch.target_out.shape[1])
        assert rows == 1 or rows * longest <= budget
        found += decoded(batch)
    assert sorted(found) == sorted(pairs)


@given(some_pairs, budgets)
def test_all_pairs_in_order_are_every_pair_once(pairs: list[Pair], budget: int) -> None:
    data = encoded(pairs)
    indices = np.concatenate(list(data.in_order(budget)))
    assert sorted(indices.tolist()) == list(range(len(pairs)))
    lengths = data.targets.lengths[indices]
    assert (np.diff(lengths) >= 0).all()


@given(some_pairs, budgets, st.integers(0, 9), st.integers(0, 9), st.integers(0, 20))
def test_skipping_goes_on_where_the_epoch_was_left(
    pairs: list[Pair], budget: int, seed: int, epoch: int, skip: int
) -> None:
    whole = [decoded(batch) for batch in encoded(pairs).batches(budget, seed, epoch)]
    rest = [decoded(batch) for batch in encoded(pairs).batches(budget, seed, epoch, skip)]
    assert rest == whole[skip:]


def test_the_order_depends_on_the_seed_and_the_epoch_and_nothing_else() -> None:
    pairs = [Pair("a " * (1 + n % 7), "b " * (1 + n % 5)) for n in range(60)]

    def order(seed: int, epoch: int) -> list[list[int]]:
        np.random.seed(seed * 7 + epoch)
        return [indices.tolist() for indices in encoded(pairs).order(20, seed, epoch)]

    torch.manual_seed(1)
    first = order(1, 0)
    torch.manual_seed(2)
    assert order(1, 0) == first
    assert order(2, 0) != first
    assert order(1, 1) != first


def test_lengths_are_sorted_within_a_pool_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "POOL", 16)
    pairs = [Pair("a " * (1 + n % 7), "b") for n in range(60)]
    found = np.concatenate(list(encoded(pairs).order(20, 1, 0)))
    assert sorted(found.tolist()) == list(range(60))


@given(some_pairs, budgets)
def test_what_goes_in_is_what_comes_out_shifted_by_the_go(pairs: list[Pair], budget: int) -> None:
    for source, target_in, target_out in encoded(pairs).batches(budget, 1, 0):
        assert (target_in[:, 0] == BOS).all()
        for row_in, row_out in zip(target_in.tolist(), target_out.tolist(), strict=True):
            length = row_out.index(EOS)
            assert row_in[1 : length + 1] == row_out[:length]
            assert all(id == PAD for id in row_in[length + 1 :] + row_out[length + 1 :])
            assert EOS not in row_in
            assert PAD not in row_out[:length]
        for row in source.tolist():
            assert all(id == PAD for id in row[row.index(EOS) + 1 :])


@given(some_pairs, st.integers(1, 60), budgets)
def test_parts_of_a_batch_are_its_rows_within_a_smaller_budget(pairs: list[Pair], budget: int, smaller: int) -> None:
    for batch in encoded(pairs).batches(budget, 1, 0):
        parts = batch.parts(smaller)
        for side, whole in enumerate(batch):
            assert torch.equal(torch.cat([part[side] for part in parts]), whole)
        for part in parts:
            rows, longest = len(part.source), max(side.shape[1] for side in part)
            assert rows == 1 or rows * longest <= smaller


def test_a_batch_knows_its_mask_and_its_tokens() -> None:
    batch = encoded([Pair("a b", "c"), Pair("a", "b c a")]).batch(np.array([0, 1]))
    assert batch.source_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.num_target_tokens == 6


def test_empty_and_over_long_pairs_are_left_out_and_counted() -> None:
    pairs = [
        Pair("a", "b"),
        Pair("", "b"),
        Pair("a", "  "),
        Pair("a b c d", "b"),
        Pair("a", "b c a b"),
        Pair("a b c", "a b c"),
    ]
    data = encoded(pairs, max_length=3)
    assert (len(data), data.num_empty, data.num_too_long) == (2, 2, 2)
    assert list(data.pairs) == [pairs[0], pairs[5]]


@pytest.mark.slow
def test_memory_hardly_grows_with_the_number_of_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file to the first batch; a pair that is kept as objects of Python takes many hundred bytes."""
    monkeypatch.setattr(reading, "IN_MEMORY", 1000)

    def peak(count: int) -> int:
        file = tmp_path / f"{count}.tsv"
        file.write_text("".join(f"{'a ' * (n % 5)}c {n}\ta b c\n" for n in range(count)), encoding="utf-8")
        tracemalloc.start()
        try:
            pairs, _ = split_pairs(read_pairs(file), 100)
            data = EncodedPairs(pairs, train_tokenizers(pairs, TokenizerConfig(target="words")), 100)
            assert next(data.batches(1000, 1, 0))
            assert data.fingerprint()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40_000) - peak(20_000) < 100 * 20_000


@given(some_pairs, budgets)
def test_the_share_of_padding_is_what_an_epoch_has(pairs: list[Pair], budget: int) -> None:
    padded = real = 0
    data = encoded(pairs)
    for source, _, target in data.batches(budget, 0, 0):
        padded += source.numel() + target.numel()
        real += int((source != PAD).sum() + (target != PAD).sum())
    assert padding_share(data, budget) == pytest.approx(1 - real / padded)


@given(some_pairs, some_pairs)
def test_the_fingerprint_tells_data_apart(pairs: list[Pair], others: list[Pair]) -> None:
    assert (encoded(pairs).fingerprint() == encoded(others).fingerprint()) == (pairs == others)
    assert encoded(pairs).fingerprint() == encoded(list(pairs)).fingerprint()


def test_the_fingerprint_tells_the_sides_and_the_cuts_apart() -> None:
    variants = [
        [Pair("a", "b"), Pair("a", "b")],
        [Pair("b", "a"), Pair("b", "a")],
        [Pair("a b", "a"), Pair("a", "b")],
        [Pair("a", "a"), Pair("b a", "b")],
        [Pair("a", "b")],
    ]
    assert len({encoded(pairs).fingerprint() for pairs in variants}) == len(variants)


@given(st.lists(st.lists(st.integers(4, 9), max_size=5), min_size=1, max_size=8), st.integers(0, 40))
def test_ragged_lists_come_back_with_their_ends(lists: list[list[int]], unwritten: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "UNWRITTEN", unwritten)
        ragged = Ragged(lists)
    assert [ragged[index] for index in range(len(lists))] == [[*ids, EOS] for ids in lists]
    assert ragged.lengths.tolist() == [len(ids) + 1 for ids in lists]


@given(st.lists(words, min_size=1, max_size=20), st.integers(0, 9), st.floats(0, 1))
def test_pairs_with_swapped_words_are_translated_as_ever(sources: list[str], seed: int, share: float) -> None:
    """A target says every word of its source twice; but a, b and c are pairs by themselves."""
    meaning = dict(zip("abc", "bca", strict=True))

    def translated(source: str) -> str:
        told = source.split()
        return " ".join(meaning[word] for word in (told if len(told) == 1 else told * 2))

    data = encoded([Pair(source, translated(source)) for source in ["a", "b", "c", *sources]])
    swaps = Swaps(data)
    for batch in data.batches(30, 1, 0):
        swapped = swaps.swapped(batch, share, [seed])
        assert all(target == translated(source) for source, target in decoded(swapped))
        shifted = swapped.target_out[:, :-1].masked_fill(swapped.target_out[:, :-1] == EOS, PAD)
        assert torch.equal(swapped.target_in[:, 1:], shifted)
        assert all(map(torch.equal, swapped, swaps.swapped(batch, share, [seed])))


def test_a_word_that_stands_alone_comes_into_other_pairs() -> None:
    """Never more than its share of them, and nothing but the word is changed."""
    data = encoded([Pair("a", "a"), Pair("c", "c"), *[Pair("b a b", "b b a")] * 400])
    batch = data.batch(np.arange(2, 402))
    found = decoded(Swaps(data).swapped(batch, 0.5, [1]))
    assert set(found) == {Pair("b a b", "b b a"), Pair("b c b", "b b c")}
    assert 60 < found.count(Pair("b c b", "b b c")) < 140  # half of them, and every other to itself
    assert decoded(Swaps(data).swapped(batch, 0.0, [1])) == decoded(batch)


def test_a_word_of_two_meanings_is_not_swapped() -> None:
    data = encoded([Pair("a", "a"), Pair("a", "d"), Pair("b", "b"), Pair("c", "c"), Pair("a a", "a a")])
    assert set(Swaps(data).target_of) == {tokenizers().source.encode(word)[0] for word in "bc"}
    with pytest.raises(ValueError, match="1 of its pairs are a token each side"):
        Swaps(encoded([Pair("a", "a"), Pair("b c", "c")]))


@pytest.mark.parametrize("other", [[], [Pair("b", "d")]])
def test_two_words_of_one_meaning_are_not_swapped(other: list[Pair]) -> None:
    """Which of them a target means is not known: "b and a" would become "c and a", and all of its target c."""
    data = encoded([Pair("a", "a"), Pair("b", "a"), *other, Pair("c", "c"), Pair("d", "b"), Pair("b a", "a a")])
    assert set(Swaps(data).target_of) == {tokenizers().source.encode(word)[0] for word in "cd"}
