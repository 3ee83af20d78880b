"""Who is next: what may run at once, whose turn it is, and when newcomers are worth a pause. No clock, no tensors."""

from collections import Counter
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.config import GenerationConfig
from antiphon.engine.request import Request
from antiphon.engine.scheduler import BATCH_WEIGHT, SPARE_DEADLINES, Limits, Scheduler
from antiphon.ids import EOS

IDS = count(1)
NEVER = 1e9  # patience or steps that do not run out


def request(
    rows: int = 1, source: int = 5, longest: int = 5, id: int | None = None, sample: bool = False, **more: Any
) -> Request:
    """One that needs so many rows, and `source` + rows x `longest` tokens."""
    shape = {"sample": True, "n_best": rows} if sample else {"beam_size": rows}
    settings = GenerationConfig.model_validate(shape)
    return Request(next(IDS) if id is None else id, "toy", (*[4] * (source - 1), EOS), settings, longest, **more)


def filled(limits: Limits, *requests: Request, now: float = 0.0) -> Scheduler:
    scheduler = Scheduler(limits)
    for one in requests:
        scheduler.add(one, now)
    return scheduler


def is_empty(scheduler: Scheduler) -> bool:
    """Nothing is kept of those that were here, but a few deadlines and how much each key has been given."""
    sizes = [len(flow.waiting) for flow in scheduler._flows.values()]
    return not scheduler and not any(sizes) and not scheduler._rows and len(scheduler._deadlines) <= SPARE_DEADLINES


# What may run at once


def test_all_that_a_request_may_need_must_be_free() -> None:
    limits = Limits(rows=10, tokens=100)
    assert len(filled(limits, *[request(rows=4) for _ in range(5)]).admit(0, 0, 0)) == 2
    assert len(filled(limits, *[request(rows=4) for _ in range(5)]).admit(3, 0, 1)) == 1
    assert len(filled(limits, *[request(source=10, longest=20) for _ in range(5)]).admit(0, 0, 0)) == 3
    assert len(filled(limits, *[request(source=10, longest=20) for _ in range(5)]).admit(1, 41, 1)) == 1
    assert len(filled(limits, *[request(rows=4, sample=True) for _ in range(5)]).admit(0, 0, 0)) == 2
    assert request(rows=2, source=3, longest=4, prefix=(5,) * 9).tokens == 3 + 2 * 10


def test_what_is_next_and_does_not_fit_is_waited_for() -> None:
    """Or small ones would go past it for ever."""
    scheduler = filled(Limits(rows=10), request(rows=8), request(), request())
    assert scheduler.admit(3, 0, 1) == []
    assert [one.rows for one in scheduler.admit(2, 0, 1)] == [8]


def test_what_can_never_run_is_refused_in_a_sentence() -> None:
    scheduler = Scheduler(Limits(rows=10, tokens=100))
    assert scheduler.refusal(request(rows=10, source=10, longest=9)) is None
    rows = scheduler.refusal(request(rows=11))
    tokens = scheduler.refusal(request(source=10, longest=91))
    assert rows is not None
    assert "11 rows" in rows
    assert tokens is not None
    assert "101 tokens" in tokens


@given(
    rows=st.integers(1, 12),
    tokens=st.integers(10, 60),
    asked=st.lists(st.builds(request, st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)), max_size=20),
)
def test_whatever_is_not_refused_is_admitted_when_nothing_runs(rows: int, tokens: int, asked: list[Request]) -> None:
    scheduler = Scheduler(Limits(rows=rows, tokens=tokens, encode_tokens=3))
    accepted = [one for one in asked if scheduler.refusal(one) is None]
    for one in accepted:
        scheduler.add(one, 0.0)
    admitted = []
    while scheduler:
        chosen = scheduler.admit(0, 0, 0.0)
        assert chosen
        assert sum(one.rows for one in chosen) <= rows
        assert sum(one.tokens for one in chosen) <= tokens
        admitted += chosen
    assert sorted(one.id for one in admitted) == [one.id for one in accepted]


def test_no_more_source_tokens_are_encoded_between_two_steps_than_told_but_one_goes_always() -> None:
    scheduler = filled(Limits(encode_tokens=10), *[request(source=4) for _ in range(4)], request(source=50))
    assert [len(scheduler.admit(0, 0, 0)) for _ in range(4)] == [2, 2, 1, 0]


def test_those_encoded_together_are_sorted_by_length() -> None:
    scheduler = filled(Limits(), *[request(source=size) for size in (5, 2, 9, 1)])
    assert [len(one.source) for one in scheduler.admit(0, 0, 0)] == [1, 2, 5, 9]


# When newcomers are let in


def test_nobody_waits_when_nothing_runs() -> None:
    assert len(filled(Limits(share=1, patience=NEVER, steps=10**9), request()).admit(0, 0, 0)) == 1


def test_newcomers_are_let_in_when_they_are_a_share_of_the_rows_that_run() -> None:
    limits = Limits(share=0.5, patience=NEVER, steps=10**9)
    scheduler = filled(limits, *[request() for _ in range(4)])
    assert scheduler.admit(10, 0, 0) == []
    scheduler.add(request(), 0)
    assert len(scheduler.admit(10, 0, 0)) == 5
    assert len(filled(limits, request(rows=5)).admit(10, 0, 0)) == 1


def test_the_oldest_waits_no_longer_than_the_patience_and_takes_the_others_along() -> None:
    scheduler = filled(Limits(share=1, patience=0.5, steps=10**9), request(id=1001), now=1.0)
    scheduler.add(request(id=1002, key="other"), 1.4)
    assert scheduler.admit(10, 0, 1.49) == []
    assert [one.id for one in scheduler.admit(10, 0, 1.5)] == [1001, 1002]


def test_the_patience_is_that_of_the_oldest_who_is_still_there() -> None:
    scheduler = filled(Limits(share=1, patience=0.5, steps=10**9), request(id=1001), now=1.0)
    scheduler.add(request(id=1002), 1.4)
    scheduler.cancel(1001)
    assert scheduler.admit(10, 0, 1.6) == []
    assert [one.id for one in scheduler.admit(10, 0, 1.9)] == [1002]


def test_newcomers_wait_for_so_many_steps_at_most_counted_from_the_last_who_were_let_in() -> None:
    scheduler = filled(Limits(share=1, patience=NEVER, steps=3), request())
    for _ in range(2):
        scheduler.stepped()
        assert scheduler.admit(10, 0, 0) == []
    scheduler.stepped()
    assert len(scheduler.admit(10, 0, 0)) == 1
    scheduler.add(request(), 0)
    assert scheduler.admit(10, 0, 0) == []


# Whose turn it is


def served(scheduler: Scheduler, rounds: int) -> list[Request]:
    """One at a time, as if a batch of one row ran."""
    found: list[Request] = []
    for _ in range(rounds):
        found += scheduler.admit(0, 0, 0.0)
    return found


ONE = Limits(rows=1)


def test_within_a_key_first_come_first_served() -> None:
    asked = [request() for _ in range(5)]
    assert served(filled(ONE, *asked), 5) == asked


def test_a_key_with_many_requests_leaves_others_their_turn() -> None:
    scheduler = filled(ONE, *[request(key="greedy") for _ in range(100)], *[request(key="modest") for _ in range(5)])
    assert Counter(one.key for one in served(scheduler, 10)) == {"greedy": 5, "modest": 5}


def test_turns_are_counted_in_tokens() -> None:
    large = [request(source=20, longest=20, key="large") for _ in range(50)]
    small = [request(source=5, longest=5, key="small") for _ in range(50)]
    found = Counter(one.key for one in served(filled(ONE, *large, *small), 50))
    assert found == {"large": 10, "small": 40}


def test_who_comes_late_has_no_claim_on_turns_before() -> None:
    scheduler = filled(ONE, *[request(key="first") for _ in range(100)])
    served(scheduler, 50)
    for _ in range(50):
        scheduler.add(request(key="second"), 1.0)
    assert Counter(one.key for one in served(scheduler, 20)) == {"first": 10, "second": 10}


def test_who_has_just_been_given_much_lets_others_go_first() -> None:
    scheduler = filled(ONE, *[request(key="first") for _ in range(3)], request(key="second"))
    assert [one.key for one in served(scheduler, 3)] == ["first", "second", "first"]
    scheduler = filled(ONE, *[request(key="first") for _ in range(9)], request(key="other"))
    served(scheduler, 5)
    scheduler.add(request(key="second"), 1.0)
    assert [one.key for one in served(scheduler, 1)] == ["second"]


def test_a_token_of_a_batch_job_counts_as_several_and_never_starves() -> None:
    assert BATCH_WEIGHT == 8
    jobs = [request(priority="batch") for _ in range(50)]
    people = [request() for _ in range(200)]
    found = served(filled(ONE, *jobs, *people), 90)
    assert Counter(one.priority for one in found) == {"interactive": 80, "batch": 10}
    assert len(served(filled(ONE, *jobs), 50)) == 50


# Those who leave before


def test_one_that_waits_can_be_cancelled_once() -> None:
    asked = [request() for _ in range(3)]
    scheduler = filled(Limits(), *asked)
    assert scheduler.cancel(asked[1].id)
    assert not scheduler.cancel(asked[1].id)
    assert not scheduler.cancel(10**9)
    assert len(scheduler) == 2
    assert scheduler.admit(0, 0, 0) == [asked[0], asked[2]]
    assert not scheduler.cancel(asked[0].id)
    assert is_empty(scheduler)


def test_those_whose_deadline_has_passed_are_told_and_nobody_else() -> None:
    asked = [request(deadline=deadline) for deadline in (3.0, 1.0, None, 2.0, 1.0)]
    scheduler = filled(Limits(), *asked)
    scheduler.cancel(asked[4].id)
    assert scheduler.expired(0.9) == []
    assert scheduler.expired(2.0) == [asked[1], asked[3]]
    assert scheduler.expired(2.0) == []
    assert scheduler.admit(0, 0, 2.0) == [asked[0], asked[2]]
    assert scheduler.expired(9.0) == []
    assert is_empty(scheduler)


@pytest.mark.parametrize("ending", ["cancelled", "admitted", "late"])
def test_nothing_is_kept_of_those_that_have_left(ending: str) -> None:
    scheduler = Scheduler(ONE)
    for number in range(1000):
        one = request(key=str(number % 5), deadline=1e6 + number)
        scheduler.add(one, 0.0)
        if ending == "cancelled":
            scheduler.cancel(one.id)
        elif ending == "admitted":
            assert scheduler.admit(0, 0, 0.0) == [one]
        scheduler.expired(1e7 if ending == "late" else 0.0)
        assert is_empty(scheduler)
        assert len(scheduler._flows) <= (5 if ending == "admitted" else 0)


event = st.one_of(
    st.tuples(
        st.just("add"),
        st.integers(1, 5),
        st.integers(1, 9),
        st.sampled_from("abc"),
        st.sampled_from(["interactive", "batch"]),
        st.none() | st.integers(0, 40),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 60)),
    st.tuples(st.just("step")),
    st.tuples(st.just("end"), st.integers(0, 60)),
)


@settings(max_examples=200)
@given(events=st.lists(event, max_size=80), limits=st.builds(Limits, st.integers(5, 12), st.integers(60, 120)))
def test_nobody_is_lost_or_let_in_twice_and_what_runs_keeps_to_the_limits(
    events: list[tuple[Any, ...]], limits: Limits
) -> None:
    scheduler = Scheduler(limits)
    waiting: dict[int, Request] = {}
    running: dict[int, Request] = {}
    now = 0.0
    for kind, *values in events:
        now += 1.0
        if kind == "add":
            rows, size, key, priority, seconds = values
            deadline = None if seconds is None else now + seconds
            one = request(rows, size, size, key=key, priority=priority, deadline=deadline)
            waiting[one.id] = one
            scheduler.add(one, now)
        elif kind == "cancel" and waiting:
            gone = list(waiting)[values[0] % len(waiting)]
            del waiting[gone]
            assert scheduler.cancel(gone)
        elif kind == "end" and running:
            del running[list(running)[values[0] % len(running)]]
        elif kind == "step":
            for one in scheduler.expired(now):
                assert one.deadline is not None
                assert one.deadline <= now
                del waiting[one.id]
            assert all(one.deadline is None or one.deadline > now for one in waiting.values())
            in_use = [sum(getattr(one, name) for one in running.values()) for name in ("rows", "tokens")]
            for one in scheduler.admit(*in_use, now):
                running[one.id] = waiting.pop(one.id)
            assert sum(one.rows for one in running.values()) <= limits.rows
            assert sum(one.tokens for one in running.values()) <= limits.tokens
            scheduler.stepped()
        assert len(scheduler) == len(waiting)
    left = []
    while scheduler:
        left += scheduler.admit(0, 0, now)
    assert sorted(one.id for one in left) == sorted(waiting)
    assert is_empty(scheduler)
