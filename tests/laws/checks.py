"""The laws as functions that raise AssertionError, called by the tests and by the breaks made on purpose."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import torch
from laws.toys import VOCAB, forced_log_probs, forced_logits, random_source
from torch import Tensor

from antiphon.config import GenerationConfig
from antiphon.decoding.active import ActiveBatch
from antiphon.decoding.generate import decode
from antiphon.decoding.search import Hypothesis, make_search
from antiphon.ids import BOS, EOS
from antiphon.model.seq2seq import Seq2Seq
from antiphon.model.state import DecodeState


def assert_close(found: Tensor, expected: Tensor, what: str) -> None:
    assert found.shape == expected.shape, f"{what}: {list(found.shape)}, expected {list(expected.shape)}"
    worst = float((found - expected).abs().max()) if found.numel() else 0.0
    assert worst < 1e-10, f"{what}: differ by {worst}"


def assert_same(found: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> None:
    """The same outputs, scores and attention weights, in the same order."""
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    for one, other in zip(found, expected, strict=True):
        assert_close(torch.tensor(one.log_probs), torch.tensor(other.log_probs), "log-probabilities")
        assert abs(one.score - other.score) < 1e-9
        assert len(one.attention) == len(other.attention)
        for weights, wanted in zip(one.attention, other.attention, strict=True):
            assert isinstance(weights, Tensor)
            assert isinstance(wanted, Tensor)
            assert_close(weights, wanted, "attention weights")


@torch.inference_mode()
def check_stepping(model: Seq2Seq, source: Sequence[int], target: Sequence[int]) -> None:
    """Law 1: stepping through a target gives the logits of forward."""
    expected = forced_logits(model, source, target)
    state = model.start([source])
    for place, token in enumerate((BOS, *target)):
        assert_close(model.step(state, [token])[0], expected[place], f"logits at {place}")


@torch.inference_mode()
def check_padding(model: Seq2Seq, sources: Sequence[Sequence[int]], target: Sequence[int]) -> None:
    """Law 2, the logits: a source alone = the same source in a padded batch."""
    memory = model.encode(sources)
    logits = model.predict(memory, torch.tensor([[BOS, *target]] * len(sources)))
    for row, source in enumerate(sources):
        alone = model.encode([source])
        assert_close(memory.values[row, : len(source)], alone.values[0], "memory")
        assert_close(memory.summary[row], alone.summary[0], "summary")
        assert_close(logits[row], forced_logits(model, source, target), "logits")


def check_batches(model: Any, sources: Sequence[Sequence[int]], beam_size: int, attention: bool = True) -> None:
    """Law 2, the outputs: a source decoded alone = decoded among others."""
    settings = GenerationConfig(beam_size=beam_size, n_best=beam_size)
    together = decode(model, sources, [make_search(settings, 10) for _ in sources], attention)
    for source, found in zip(sources, together, strict=True):
        assert_same(found, decode(model, [source], [make_search(settings, 10)], attention)[0])


@torch.inference_mode()
def check_rows(model: Seq2Seq, seed: int, moves: int = 30) -> None:
    """Laws 3 and 4, the states: whatever is started, stepped, selected and joined, each row gives the logits
    that `forward` gives for its source and its tokens, alone; and its attention stays within its source."""
    dice = random.Random(seed)
    states: list[tuple[DecodeState, list[tuple[tuple[int, ...], tuple[int, ...]]]]] = []
    seen: list[tuple[tuple[int, ...], tuple[int, ...], Tensor]] = []
    first = ("start", "step", "start", "join", "select", "select")
    for number in range(moves):
        move = (
            first[number] if number < len(first) else dice.choice(("start", "step", "step", "select", "join", "join"))
        )
        if move == "start" or not states:
            sources = [random_source(dice) for _ in range(dice.randint(2, 3))]
            state = model.start(sources)
            state.keep_attention = True
            states.append((state, [(source, ()) for source in sources]))
            continue
        state, rows = states.pop(dice.randrange(len(states)))
        if move == "join" and states:
            other, more = states.pop(dice.randrange(len(states)))
            state, rows = state.join([other]), rows + more
        elif move == "select":
            chosen = dice.choices(range(len(rows)), k=dice.randint(1, min(len(rows) + 2, 8)))
            chosen.sort(key=lambda row: state.owner[row])
            state, rows = state.select(chosen), [rows[row] for row in chosen]
        for _ in range(dice.choice((1, 2, 5))):
            tokens = [dice.randrange(4, VOCAB) if past else BOS for _, past in rows]
            logits = model.step(state, tokens)
            rows = [(source, (*past, token)) for (source, past), token in zip(rows, tokens, strict=True)]
            seen += [(*row, found) for row, found in zip(rows, logits, strict=True)]
            check_weights(state, [len(source) for source, _ in rows])
        states.append((state, rows))
    _check_seen(model, seen)


def _check_seen(model: Seq2Seq, seen: list[tuple[tuple[int, ...], tuple[int, ...], Tensor]]) -> None:
    """seen: (source, BOS and tokens, logits after them). One pass for the longest answers its beginnings."""
    expected: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}
    for source, tokens, found in sorted(seen, key=lambda one: -len(one[1])):
        if (source, tokens) not in expected:
            logits = forced_logits(model, source, tokens[1:])
            expected |= {(source, tokens[: place + 1]): row for place, row in enumerate(logits)}
        assert_close(found, expected[source, tokens], f"logits of {source} after {tokens}")


def check_weights(state: DecodeState, lengths: Sequence[int]) -> None:
    """Cross-attention weights of the last step: of each row, 1 in sum over its source, 0 on padding."""
    if state.attention is None:
        return
    for weights, length in zip(state.attention, lengths, strict=True):
        total = weights[..., :length].sum(-1)
        assert_close(total, torch.ones_like(total), "sum of attention weights")
        assert float(weights[..., length:].abs().sum()) == 0


def random_request(dice: random.Random) -> tuple[tuple[int, ...], GenerationConfig, int, tuple[int, ...]]:
    """(source, settings, max_length, prefix)."""
    sample = dice.random() < 0.4
    n_best = dice.randint(1, 3)
    settings = GenerationConfig(
        beam_size=1 if sample else dice.randint(n_best, 5),
        n_best=n_best,
        sample=sample,
        temperature=dice.choice((0.7, 1.0, 1.4)),
        top_k=dice.choice((0, 3)),
        top_p=dice.choice((1.0, 0.8)),
        seed=dice.randrange(1000),
        length_penalty=dice.choice((0.0, 0.6, 1.0, 2.0)),
        min_length=dice.choice((0, 0, 3)),
        no_repeat_ngram=dice.choice((0, 0, 2)),
    )
    prefix = tuple(dice.randrange(4, VOCAB) for _ in range(dice.choice((0, 0, 2))))
    return random_source(dice), settings, dice.randint(4, 20), prefix


def check_requests(model: Any, seed: int, count: int = 8) -> None:
    """Law 3: requests that join and leave a running batch at any moment = each alone."""
    dice = random.Random(seed)
    requests = [random_request(dice) for _ in range(count)]
    searches = [make_search(*request[1:]) for request in requests]
    waiting, dropped = list(range(count)), set()
    batch = ActiveBatch(model, keep_attention=True)
    while waiting or batch.searches:
        if waiting and (not batch.searches or dice.random() < 0.5):
            chosen = [waiting.pop() for _ in range(min(len(waiting), dice.randint(1, 3)))]
            batch.add([requests[index][0] for index in chosen], [searches[index] for index in chosen])
        if dice.random() < 0.1:
            gone = dice.choice(batch.searches)
            dropped.add(id(gone))
            batch.drop(gone)
            batch.drop(gone)
        if batch.searches:
            ended = batch.step()
            assert all(not search.live for search in ended)
            assert batch.num_rows == sum(len(search.live) for search in batch.searches)
    for (source, *rest), search in zip(requests, searches, strict=True):
        if id(search) not in dropped:
            assert_same(search.results(), decode(model, [source], [make_search(*rest)], True)[0])


@torch.inference_mode()
def check_greedy(model: Any, source: Sequence[int], max_length: int = 12) -> None:
    """Law 4: a beam of one takes the most probable token, again and again."""
    tokens: list[int] = []
    while len(tokens) < max_length and (not tokens or tokens[-1] != EOS):
        logits = forced_logits(model, source, tokens)[-1]
        tokens.append(3 + int(logits[3:].argmax()))
    found = decode(model, [source], [make_search(GenerationConfig(), max_length)])[0]
    assert [h.tokens for h in found] == [tuple(tokens)]


@torch.inference_mode()
def check_brute_force(model: Any, source: Sequence[int], vocab: int, max_length: int, penalty: float) -> None:
    """Law 4: a beam as wide as the space finds the best of all strings, in order."""
    real = range(4, vocab)
    strings = [(*s, EOS) for length in range(max_length) for s in itertools.product(real, repeat=length)]
    strings += list(itertools.product(real, repeat=max_length))
    scores = {s: float(forced_log_probs(model, source, s).sum()) for s in strings}
    ranked = sorted(strings, key=lambda s: scores[s] / len(s) ** penalty, reverse=True)
    for n_best in (1, 4, len(strings)):
        settings = GenerationConfig(beam_size=len(strings), n_best=n_best, length_penalty=penalty)
        found = decode(model, [source], [make_search(settings, max_length)])[0]
        assert [h.tokens for h in found] == ranked[:n_best]
        assert_close(
            torch.tensor([h.score for h in found]),
            torch.tensor([scores[s] for s in ranked[:n_best]]),
            "scores",
        )


@torch.inference_mode()
def check_scores(model: Any, seed: int) -> None:
    """What a search counts is what the model says: scores = teacher forcing, whatever the neighbours."""
    dice = random.Random(seed)
    requests = [random_request(dice) for _ in range(4)]
    found = decode(model, [request[0] for request in requests], [make_search(*request[1:]) for request in requests])
    for (source, *_), hypotheses in zip(requests, found, strict=True):
        for hypothesis in hypotheses:
            expected = forced_log_probs(model, source, hypothesis.tokens)
            assert_close(torch.tensor(hypothesis.log_probs), expected, "log-probabilities")
            assert abs(hypothesis.score - float(expected.sum())) < 1e-9


@torch.inference_mode()
def check_attention(model: Seq2Seq, sources: Sequence[Sequence[int]], beam_size: int) -> None:
    """The weights of a hypothesis, through all reordering, are those of stepping through it alone."""
    settings = GenerationConfig(beam_size=beam_size, n_best=beam_size)
    found = decode(model, sources, [make_search(settings, 8) for _ in sources], keep_attention=True)
    for source, hypotheses in zip(sources, found, strict=True):
        for hypothesis in hypotheses:
            state = model.start([source])
            state.keep_attention = True
            assert len(hypothesis.attention) == len(hypothesis.tokens)
            for token, weights in zip((BOS, *hypothesis.tokens), hypothesis.attention, strict=False):
                model.step(state, [token])
                assert state.attention is not None
                assert isinstance(weights, Tensor)
                assert_close(weights, state.attention[0], "attention weights")
                total = weights.sum(-1)
                assert_close(total, torch.ones_like(total), "sum of attention weights")
