"""The parts of a model, one at a time; what they do together is in tests/laws."""

import math
from itertools import combinations_with_replacement

import pytest
import torch
import torch.nn.functional as F
from laws.toys import ARCHITECTURES, FAMILIES, float64, random_model, tiny
from torch import nn

from antiphon.config import ModelConfig
from antiphon.ids import PAD
from antiphon.model.attention import HIDDEN, attend, causal_bias, mask_bias
from antiphon.model.copying import KEYS, TOKENS, Copying
from antiphon.model.dropout import Dropout, Noise
from antiphon.model.layers import FeedForward, Memory, TokenEmbedding
from antiphon.model.monotone import MonotoneAttention
from antiphon.model.positions import RelativePositions, RotaryPositions, SinusoidalPositions, rotate
from antiphon.model.recurrent import RecurrentLayer
from antiphon.model.seq2seq import build
from antiphon.model.state import pad_axis


def test_attend_is_the_framework_s_attention() -> None:
    query, keys, values = (torch.randn(2, 3, length, 8, dtype=torch.float64) for length in (4, 5, 5))
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    found, weights = attend(query, keys, values, mask_bias(mask))
    expected = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask[:, None, None, :])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4, dtype=torch.float64))
    assert float(weights[1, :, :, 2:].abs().sum()) == 0


def test_the_causal_bias_hides_what_comes_later_and_nothing_else() -> None:
    bias = causal_bias(4, torch.device("cpu"))
    assert (bias == HIDDEN).tolist() == [[column > row for column in range(4)] for row in range(4)]
    assert (bias[bias != HIDDEN] == 0).all()


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_recurrent_layer_steps_as_the_framework_runs(kind: str) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(kind, 5, 6)
    x = torch.randn(3, 7, 5)
    hidden = tuple(torch.randn(3, 6) for _ in range(2 if kind == "lstm" else 1))
    whole = layer(x, hidden)
    for place in range(7):
        hidden = layer.step(x[:, place], hidden)
        torch.testing.assert_close(hidden[0], whole[:, place])


def test_a_recurrent_encoder_reads_as_the_framework_does_in_both_directions() -> None:
    with float64():
        encoder = random_model("gru>gru-none").encoder
        source = torch.tensor([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0]])
        lengths = torch.tensor([5, 3])
        cells = nn.GRU(16, 8, batch_first=True, bidirectional=True)
        for suffix, layer in (("", encoder.forwards[0]), ("_reverse", encoder.backwards[0])):  # type: ignore[attr-defined]
            for name, weight in layer.cells.named_parameters():
                getattr(cells, name + suffix).data.copy_(weight)
        embedded = encoder.embedding(source)  # type: ignore[attr-defined]
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True)
        expected = nn.utils.rnn.pad_packed_sequence(cells(packed)[0], batch_first=True)[0]
        encoder.forwards, encoder.backwards = encoder.forwards[:1], encoder.backwards[:1]  # type: ignore[attr-defined]
        try:
            found = encoder(source, source != 0)
        finally:
            random_model.cache_clear()
    torch.testing.assert_close(found.values, expected)
    ends = torch.cat([expected[[0, 1], lengths - 1, :8], expected[:, 0, 8:]], dim=1)
    torch.testing.assert_close(found.summary, ends)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    positions = RotaryPositions(8)

    def score(query_place: int, key_place: int) -> float:
        turned = [
            rotate(x, positions.frame(torch.tensor([p]), 1).rotation)
            for x, p in ((query, query_place), (key, key_place))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_relative_buckets_grow_with_distance_and_tell_before_from_after() -> None:
    distances = torch.arange(-300, 301)
    both = RelativePositions(2, causal=False)
    buckets = both._bucket(distances)
    assert buckets.min() == 0
    assert buckets.max() == 31
    before, after = buckets[:300].flip(0), buckets[301:]
    assert (before.diff() >= 0).all()
    assert (after == before + 16).all()
    assert before[:7].tolist() == list(range(1, 8))
    causal = RelativePositions(2, causal=True)._bucket(distances)
    assert (causal[300:] == 0).all()
    assert causal[:300].max() == 31


def test_sinusoidal_positions_are_different_everywhere() -> None:
    waves = SinusoidalPositions(16).embed(torch.zeros(1, 500, 16), torch.arange(500))[0]
    assert float(torch.cdist(waves, waves).add(torch.eye(500) * 9).min()) > 0.1


@pytest.mark.parametrize("width", [1, 7])
def test_positions_of_an_odd_width_are_of_that_width(width: int) -> None:
    assert SinusoidalPositions(width).embed(torch.zeros(1, 3, width), torch.arange(3)).shape == (1, 3, width)


def test_a_gated_feed_forward_layer_multiplies_its_branches() -> None:
    layer = FeedForward(4, 6, "gated")
    x = torch.randn(2, 4)
    gate, value = F.linear(x, layer.inner.weight, layer.inner.bias).split(6, dim=1)
    torch.testing.assert_close(layer(x), layer.outer(F.gelu(gate) * value))


def test_embeddings_have_unit_variance() -> None:
    torch.manual_seed(0)
    assert float(TokenEmbedding(1000, 64)(torch.arange(1000)).detach().std()) == pytest.approx(1, abs=0.02)


def test_padding_goes_to_the_end_of_its_axis() -> None:
    x = torch.ones(2, 3, 4)
    assert pad_axis(x, 1, 5)[:, 3:].abs().sum() == 0
    assert pad_axis(x, 1, 5).shape == (2, 5, 4)
    assert pad_axis(x, 2, 4) is x
    assert pad_axis(torch.ones(1, 2, dtype=torch.bool), 1, 3).tolist() == [[True, True, False]]


# Dropout


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    dropout = Dropout(0.3, Noise(1)).train()
    out = dropout(torch.ones(1000, 100))
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert float(out.mean()) == pytest.approx(1, abs=0.01)


def test_dropout_leaves_something_at_the_most_that_a_setting_may_be() -> None:
    most = ModelConfig(dropout=0.99).dropout
    assert float(Dropout(most, Noise(1)).train()(torch.ones(1000, 100)).mean()) == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="dropout"):
        ModelConfig(dropout=0.999)


def test_dropout_is_nothing_outside_training() -> None:
    x = torch.randn(5, 5)
    assert Dropout(0.5, Noise()).eval()(x) is x
    assert Dropout(0.0, Noise()).train()(x) is x


def test_noise_goes_on_from_where_it_was_stored() -> None:
    noise, other = Noise(3), Noise(4)
    noise.draw(13)
    state = noise.state()
    expected = noise.draw(100)
    other.draw(5)
    other.restore(state)
    assert torch.equal(other.draw(100), expected)


# Building


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_weight_of_every_architecture_learns(name: str) -> None:
    """A weight without a gradient is one that no output depends on."""
    model = random_model(name)
    source, target = torch.tensor([[4, 5, 6, 3], [7, 8, 3, 0]]), torch.tensor([[2, 9, 10, 4], [2, 5, 6, 0]])
    model(source, source != 0, target).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or (float(p.grad.abs().max()) == 0)]
    model.zero_grad()
    assert without == []


def test_the_same_seed_builds_the_same_weights() -> None:
    first, same, other = (dict(build(tiny(), 9, 9, False, seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_tied_embeddings_are_one_tensor() -> None:
    tied = build(tiny(), 9, 9, joint=True)
    assert tied.encoder.embedding is tied.decoder.embedding  # type: ignore[attr-defined]
    assert tied.output is tied.decoder.embedding.weight  # type: ignore[attr-defined]
    apart = build(tiny(tie_embeddings=False), 9, 9, joint=True)
    assert apart.encoder.embedding is not apart.decoder.embedding  # type: ignore[attr-defined]
    assert apart.output is not apart.decoder.embedding.weight  # type: ignore[attr-defined]
    assert apart.num_parameters == tied.num_parameters + 2 * 9 * 16


@pytest.mark.parametrize("name", FAMILIES)
def test_a_target_in_is_not_changed_by_what_comes_after(name: str) -> None:
    model = random_model(name)
    source = torch.tensor([[4, 5, 3]])
    short = model(source, source != 0, torch.tensor([[2, 6]]))
    long = model(source, source != 0, torch.tensor([[2, 6, 7, 8]]))
    torch.testing.assert_close(short, long[:, :2])


def test_dropout_of_all_layers_draws_from_the_model_s_noise() -> None:
    model = build(ModelConfig(d_model=16, d_ff=8, num_heads=2, dropout=0.5), 9, 9, False)
    streams = {id(part.noise) for part in model.modules() if isinstance(part, Dropout)}
    assert streams == {id(model.noise)}


def test_what_is_copied_is_the_same_to_the_bit_beside_others_and_with_padding() -> None:
    """Scores, gate and mixture are sums of a row's own; the layer before them is not meant here."""
    torch.manual_seed(0)
    copying = Copying(48)
    copying.query = nn.Identity()  # type: ignore[assignment]
    for rows, length, vocab in ((1, 3, 97), (5, 21, 97), (4, 40, 61)):
        tokens = torch.randint(4, vocab, (6, length))
        lengths = torch.randint(1, length + 1, (6,))
        tokens[torch.arange(length) >= lengths.unsqueeze(1)] = PAD
        features, keys, logits = (torch.randn(6, n, width) for n, width in ((rows, 48), (length, 48), (rows, vocab)))
        found = copying.mix(logits, features, {KEYS: keys, TOKENS: tokens}, exact=True)
        torch.testing.assert_close(found, copying.mix(logits, features, {KEYS: keys, TOKENS: tokens}))
        torch.testing.assert_close(found.exp().sum(2), torch.ones(6, rows))
        for source, own in enumerate(lengths.tolist()):
            kept = {KEYS: keys[source : source + 1, :own], TOKENS: tokens[source : source + 1, :own]}
            for row in range(rows):
                alone = (part[source : source + 1, row : row + 1].clone() for part in (logits, features))
                assert torch.equal(copying.mix(*alone, kept, exact=True)[0, 0], found[source, row])


@torch.no_grad()
def test_a_text_s_probability_is_the_sum_over_all_places_that_only_move_forward() -> None:
    """Monotone attention, by enumerating every path through the source that never goes back."""
    torch.manual_seed(0)
    attention = MonotoneAttention(8, Dropout(0.0, Noise())).double()
    output = torch.randn(7, 8, dtype=torch.float64)
    values, features = torch.randn(1, 5, 8, dtype=torch.float64), torch.randn(1, 3, 8, dtype=torch.float64)
    mask = torch.tensor([[True] * 4 + [False]])
    memory, target = Memory(values, mask, values[:, 0], torch.ones(1, 5)), [6, 4, 3]

    log_probs = attention(features, memory, torch.tensor([[2, 6, 4]]), lambda x: x @ output.T)

    moves = attention.query(features)[0] @ attention.key(values)[0].T * 8**-0.5
    expected = 0.0
    for path in combinations_with_replacement(range(4), len(target)):
        probability, before = 1.0, 0
        for step, (place, token) in enumerate(zip(path, target, strict=True)):
            ways = [(moves[step, to] + attention.farness[to - before]).item() for to in range(before, 4)]
            probability *= math.exp(ways[place - before]) / sum(map(math.exp, ways))
            seen = torch.tanh(attention.view(features)[0, step] + attention.sight(values)[0, place])
            probability *= float(torch.softmax(output @ seen, dim=0)[token])
            before = place
        expected += probability
    assert float(log_probs[0].gather(1, torch.tensor(target).unsqueeze(1)).sum()) == pytest.approx(math.log(expected))
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(1, 3, dtype=torch.float64))


def test_a_token_that_is_impossible_at_every_place_leaves_what_follows_a_number() -> None:
    """Monotone attention, in float32, with probabilities that are 0 and 1."""
    torch.manual_seed(0)
    attention = MonotoneAttention(8, Dropout(0.0, Noise()))
    output = (1e4 * torch.randn(7, 8)).requires_grad_()
    values, features = torch.randn(2, 5, 8), torch.randn(2, 20, 8)
    memory = Memory(values, torch.ones(2, 5, dtype=torch.bool), values[:, 0], torch.ones(2, 5))
    log_probs = attention(features, memory, torch.randint(3, 7, (2, 20)), lambda x: x @ output.T)
    log_probs.sum().backward()  # type: ignore[no-untyped-call]
    assert (log_probs.exp() == 0).any() or (log_probs < -80).any()
    gradients = [output.grad, *(parameter.grad for parameter in attention.parameters())]
    assert all(part is not None and part.isfinite().all() for part in (log_probs, *gradients))
