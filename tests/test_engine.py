"""The engine: requests of all kinds through one thread, each answered as if it were alone."""

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import test_packed
import torch
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from laws.toys import FAMILIES, float64, random_ensemble, random_model

from antiphon.config import GenerationConfig, ModelConfig
from antiphon.decoding.generate import decode
from antiphon.decoding.search import Hypothesis, make_search
from antiphon.engine import lane
from antiphon.engine.engine import Engine
from antiphon.engine.request import Call, Delivery, Event, Failure, Finished, Progress, Request, Returned, Statistics
from antiphon.engine.scheduler import Limits
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


class Numberless:
    """A model whose logits are no numbers for a source with a 9."""

    def __init__(self, network: Seq2Seq) -> None:
        self.network = network
        self.start = network.start

    def step(self, state: Any, tokens: Sequence[int]) -> torch.Tensor:
        logits = self.network.step(state, tokens)
        long = torch.tensor([length > 3 for length in state.lengths])
        return logits.masked_fill(long.unsqueeze(1), torch.nan) if len(long) == len(logits) else logits


def test_what_is_no_number_is_no_answer(network: Seq2Seq) -> None:
    client = Client(Numberless(network))
    client.engine.start()
    good, bad = client.ask([4, EOS], SETTINGS[0]), client.ask([4, 5, 6, EOS], SETTINGS[0])
    ended = client.end(bad)
    assert isinstance(ended, Failure)
    assert ended.kind == "failed"
    assert client.outputs(good) == alone(network, [4, EOS], SETTINGS[0])
    client.engine.close()


def test_closing_finishes_what_was_submitted(network: Seq2Seq) -> None:
    client = Client(network)
    client.engine.start()
    asked = [client.ask([4 + i % 8, EOS], SETTINGS[0]) for i in range(20)]
    client.engine.close()
    assert all(client.outputs(id) for id in asked)


def test_calls_are_made_beside_the_running_batch_and_may_fail_or_be_cancelled(network: Seq2Seq) -> None:
    told: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    may_end, begun = threading.Event(), threading.Event()

    def perform(call: Call, wanted: Callable[[], bool]) -> str:
        begun.set()
        if call.method == "wait":
            assert may_end.wait(60)
        elif call.method == "refuse":
            raise ValueError("no")
        elif call.method == "break":
            raise RuntimeError("broken")
        return call.method

    def deliver(deliveries: list[Delivery], _: Statistics) -> None:
        for one in deliveries:
            told.put(one)

    engine = Engine({"toy": network}, deliver, perform)
    engine.start()
    for id, method in enumerate(["wait", "refuse", "break", "unwanted"]):
        engine.call(Call(id, "toy", method, {}))
    assert begun.wait(60)
    engine.cancel(3)
    engine.submit(Request(9, "toy", (4, EOS), SETTINGS[0], 9))
    id, event = told.get(timeout=60)
    assert id == 9
    assert isinstance(event, Finished)
    may_end.set()
    engine.close()
    ends = dict(told.get(timeout=60) for _ in range(3))
    assert ends[0] == Returned("wait")
    assert ends[1] == Failure("refused", "no")
    assert isinstance(ends[2], Failure)
    assert ends[2].kind == "failed"
    assert told.empty()
    assert not engine._unwanted
    assert not engine._open_calls


def test_a_call_that_has_begun_is_told_when_nobody_wants_it_any_more(network: Seq2Seq) -> None:
    begun = threading.Event()

    def perform(call: Call, wanted: Callable[[], bool]) -> None:
        begun.set()
        while wanted():
            time.sleep(0.001)

    told: list[Delivery] = []
    engine = Engine({"toy": network}, lambda deliveries, _: told.extend(deliveries), perform)
    engine.start()
    engine.call(Call(0, "toy", "", {}))
    assert begun.wait(60)
    engine.cancel(0)
    engine.close()
    assert not told


def test_a_mistake_in_the_engine_fails_those_who_are_there_and_nobody_after(
    network: Seq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(network)
    client.engine.start()
    assert client.outputs(client.ask([4, EOS], SETTINGS[0]))
    generated = client.statistics.generated
    with monkeypatch.context() as patch:
        patch.setattr(lane, "_search", None)
        ended = client.end(client.ask([4, EOS], SETTINGS[0]))
    assert isinstance(ended, Failure)
    assert ended.kind == "failed"
    assert client.outputs(client.ask([4, EOS], SETTINGS[0])) == alone(network, [4, EOS], SETTINGS[0])
    assert client.statistics.generated == 2 * generated
    client.engine.close()


# Anything, in any order

KINDS = {
    f"float64 {name}": functools.partial(random_model, name) for name in (*FAMILIES, "lstm>transformer-sinusoidal")
}
KINDS |= {
    f"int8 {name}": functools.cache(functools.partial(test_packed.network, name))
    for name in test_packed.ARCHITECTURES
    if not name.startswith("recurrent")  # attention there is a product of whole matrices, which round by their shape
}
KINDS["float64 ensemble"] = random_ensemble
WAYS = (
    GenerationConfig(),
    GenerationConfig(beam_size=2, length_penalty=0.5),
    GenerationConfig(beam_size=5, n_best=3),
    GenerationConfig(beam_size=3, min_length=4, no_repeat_ngram=2),
    GenerationConfig(sample=True, seed=3),
    GenerationConfig(sample=True, n_best=4, seed=8, temperature=2.0, top_p=0.9, top_k=6),
)
LIMITS = Limits(rows=12, tokens=240, patience=0.01, encode_tokens=20)


class Clock:
    """Told what time it is."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Breaking(Failing):
    """Fails at a source with a 9, and after UNK."""

    def step(self, state: Any, tokens: Sequence[int]) -> torch.Tensor:
        if UNK in tokens:
            raise RuntimeError("unknown")
        return self.network.step(state, tokens)


class Crowd(RuleBasedStateMachine):
    """Requests of all kinds come, wait, run, are told of, leave and fail; the engine is stepped by hand."""

    kind = ""
    answers: dict[Any, list[Hypothesis]]  # of each request, alone

    def __init__(self) -> None:
        super().__init__()
        self.ids = count(1)
        self.network = KINDS[self.kind]()
        self.clock = Clock()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(lane, "time", SimpleNamespace(monotonic=self.clock.monotonic))
        self.patch.setattr(lane.log, "disabled", True)
        self.engine = Engine({"toy": Breaking(self.network)}, self.deliver, limits=LIMITS)
        self.asked: dict[int, Request] = {}
        self.told: dict[int, list[int]] = {}
        self.ended: dict[int, Event] = {}
        self.cancelled: set[int] = set()
        self.late: dict[int, float] = {}

    def deliver(self, told: list[Delivery], statistics: Statistics) -> None:
        for id, event in told:
            assert id not in self.ended
            assert id not in self.cancelled
            if isinstance(event, Progress):
                assert self.asked[id].stream
                assert event.tokens
                self.told[id] += event.tokens
            else:
                self.ended[id] = event

    def submit(self, **request: Any) -> None:
        one = Request(id=next(self.ids), model="toy", **request)
        self.asked[one.id] = one
        self.told[one.id] = []
        self.engine.submit(one)

    @rule(
        source=st.lists(st.integers(4, 8), max_size=6),
        settings=st.sampled_from(WAYS),
        max_length=st.integers(4, 12),
        prefix=st.sampled_from([(), (), (5,), (6, 4, 6, 7)]),
        stream=st.booleans(),
        key=st.sampled_from("ab"),
        priority=st.sampled_from(["interactive", "batch"]),
        seconds=st.sampled_from([None, None, None, 0.005, 0.05]),
    )
    def ask(self, source: list[int], seconds: float | None, **more: Any) -> None:
        deadline = None if seconds is None else self.clock.now + seconds
        self.submit(source=(*source, EOS), deadline=deadline, **more)

    @rule(prefix=st.sampled_from([(), (UNK,), (4, UNK), (4, 5, 6, UNK, 4)]), stream=st.booleans())
    def ask_what_breaks_the_model(self, prefix: tuple[int, ...], stream: bool) -> None:
        source = (4, EOS) if prefix else (9, EOS)
        self.submit(source=source, settings=WAYS[0], max_length=9, prefix=prefix, stream=stream)

    @rule(settings=st.sampled_from([GenerationConfig(beam_size=13), GenerationConfig(beam_size=12, max_length=99)]))
    def ask_too_much(self, settings: GenerationConfig) -> None:
        self.submit(source=(4, EOS), settings=settings, max_length=30)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 10**6))
    def cancel(self, which: int) -> None:
        """One that waits, runs, has ended, or was cancelled before."""
        id = list(self.asked)[which % len(self.asked)]
        self.engine.cancel(id)
        self.cancelled |= {id} - self.ended.keys()

    @rule(seconds=st.sampled_from([0.001, 0.002, 0.02]), steps=st.integers(1, 5))
    def step(self, seconds: float, steps: int) -> None:
        for _ in range(steps):
            self.clock.now += seconds
            if self.engine._inbox.empty() and self.engine._is_idle:
                return  # it would wait for us
            self.engine.step()

    @invariant()
    def the_limits_are_kept(self) -> None:
        statistics = self.engine._statistics()
        assert statistics.rows <= LIMITS.rows
        assert statistics.tokens <= LIMITS.tokens

    def answer(self, request: Request) -> list[Hypothesis]:
        key = (request.source, request.settings.model_dump_json(), request.max_length, request.prefix)
        if key not in self.answers:
            search = make_search(request.settings, request.max_length, request.prefix)
            self.answers[key] = decode(self.network, [request.source], [search])[0]
        return self.answers[key]

    def check(self, request: Request) -> None:
        end, told = self.ended[request.id], self.told[request.id]
        expected = "refused" if request.rows > 12 or request.tokens > 240 else ""
        expected = expected or ("failed" if 9 in request.source or UNK in request.prefix else "")
        if isinstance(end, Failure):
            assert end.kind == (expected or "late")
            assert expected or (request.deadline is not None and self.clock.now >= request.deadline)
            return
        assert isinstance(end, Finished)
        assert not expected
        answer = self.answer(request)
        if self.kind.startswith("int8"):
            assert end.hypotheses == answer
        assert [one.tokens for one in end.hypotheses] == [one.tokens for one in answer]
        for ours, theirs in zip(end.hypotheses, answer, strict=True):
            assert ours.log_probs == pytest.approx(theirs.log_probs, abs=1e-9)
        assert request.settings.n_best > 1 or tuple(told) == answer[0].tokens[: len(told)]
        common = [set(column) for column in zip(*(one.tokens for one in answer), strict=False)]
        assert all(column == {token} for column, token in zip(common, told, strict=False))
        assert end.times.came <= end.times.encoded <= end.times.first <= end.times.ended

    def teardown(self) -> None:
        try:
            while not (self.engine._inbox.empty() and self.engine._is_idle):
                self.step(0.001, 1)
            assert self.ended.keys() | self.cancelled == self.asked.keys()
            for id in self.ended:
                self.check(self.asked[id])
            (ours,) = self.engine._lanes.values()
            for left in (self.engine._lane_of, ours._runs, ours._came, ours._suspects, ours._scheduler._flow_of):
                assert not left
            assert ours._batch._state is None
            assert ours._alone._state is None
        finally:
            self.patch.undo()


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_comes_and_goes_each_is_answered_as_if_alone(kind: str) -> None:
    if kind.startswith("int8") and test_packed.kernels.library() is None:
        pytest.skip("there is no C++ compiler")
    machine = type("Crowd", (Crowd,), {"kind": kind, "answers": {}})
    few = hypothesis_settings(max_examples=20, stateful_step_count=40)
    if kind.startswith("float64"):
        with float64():
            run_state_machine_as_test(machine, settings=few)
    else:
        run_state_machine_as_test(machine, settings=few)
