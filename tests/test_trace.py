"""A trace: it shows the decode that users get; its tree is the search's, its numbers the model's, and it is JSON."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest
import torch
from laws.toys import FAMILIES, LETTERS, facts, word_model

from antiphon.config import Config
from antiphon.data.pairs import Pair
from antiphon.model.packed import pack, works
from antiphon.run import Model
from antiphon.tokenizer import train_tokenizers
from antiphon.trace import Node, Trace, project, trace

TEXT = "a b c d"
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam 4": {"beam_size": 4, "n_best": 3},
    "beam, all ends equal": {"beam_size": 4, "n_best": 4, "length_penalty": 0.0},
    "sampling": {"sample": True, "n_best": 3, "seed": 5},
    "prefix": {"prefix": "g f", "beam_size": 2, "n_best": 2},
    "rules": {"beam_size": 3, "no_repeat_ngram": 1, "min_length": 3, "max_length": 5},
}
every_family = pytest.mark.parametrize("name", FAMILIES)
every_search = pytest.mark.parametrize("search", SEARCHES)


@cache
def model_of(name: str) -> Model:
    return word_model(name)


@cache
def traced(name: str, search: str) -> Trace:
    return trace(model_of(name), TEXT, target="c b a", **SEARCHES[search])


def ancestors(nodes: list[Node], node: Node) -> list[Node]:
    """From the root down to the node."""
    way = [node]
    while (parent := way[0].parent) is not None:
        way.insert(0, nodes[parent])
    return way


def assert_shows(found: Trace, model: Model, text: str, **settings: Any) -> None:
    [outputs] = model.outputs([text], **settings)
    shown = [finished for finished in found.outputs if finished.returned]
    assert [finished.text for finished in shown] == [output.text for output in outputs]
    for finished, output in zip(shown, outputs, strict=True):
        assert finished.pieces == output.tokens
        assert finished.ended == output.finished
        assert finished.score == pytest.approx(output.score, abs=1e-4)
        assert finished.token_scores == pytest.approx(output.token_scores, abs=1e-4)


@every_family
@every_search
def test_a_trace_shows_the_decode_that_users_get(name: str, search: str) -> None:
    assert_shows(traced(name, search), model_of(name), TEXT, **SEARCHES[search])


@every_family
@every_search
def test_a_trace_is_json_and_finite(name: str, search: str) -> None:
    found = traced(name, search)
    assert json.loads(json.dumps(asdict(found), allow_nan=False)) == asdict(found)


@every_family
@every_search
def test_the_tree_is_one_and_scores_add_up(name: str, search: str) -> None:
    nodes = traced(name, search).nodes
    assert [node.id for node in nodes] == list(range(len(nodes)))
    assert (nodes[0].parent, nodes[0].piece, nodes[0].score, nodes[0].fate) == (None, "GO", 0.0, "kept")
    for node in nodes[1:]:
        assert node.parent is not None
        parent = nodes[node.parent]
        assert parent.id < node.id
        assert parent.step == node.step - 1
        assert node.log_prob <= 0
        assert node.score == pytest.approx(parent.score + node.log_prob, abs=1e-5)
    assert len({(node.parent, node.token) for node in nodes}) == len(nodes)


@every_family
@every_search
def test_fates_follow_the_search(name: str, search: str) -> None:
    nodes = traced(name, search).nodes
    fates: dict[int, list[str]] = {node.id: [] for node in nodes}
    for node in nodes[1:]:
        fates[node.parent or 0].append(node.fate)
    lived = {node.parent for node in nodes if node.fate != "pruned" or node.pruned_at != node.step}
    for node in nodes:
        if node.fate == "kept":
            assert node.id in lived
        elif node.fate == "finished":
            assert fates[node.id] == []
        else:
            assert node.id not in lived
            assert node.pruned_at in (node.step, node.step + 1)
        assert (node.pruned_at is None) == (node.fate != "pruned")
    beam = SEARCHES[search].get("beam_size", SEARCHES[search].get("n_best", 1))
    placed = [node.step for node in nodes[1:] if node.pruned_at != node.step]
    assert all(placed.count(step) <= beam for step in placed)


@every_family
def test_all_candidates_of_a_beam_are_nodes_also_where_outputs_took_its_places(name: str) -> None:
    found = trace(model_of(name), "g", alternatives=1, beam_size=6, n_best=6)
    steps = [node.step for node in found.nodes]
    assert all(steps.count(step) >= 6 for step in range(1, max(steps) + 1))
    assert len({found.nodes[end.node].step for end in found.outputs}) > 1  # they did not end together


@every_family
@every_search
def test_every_output_is_a_way_through_the_tree(name: str, search: str) -> None:
    found = traced(name, search)
    assert {node.id for node in found.nodes if node.fate == "finished"} == {end.node for end in found.outputs}
    for end in found.outputs:
        way = ancestors(found.nodes, found.nodes[end.node])[1:]
        assert [node.piece for node in way] == [*end.pieces, *["EOS"] * end.ended]
        assert [node.log_prob for node in way] == end.token_scores
        assert way[-1].score == end.score == pytest.approx(sum(end.token_scores), abs=1e-4)
        length = len(way) ** found.settings["length_penalty"]
        assert end.normalized == pytest.approx(end.score / length, abs=1e-5)


@every_family
@every_search
def test_the_path_is_that_of_the_best_output(name: str, search: str) -> None:
    found = traced(name, search)
    way = ancestors(found.nodes, found.nodes[found.outputs[0].node])
    assert [step.node for step in found.path] == [node.id for node in way[1:]]
    assert [step.input for step in found.path] == [node.piece for node in way[:-1]]
    for step in found.path:
        assert step.probability == pytest.approx(math.exp(found.nodes[step.node].log_prob), abs=1e-5)
        assert 0 <= step.entropy <= math.log(model_of(name).tokenizers.target.vocab_size) + 1e-6


@every_family
@every_search
def test_alternatives_are_the_most_probable_others(name: str, search: str) -> None:
    found = traced(name, search)
    for step in found.path:
        probabilities = [other.probability for other in step.alternatives]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(probabilities) == 8
        assert sum(probabilities) + step.probability <= 1 + 1e-5
        assert step.token not in {other.token for other in step.alternatives}
        for other in step.alternatives:
            if other.node is None:
                continue
            node = found.nodes[other.node]
            assert (node.token, node.parent) == (other.token, found.nodes[step.node].parent)
            assert other.probability == pytest.approx(math.exp(node.log_prob), abs=1e-5)
        assert {other.piece for other in step.alternatives if other.node is None} >= {
            other.piece for other in step.alternatives if other.piece in ("PAD", "UNK", "GO")
        }


def test_all_alternatives_make_the_whole_distribution() -> None:
    model = model_of(FAMILIES[0])
    for step in trace(model, TEXT, alternatives=1000).path:
        others = [other.probability for other in step.alternatives]
        assert len(others) == model.tokenizers.target.vocab_size - 1
        assert sum(others) + step.probability == pytest.approx(1, abs=1e-5)
        expected = -sum(p * math.log(p) for p in [*others, step.probability] if p)
        assert step.entropy == pytest.approx(expected, abs=1e-3)
    assert all(len(step.alternatives) == 1 for step in trace(model, TEXT, alternatives=1).path)


def test_what_a_rule_forbids_has_no_node() -> None:
    found = trace(model_of(FAMILIES[0]), TEXT, prefix="g", min_length=3, max_length=5, alternatives=1000)
    assert all(other.node is None for other in found.path[0].alternatives)
    assert found.path[0].piece == "g"
    [end] = [other for other in found.path[1].alternatives if other.piece == "EOS"]
    assert end.node is None
    assert any(other.node is not None for other in found.path[1].alternatives)


@every_family
def test_attention_has_a_weight_for_each_layer_head_and_source_token(name: str) -> None:
    found = traced(name, "beam 4")
    recurrent = found.architecture.decoder in ("gru", "lstm")
    layers, heads = (1, 1) if recurrent else (2, 2)
    for step in found.path:
        if found.architecture.attention == "none":
            assert step.attention == []
            continue
        assert [len(layer) for layer in step.attention] == [heads] * layers
        for row in (row for layer in step.attention for row in layer):
            assert len(row) == len(found.source.tokens)
            assert min(row) >= 0
            assert sum(row) == pytest.approx(1, abs=1e-4)


@every_family
def test_the_source_is_shown_as_the_decoder_sees_it(name: str) -> None:
    model, found = model_of(name), traced(name, "greedy")
    source, memory = found.source, model.network.encode([found.source.tokens])
    assert source.pieces == ["a", "b", "c", "d", "EOS"]
    assert source.tokens == model.source_ids(TEXT)
    torch.testing.assert_close(torch.tensor(source.vectors), memory.values[0].float(), atol=1e-5, rtol=0)
    assert source.norms == pytest.approx([math.hypot(*vector) for vector in source.vectors], abs=1e-4)
    assert [len(place) for place in source.projection] == [2] * 5
    recurrent = found.architecture.decoder in ("gru", "lstm")
    assert (source.summary is not None) == (source.summary_norm is not None) == recurrent
    if source.summary is not None:
        torch.testing.assert_close(torch.tensor(source.summary), memory.summary[0].float(), atol=1e-5, rtol=0)
    assert found.architecture.attention == ("multi-head" if not recurrent else model.config.model.attention)
    is_read = found.architecture.encoder in ("gru", "lstm")
    assert found.architecture.bidirectional == (is_read and model.config.model.bidirectional)


def test_the_projection_keeps_distances_in_a_plane() -> None:
    plane = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(7, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    places, variance = project(plane @ axes.T + 3)
    torch.testing.assert_close(torch.cdist(places, places), torch.cdist(plane, plane))
    assert variance.sum() == pytest.approx(1)
    assert variance[0] >= variance[1]
    torch.testing.assert_close(project(plane @ axes.T - 5)[0], places)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_axis_points_to_where_its_largest_element_is_positive(sign: float) -> None:
    along = torch.tensor([0.0, 3.0, -1.0, 2.0], dtype=torch.float64)
    places, variance = project(along.unsqueeze(1) * torch.tensor([-0.1, sign, 0.2], dtype=torch.float64))
    assert torch.equal(places[:, 0].sign(), sign * (along - 1).sign())
    torch.testing.assert_close(variance, torch.tensor([1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("vectors", [torch.ones(1, 4), torch.ones(5, 4), torch.full((3, 2), 0.1), torch.zeros(2, 2)])
def test_equal_vectors_lie_in_one_place(vectors: torch.Tensor) -> None:
    places, variance = project(vectors.double())
    assert places.shape == (len(vectors), 2)
    torch.testing.assert_close(places, torch.zeros_like(places))
    assert variance.shape == (2,)
    assert variance.isfinite().all()


@every_family
@pytest.mark.parametrize("target", ["c b a", "", "q"])
def test_a_target_is_scored_as_by_the_model(name: str, target: str) -> None:
    model = model_of(name)
    found = trace(model, TEXT, target=target).target
    assert found is not None
    [score] = model.score([(TEXT, target)])
    assert found.loss == pytest.approx(-score, abs=1e-4)
    assert found.loss == pytest.approx(sum(token.loss for token in found.tokens), abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(found.loss / len(found.tokens)), rel=1e-4)
    pieces = [token.piece for token in found.tokens]
    assert pieces == [*("UNK" if word == "q" else word for word in target.split()), "EOS"]
    assert [token.input for token in found.tokens] == ["GO", *pieces[:-1]]
    for token in found.tokens:
        assert token.probability == pytest.approx(math.exp(-token.loss), abs=1e-5)
        assert token.best_probability >= token.probability
        assert (token.best_piece == token.piece) == (token.best_probability == token.probability)


@every_family
def test_an_output_as_target_has_the_probabilities_of_the_path(name: str) -> None:
    found = traced(name, "greedy")
    again = trace(model_of(name), TEXT, target=found.outputs[0].text).target
    assert again is not None
    forced = [token.probability for token in again.tokens][: len(found.path)]  # an output that was cut has no EOS
    assert forced == pytest.approx([step.probability for step in found.path], abs=1e-4)


def test_without_a_target_there_is_none() -> None:
    assert trace(model_of(FAMILIES[0]), TEXT).target is None


def test_one_token_is_enough() -> None:
    found = trace(model_of(FAMILIES[0]), "q")
    assert found.source.pieces == ["UNK", "EOS"]
    assert len(found.source.projection) == 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"alternatives": 0}, "alternatives is 0"),
        ({"text": " \n"}, "text: it is blank"),
        ({"text": "a " * 300}, "text: at most 256 tokens, found 300"),
        ({"target": "a " * 300}, "target: at most 256 tokens, found 300"),
        ({"prefix": "a " * 300}, "prefix: at most 256 tokens, found 300"),
        ({"beam_sise": 3}, "did you mean 'beam_size'"),
        ({"n_best": 2}, "n_best"),
        ({"text": "\ud800"}, "surrogate"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=rf"{told}.*\.$"):
        trace(model_of(FAMILIES[0]), **({"text": TEXT} | settings))


def test_a_prefix_that_the_model_cannot_say_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^prefix: the model does not know all of 'q', and cannot say it; change it\.$"
    ):
        trace(model_of(FAMILIES[0]), TEXT, prefix="q")


def test_broken_weights_are_told() -> None:
    model = new_model()
    with torch.no_grad():
        model.network.output.fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        trace(model, TEXT)


def new_model(**settings: Any) -> Model:
    """One of float32, wide enough for int8, with 60 words."""
    words = " ".join([LETTERS, *(f"w{number}" for number in range(60))])
    shape = {"d_model": 64, "d_ff": 64, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    tokenizer = {"source": "words", "target": "words", "joint": True}
    config = Config.model_validate({"tokenizer": tokenizer, "model": shape | settings})
    model = Model.new(config, train_tokenizers([Pair(words, words)], config.tokenizer), facts())
    model.network.eval()
    return model


@pytest.mark.parametrize("decoder", ["transformer", "ssru", "gru"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_several_threads_trace_and_decode_with_the_same_weights(decoder: str, precision: str) -> None:
    model = new_model(decoder=decoder)
    if precision == "int8":
        if not works():
            pytest.skip("this processor or build of torch has no int8 operators")
        pack(model.network)
        model.precision = "int8"
    before = [parameter.clone() for parameter in model.network.parameters()]
    settings: dict[str, Any] = {"beam_size": 3, "n_best": 2, "max_length": 12}
    alone = trace(model, TEXT, target="a w3", **settings)
    assert_shows(alone, model, TEXT, attention=True, **settings)
    [score] = model.score([(TEXT, "a w3")])
    assert alone.target is not None
    assert alone.target.loss == pytest.approx(-score, abs=1e-4)
    outputs = model.outputs([TEXT], **settings)
    with ThreadPoolExecutor(4) as pool:
        traces = [pool.submit(trace, model, TEXT, target="a w3", **settings) for _ in range(4)]
        decodes = [pool.submit(model.outputs, [TEXT], **settings) for _ in range(4)]
    assert all(found.result() == alone for found in traces)
    assert all(found.result() == outputs for found in decodes)
    assert all(map(torch.equal, before, model.network.parameters()))
