"""The engine: requests of all kinds through one thread, each answered as if it were alone."""

import queue
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
import torch

from antiphon.config import GenerationConfig, ModelConfig
from antiphon.decoding.generate import decode
from antiphon.decoding.search import make_search
from antiphon.engine.engine import Engine
from antiphon.engine.request import Delivery, Event, Failure, Finished, Progress, Request, Statistics
from antiphon.ids import EOS, UNK
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


class Client:
    """Asks an engine, and keeps what it is told."""

    def __init__(self, network: Any) -> None:
        self.told: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self.events: dict[int, list[Event]] = {}
        self.statistics = Statistics()
        self.ids = count(1)
        self.engine = Engine({"toy": network}, self.deliver)

    def deliver(self, told: list[Delivery], statistics: Statistics) -> None:
        self.statistics = statistics
        for one in told:
            self.told.put(one)

    def ask(self, source: Sequence[int], settings: GenerationConfig, max_length: int = 9, **more: Any) -> int:
        request = Request(next(self.ids), "toy", tuple(source), settings, max_length, **more)
        self.events[request.id] = []
        self.engine.submit(request)
        return request.id

    def end(self, id: int) -> Event:
        """The last event of a request."""
        while not self.events[id] or isinstance(self.events[id][-1], Progress):
            other, event = self.told.get(timeout=60)
            self.events[other].append(event)
        return self.events[id][-1]

    def outputs(self, id: int) -> list[tuple[int, ...]]:
        ended = self.end(id)
        assert isinstance(ended, Finished), ended
        return [hypothesis.tokens for hypothesis in ended.hypotheses]


ENDLESS = GenerationConfig(beam_size=3, min_length=10**4)


def alone(network: Seq2Seq, source: Sequence[int], settings: GenerationConfig) -> list[tuple[int, ...]]:
    return [hypothesis.tokens for hypothesis in decode(network, [source], [make_search(settings, 9)])[0]]


def test_many_requests_at_once_are_answered_as_if_each_were_alone(network: Seq2Seq) -> None:
    sources = [[4 + (7 * i + j) % 8 for j in range(1 + i % 6)] + [EOS] for i in range(60)]
    client = Client(network)
    client.engine.start()
    asked = [client.ask(source, SETTINGS[i % 3], stream=i % 2 == 0) for i, source in enumerate(sources)]
    for i, id in enumerate(asked):
        assert client.outputs(id) == alone(network, sources[i], SETTINGS[i % 3])
        told = [token for event in client.events[id] if isinstance(event, Progress) for token in event.tokens]
        assert tuple(told) == client.outputs(id)[0][: len(told)]
        assert bool(told) <= (i % 2 == 0)
    client.engine.close()
    assert client.statistics.generated > 0
    assert client.statistics.rows == client.statistics.running == client.statistics.waiting == 0


def test_a_request_that_runs_can_be_cancelled_and_frees_its_rows(network: Seq2Seq) -> None:
    client = Client(network)
    client.engine.start()
    endless = client.ask([4, 5, EOS], ENDLESS, 10**4, stream=True)
    while not client.statistics.rows:
        client.told.get(timeout=60)
    client.engine.cancel(endless)
    client.engine.cancel(endless)  # again: no mistake
    assert client.outputs(client.ask([4, EOS], SETTINGS[0]))
    client.engine.close()
    assert client.statistics.rows == 0


def test_a_deadline_ends_a_request_whether_it_runs_or_waits(network: Seq2Seq) -> None:
    client = Client(network)
    client.engine.start()
    late = [client.ask([4, 5, EOS], ENDLESS, 10**4, deadline=time.monotonic() + 0.2) for _ in range(3)]
    for id in late:
        ended = client.end(id)
        assert isinstance(ended, Failure)
        assert ended.kind == "late"
    client.engine.close()
    assert client.statistics.rows == 0


def test_what_can_never_run_is_refused(network: Seq2Seq) -> None:
    client = Client(network)
    client.engine.start()
    ended = client.end(client.ask([4, EOS], GenerationConfig(beam_size=500)))
    assert isinstance(ended, Failure)
    assert ended.kind == "refused"
    client.engine.close()


class Failing:
    """A model that fails at a source with a 9 when it is encoded, and at an output with UNK after some steps."""

    def __init__(self, network: Seq2Seq) -> None:
        self.network = network

    def start(self, sources: Sequence[Sequence[int]]) -> Any:
        if any(9 in source for source in sources):
            raise RuntimeError("nine")
        return self.network.start(sources)

    def step(self, state: Any, tokens: Sequence[int]) -> torch.Tensor:
        if UNK in tokens and max(state.ages) > 2:
            raise RuntimeError("unknown")
        return self.network.step(state, tokens)


@pytest.mark.parametrize("bad", [[9, EOS], [4, 9, EOS]])
def test_a_request_that_fails_fails_alone(network: Seq2Seq, bad: list[int]) -> None:
    client = Client(Failing(network))
    good = [client.ask([4 + i, EOS], SETTINGS[i % 3]) for i in range(4)]
    doomed = client.ask(bad, SETTINGS[0])
    client.engine.start()
    assert isinstance(client.end(doomed), Failure)
    for i, id in enumerate(good):
        assert client.outputs(id) == alone(network, [4 + i, EOS], SETTINGS[i % 3])
    client.engine.close()


def test_a_step_that_fails_fails_for_its_request_alone(network: Seq2Seq) -> None:
    client = Client(Failing(network))
    asked = [client.ask([4 + i, EOS], SETTINGS[i % 3], stream=i % 3 == 0) for i in range(5)]
    doomed = client.ask([5, EOS], SETTINGS[0], prefix=(UNK,) * 5, stream=True)
    client.engine.start()
    assert isinstance(client.end(doomed), Failure)
    for i, id in enumerate(asked):
        assert client.outputs(id) == alone(network, [4 + i, EOS], SETTINGS[i % 3])
    client.engine.close()


def test_closing_finishes_what_was_submitted(network: Seq2Seq) -> None:
    client = Client(network)
    client.engine.start()
    asked = [client.ask([4 + i % 8, EOS], SETTINGS[0]) for i in range(20)]
    client.engine.close()
    assert all(client.outputs(id) for id in asked)
