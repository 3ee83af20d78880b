"""The engine: requests of all kinds through one thread, each answered as if it were alone."""

from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest
import torch

from antiphon.config import GenerationConfig, ModelConfig
from antiphon.decoding.generate import decode
from antiphon.decoding.search import make_search
from antiphon.engine.engine import Engine
from antiphon.ids import EOS
from antiphon.model.seq2seq import Seq2Seq, build


@pytest.fixture
def network() -> Iterator[Seq2Seq]:
    torch.set_default_dtype(torch.float64)
    shape = ModelConfig(d_model=16, d_ff=16, num_heads=2, encoder_layers=1, decoder_layers=1)
    yield build(shape, 12, 12, joint=False).eval()
    torch.set_default_dtype(torch.float32)


SETTINGS = [
    GenerationConfig(),
    GenerationConfig(beam_size=4, n_best=2),
    GenerationConfig(sample=True, n_best=3, seed=5),
]


def test_many_requests_at_once_are_answered_as_if_each_were_alone(network: Seq2Seq) -> None:
    sources = [[4 + (7 * i + j) % 8 for j in range(1 + i % 6)] + [EOS] for i in range(60)]
    settings = [SETTINGS[i % 3] for i in range(60)]
    engine = Engine(network)
    engine.start()
    asked = [engine.submit(source, make_search(s, 9)) for source, s in zip(sources, settings, strict=True)]
    found = [[h.tokens for h in future.result(timeout=60)] for future in asked]
    engine.close()
    for source, s, tokens in zip(sources, settings, found, strict=True):
        alone = decode(network, [source], [make_search(s, 9)])[0]
        assert tokens == [h.tokens for h in alone]


def test_a_cancelled_request_leaves_and_the_others_stay(network: Seq2Seq) -> None:
    engine = Engine(network)
    asked = [engine.submit([4, 5, EOS], make_search(GenerationConfig(beam_size=2), 30)) for _ in range(4)]
    assert asked[1].cancel()
    engine.start()
    assert wait([asked[0], *asked[2:]], timeout=60).not_done == set()
    engine.close()
    with pytest.raises(CancelledError):
        asked[1].result()
    assert engine.num_rows == 0


def test_a_request_that_runs_can_be_cancelled_and_frees_its_rows(network: Seq2Seq) -> None:
    engine = Engine(network)
    engine.start()
    endless = engine.submit([4, 5, EOS], make_search(GenerationConfig(beam_size=3, min_length=10**6), 10**6))
    while engine.num_rows < 3:
        assert not endless.done()
    assert endless.cancel()
    assert engine.submit([4, EOS], make_search(GenerationConfig(), 5)).result(timeout=60)
    engine.close()
    assert engine.num_rows == 0


class Failing:
    """A model that fails on a source with a 9 in it, when it is encoded."""

    def __init__(self, network: Seq2Seq) -> None:
        self.network = network

    def start(self, sources: Sequence[Sequence[int]]) -> Any:
        if any(9 in source for source in sources):
            raise RuntimeError("nine")
        return self.network.start(sources)

    def step(self, state: Any, tokens: Sequence[int]) -> torch.Tensor:
        return self.network.step(state, tokens)


def test_a_failure_is_told_to_those_it_hits_and_the_engine_goes_on(network: Seq2Seq) -> None:
    engine = Engine(Failing(network))
    engine.start()
    with pytest.raises(RuntimeError, match="nine"):
        engine.submit([9, EOS], make_search(GenerationConfig(), 5)).result(timeout=60)
    assert engine.submit([4, EOS], make_search(GenerationConfig(), 5)).result(timeout=60)
    engine.close()


def test_closing_finishes_what_was_submitted(network: Seq2Seq) -> None:
    engine = Engine(network)
    engine.start()
    asked = [engine.submit([4 + i % 8, EOS], make_search(GenerationConfig(), 8)) for i in range(20)]
    engine.close()
    assert all(future.done() for future in asked)
