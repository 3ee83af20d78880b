"""Packed layers and kernels: equal to the plain formula within their precision, and to themselves among neighbours."""

import gc
import random
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from laws.toys import facts, random_source
from torch import Tensor

from antiphon import kernels
from antiphon.config import GenerationConfig, ModelConfig, load_config
from antiphon.data.pairs import Pair
from antiphon.decoding.active import ActiveBatch
from antiphon.decoding.generate import decode
from antiphon.decoding.search import make_search
from antiphon.model import packed
from antiphon.model.int8 import Int8FeedForward, Int8Linear
from antiphon.model.packed import pack
from antiphon.model.seq2seq import Seq2Seq, build
from antiphon.model.slots import BLOCK, FEWEST, KeyValues, Slots
from antiphon.model.stack import PackedDecoder, PackedEncoder
from antiphon.run import WEIGHTS, Model
from antiphon.tokenizer import train_tokenizers

VOCAB = 97
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "sinusoidal": {"positions": "sinusoidal"},
    "rotary": {"positions": "rotary"},
    "relative": {"positions": "relative"},
    "gated, wide heads": {"feed_forward": "gated", "num_heads": 1},
    "ssru": {"decoder": "ssru"},
    "recurrent": {"encoder": "gru", "decoder": "lstm"},
    "recurrent decoder": {"decoder": "gru", "attention": "dot", "input_feeding": False},
    "copying": {"copying": True},
    "recurrent, monotone": {"encoder": "lstm", "decoder": "lstm", "attention": "monotone"},
    "recurrent, copying": {"encoder": "gru", "decoder": "lstm", "copying": True},
}
needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="there is no C++ compiler")
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def network(name: str, precision: str = "int8") -> Seq2Seq:
    """Two layers, 64 wide, all weights random."""
    shape = {"d_model": 64, "d_ff": 128, "num_heads": 2, "encoder_layers": 2, "decoder_layers": 2}
    model = build(ModelConfig.model_validate(shape | ARCHITECTURES[name]), VOCAB, VOCAB, joint=True)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.eval()
    if precision == "int8":
        if not packed.works():
            pytest.skip("int8 products are not exact enough on this processor")
        pack(model)
    return model


def sources(count: int, seed: int = 1) -> list[tuple[int, ...]]:
    dice = random.Random(seed)
    return [random_source(dice, 12, VOCAB) for _ in range(count)]


def found(model: Seq2Seq, asked: list[tuple[int, ...]], beam_size: int, workers: int = 1) -> list[Any]:
    settings = GenerationConfig(beam_size=beam_size, n_best=beam_size)
    return decode(model, asked, [make_search(settings, 20) for _ in asked], workers=workers)


@torch.inference_mode()
def stepped(model: Seq2Seq, asked: list[tuple[int, ...]], tokens: list[int]) -> Tensor:
    """(steps, N, V): the logits of all sources when each is made to say `tokens`."""
    state = model.start(asked)
    return torch.stack([model.step(state, [token] * len(asked)) for token in tokens])


@every_architecture
def test_a_packed_network_is_the_plain_one_within_its_precision(name: str) -> None:
    asked, tokens = sources(7), [2, 9, 50, 11, 4]
    plain, other = (stepped(network(name, kind), asked, tokens) for kind in ("float32", "int8"))
    assert (other - plain).norm() < 0.06 * plain.norm()
    assert not torch.equal(other, plain)


@every_architecture
@pytest.mark.parametrize("beam_size", [1, 4])
def test_outputs_are_the_same_to_the_bit_alone_and_among_neighbours(name: str, beam_size: int) -> None:
    model = network(name)
    asked = sources(30)
    together = found(model, asked, beam_size)
    if name.startswith("recurrent"):  # attention there is a product of whole matrices, which round by their shape
        for ours, theirs in zip(together, (found(model, [one], beam_size)[0] for one in asked), strict=True):
            assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=2e-2)
    else:
        assert together == [found(model, [one], beam_size)[0] for one in asked]
        assert together == found(model, asked, beam_size, workers=3)


needs_products = pytest.mark.skipif(not kernels.most_rows(), reason="the processor has no VNNI")
in_one_call = pytest.mark.parametrize("name", ["sinusoidal", "rotary", "relative", "gated, wide heads", "ssru"])


def layer_by_layer(model: Seq2Seq) -> Seq2Seq:
    """Its packed layers one by one: the slow path."""
    assert isinstance(model.decoder, PackedDecoder)
    assert isinstance(model.encoder, PackedEncoder)
    model.encoder.most_rows = model.decoder.most_rows = 0
    return model


@needs_products
@in_one_call
def test_a_step_in_one_call_is_its_layers_one_by_one_to_the_bit(name: str) -> None:
    asked, tokens = sources(7), [2, 9, 50, 11, 4] * 40  # longer than the table of positions that is made first
    assert torch.equal(stepped(network(name), asked, tokens), stepped(layer_by_layer(network(name)), asked, tokens))


@needs_products
@in_one_call
@torch.inference_mode()
def test_an_encoder_in_one_call_is_its_layers_one_by_one_to_the_bit(name: str) -> None:
    asked, other = [*sources(5), (*([9] * 140), 3)], layer_by_layer(network(name))
    ours, theirs = network(name).encode(asked), other.encode(asked)
    assert torch.equal(ours.values[ours.mask], theirs.values[theirs.mask])
    torch.testing.assert_close(ours.summary, theirs.summary)


@needs_products
@in_one_call
def test_few_rows_in_one_call_and_more_by_torch_s_operators_are_the_same_to_the_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sources(20)
    every = found(network(name), asked, 4)
    monkeypatch.setattr(kernels, "most_rows", lambda: 16)  # as where there is AMX
    mixed = network(name)
    assert found(mixed, asked, 4) == every
    assert [found(mixed, [one], 4)[0] for one in asked] == every


@needs_kernels
def test_requests_of_any_width_that_join_and_leave_are_the_same_to_the_bit_alone() -> None:
    model = network("rotary")
    dice = random.Random(4)
    waiting = sources(40, seed=5)
    batch, asked, results = ActiveBatch(model), {}, {}
    while waiting or batch.searches:
        for _ in range(min(dice.randrange(4), len(waiting))):
            settings = GenerationConfig(beam_size=dice.choice((1, 2, 5)))
            search = make_search(settings, dice.randint(1, 25))
            asked[id(search)] = (waiting.pop(), search, settings)
            batch.add([asked[id(search)][0]], [search])
        if batch.searches and dice.random() < 0.1:
            gone = dice.choice(batch.searches)
            batch.drop(gone)
            del asked[id(gone)]
        if batch.searches:
            results |= {id(search): search.results() for search in batch.step()}
    assert len(asked) > 20
    for key, (source, search, settings) in asked.items():
        assert results[key] == decode(model, [source], [make_search(settings, search.max_length)])[0]


@needs_kernels
@torch.inference_mode()
def test_a_loud_neighbour_changes_nothing() -> None:
    layer = Int8Linear(torch.randn(80, 64), torch.randn(80))
    x = torch.randn(9, 64)
    quiet = layer(x)
    x[4] *= 1e4
    assert torch.equal(layer(x)[:4], quiet[:4])
    assert torch.equal(layer(x)[5:], quiet[5:])


@torch.inference_mode()
def test_rows_that_do_not_lie_one_after_the_other_are_read_as_they_are() -> None:
    layer, x = Int8Linear(torch.randn(80, 64), None), torch.randn(9, 3, 64)
    assert torch.equal(layer(x[:, 1]), layer(x[:, 1].contiguous()))
    assert torch.equal(layer(x.transpose(0, 1))[1], layer(x[:, 1].contiguous()))


@needs_kernels
@pytest.mark.parametrize("rows", [1, 5, 6, 7, 40])
@pytest.mark.parametrize("shape", [(64, 64), (200, 72), (65, 260)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_kernels_are_torch_s_operators(
    rows: int, shape: tuple[int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, x = (torch.randn(size, generator=generator) for size in (shape, (rows, shape[1])))
    x[0] = 0
    offset = torch.randn(shape[0], generator=generator) if bias else None
    with_kernels = Int8Linear(weight, offset)(x)
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setattr(kernels, "most_rows", lambda: 0)
    plain = Int8Linear(weight, offset)
    torch.testing.assert_close(with_kernels, plain(x), rtol=1e-5, atol=1e-5)
    if packed.works():
        exact = F.linear(x, weight, offset)
        assert (plain(x) - exact).norm() <= 0.02 * exact.norm()


@needs_products
@pytest.mark.parametrize("rows", [3, 9, 200])
def test_products_by_the_kernel_and_by_torch_s_operator_are_the_same_to_the_bit(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, outer, x = torch.randn(136, 64), torch.randn(64, 136), torch.randn(rows, 64)
    biases = torch.randn(136), torch.randn(64)
    layers = []
    for most in (sys.maxsize, 4):  # all by the kernel; few by it, as where there is AMX
        monkeypatch.setattr(kernels, "most_rows", lambda most=most: most)
        layers.append(Int8FeedForward(Int8Linear(inner, biases[0]), Int8Linear(outer, biases[1])))
    assert torch.equal(layers[0](x), layers[1](x))
    assert torch.equal(layers[0].inner(x), layers[1].inner(x))
    torch.testing.assert_close(layers[0](x), layers[0].outer(F.gelu(layers[0].inner(x))), rtol=0, atol=1.0)


@needs_kernels
def test_gelu_and_scaling_are_torch_s() -> None:
    sums, scales, bias = 3 * torch.randn(5, 70), torch.rand(5) + 0.1, torch.randn(70)
    expected = F.gelu(sums * scales.unsqueeze(1) + bias)
    bits, new = kernels.gelu_quantize_rows(sums.clone(), scales, bias)
    torch.testing.assert_close((bits.float() - 128) * new.unsqueeze(1), expected, rtol=0, atol=float(new.max()))
    kernels.scale_rows(sums, scales, None)
    bits, new = kernels.quantize_rows(sums)
    torch.testing.assert_close((bits.float() - 128) * new.unsqueeze(1), sums, rtol=0, atol=float(new.max()))


@needs_kernels
def test_keys_and_values_never_move_when_beams_are_reordered() -> None:
    model = network("rotary")
    with torch.inference_mode():
        state = model.start(sources(3)).select([0, 0, 0, 1, 2, 2])
        model.step(state, [2] * 6)
        assert isinstance(state.slots, KeyValues)
        past = state.slots.past
        slots, paths = torch.tensor(past.held), past.paths[:, 0].tolist()
        before = past.slots.cache[:, slots, :1].clone()
        state.select([2, 1, 1, 3, 5, 4])
        assert torch.equal(past.slots.cache[:, slots, :1], before)
        assert past.paths[:, 0].tolist() == [paths[row] for row in (2, 1, 1, 3, 5, 4)]


def test_growing_copies_what_is_taken_and_never_touches_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *shape: self.new_full(shape, -1))
    slots = Slots(2, 1, 8)
    slots.reserve(FEWEST, 1)
    held = slots.take(FEWEST)
    slots.free += [held.pop(place) for place in (4, 3, 0)]
    slots.cache[:] = torch.arange(slots.cache.shape[1]).view(-1, 1, 1, 1)
    slots.reserve(4, BLOCK + 1)
    assert slots.cache.shape[1:3] == (2 * FEWEST, 2 * BLOCK)
    assert all((slots.cache[:, slot, :BLOCK] == slot).all() for slot in held)
    assert (slots.cache[:, slots.free] == -1).all()
    assert (slots.cache[:, :, BLOCK:] == -1).all()


def test_what_was_written_for_others_is_found_after_growing_and_joining() -> None:
    model = network("sinusoidal")
    asked = [(*([9] * 150), 3), (8, 3)]
    long = found(model, asked, 1)
    settings = GenerationConfig()
    searches = [make_search(settings, 20) for _ in asked]
    batch = ActiveBatch(model)
    batch.add(asked[1:], searches[1:])
    batch.step()
    batch.add(asked[:1], searches[:1])
    while batch.searches:
        batch.step()
    assert [search.results() for search in searches] == long


@needs_kernels
@torch.inference_mode()
def test_attention_weights_do_not_see_what_was_never_written() -> None:
    model, asked = network("rotary"), [(*([9] * 40), 3), (8, 3)]
    for beam_size in (1, 3):
        batch = ActiveBatch(model, keep_attention=True)
        searches = [make_search(GenerationConfig(beam_size=beam_size), 6) for _ in asked]
        for source, search in zip(reversed(asked), reversed(searches), strict=True):
            batch.add([source], [search])
        batch._state.slots.memory.slots.cache[:, batch._state.slots.memory.places[0], 2:] = torch.nan
        while batch.searches:
            batch.step()
        for source, search in zip(asked, searches, strict=True):
            best = search.results()[0]
            plain = decode(model, [source], [make_search(GenerationConfig(beam_size=beam_size), 6)])[0][0]
            assert best.score == pytest.approx(plain.score, abs=0.05)
            assert all(
                float(weights[..., : len(source)].sum()) == pytest.approx(4, abs=1e-3) for weights in best.attention
            )


@needs_kernels
def test_norms_gates_recurrences_and_embeddings_are_torch_s() -> None:
    x, norm = 3 * torch.randn(5, 70), torch.nn.LayerNorm(70)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    torch.testing.assert_close(kernels.normalize_rows(x, norm.weight, norm.bias, norm.eps), norm(x))
    gate, through = x.chunk(2, dim=-1)
    torch.testing.assert_close(kernels.gate_rows(x), F.gelu(gate) * through, rtol=0, atol=1e-3)
    cells = torch.randn(5, 35)
    expected = torch.lerp(gate, cells, torch.sigmoid(through))
    torch.testing.assert_close(kernels.recur_rows(x, cells), torch.relu(expected))
    torch.testing.assert_close(cells, expected)
    tokens, positions = torch.tensor([3, 0, 4]), torch.tensor([1, 1, 0])
    waves = torch.randn(2, 70)
    assert torch.equal(kernels.embed_rows(x, 7.1, waves, tokens, positions), x[tokens] * 7.1 + waves[positions])


MAPS = Path("/proc/self/maps")


@needs_kernels
@pytest.mark.skipif(not MAPS.exists(), reason="this system does not tell what memory is a file's")
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_loaded_model_does_not_live_in_its_file(
    precision: Literal["float32", "int8"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = " ".join(f"w{number}" for number in range(VOCAB))
    config = load_config("tiny", None, ["model.d_model=64", "tokenizer.source=words", "tokenizer.target=words"])
    Model.new(config, train_tokenizers([Pair(words, words)], config.tokenizer), facts()).save(tmp_path)
    monkeypatch.setattr(packed, "works", lambda: True)
    monkeypatch.setattr(kernels, "most_rows", lambda: sys.maxsize)  # all in one call, which is not made
    model = Model.load(tmp_path, precision=precision)
    gc.collect()
    assert str(tmp_path / WEIGHTS) not in MAPS.read_text()
    if precision == "int8":
        for part in (model.network.encoder, model.network.decoder):
            assert isinstance(part, PackedEncoder | PackedDecoder)
            assert part.stack.embedding == part.plain.embedding.weight.data_ptr()
            assert part.stack.norm.bias == part.plain.norm.bias.data_ptr()


def test_what_int8_gains_is_timed_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "works", lambda: True)
    threads: list[int] = []
    monkeypatch.setattr(packed, "_seconds", lambda work: threads.append(torch.get_num_threads()) or 1.0)
    torch.set_num_threads(2)
    try:
        assert packed.gain(network("rotary", "float32")) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert threads == [1, 1]


def test_narrow_networks_stay_as_they_are() -> None:
    narrow = build(ModelConfig(d_model=32, d_ff=32, num_heads=2), 40, 40, joint=True)
    assert packed.gain(narrow) == 0
    with pytest.raises(ValueError, match="at least 64 wide"):
        pack(narrow)


def test_where_the_operators_are_missing_int8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "works", lambda: False)
    model = network("rotary", "float32")
    assert packed.gain(model) == 0
    with pytest.raises(ValueError, match="precision 'int8' cannot be had here"):
        pack(model)
