"""The one way from texts to answers, which all dialects take: texts -> ids -> engine -> hypotheses -> texts.

It knows no HTTP. A long text is split into sentences, each a request of its own in the running batch.
"""

import asyncio
import math
import re
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

from antiphon.config import GenerationConfig, generation_settings
from antiphon.consensus import by_consensus, voters
from antiphon.engine.messages import Hosted
from antiphon.engine.pool import EnginePool, Ticket, UnavailableError
from antiphon.engine.request import Failure, Finished, Priority, Progress, Returned, Times
from antiphon.segments import Segments, split
from antiphon.serving.account import current, overall
from antiphon.serving.errors import RefusedError, invalid
from antiphon.serving.settings import ServerSettings
from antiphon.text_side import BLANK, LONG_TEXT, Output, TextSide
from antiphon.words import Word

SHOWN = 40  # characters of a text in a message
T = TypeVar("T")
STATUS = {"refused": 422, "failed": 500, "late": 504, "lost": 503}
REASON = {"refused": "invalid", "failed": "failed", "late": "late", "lost": "unavailable"}


@dataclass(frozen=True)
class Client:
    """Who asks. max_outstanding: of its requests, where it has a limit of its own."""

    name: str = ""
    priority: Priority = "interactive"
    max_outstanding: int | None = None


ANYBODY = Client()


@dataclass(frozen=True)
class Ask:
    """Texts to answer. model: None is the first one served. settings: those of GenerationConfig that are not the
    model's own (None: its own). mbr: so many samples are drawn, and the n best are those most like all (`consensus`).
    stop: an output ends before the first of these that is complete. timeout: seconds, at most the server's.
    """

    texts: Sequence[str]
    model: str | None = None
    prefix: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    mbr: int | None = None
    split: Literal["none", "sentence"] = "none"
    language: str = "en"  # of the texts, for splitting them
    stop: Sequence[str] = ()
    alignments: bool = False
    timeout: float | None = None


@dataclass(frozen=True)
class Answer:
    """To one text: its n best outputs, best first. sentences: each that it was split into, and its best output."""

    outputs: list[Output]
    sentences: list[tuple[str, Output]]
    source_tokens: int
    times: Times | None = None


@dataclass(frozen=True)
class Delta:
    """Further text of an answer."""

    text: str
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Alternative:
    """A word that could stand in an output, and the output that has it there."""

    word: Word
    output: Output


class Service:
    """Models and the engines that run them. Everything is refused with a RefusedError."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.sides = {name: TextSide.load(run) for name, run in settings.runs.items()}
        workers = settings.workers if settings.runs else 0  # processes that could do nothing
        self.pool = EnginePool(Hosted(settings.runs, settings.device, settings.precision), workers)
        self.draining = False
        self._outstanding: Counter[str] = Counter()  # requests of each client
        self._took: deque[float] = deque([1.0], maxlen=64)  # seconds that the last requests took

    @property
    def is_ready(self) -> bool:
        return self.pool.is_ready and not self.draining

    def side(self, model: str | None) -> tuple[str, TextSide]:
        """The name and text side of a model."""
        if not self.sides:
            told = "no model is served: this server only watches trainings; begin it with a run to serve."
            raise RefusedError(404, "not_found", told, "model")
        name = model if model is not None else next(iter(self.sides))
        if name not in self.sides:
            raise RefusedError(
                404, "not_found", f"model {name[:SHOWN]!r} is not served; there are {', '.join(self.sides)}.", "model"
            )
        return name, self.sides[name]

    async def answer(self, ask: Ask, client: Client = ANYBODY) -> list[Answer]:
        """An answer to each text; whoever stops waiting frees what it holds."""
        plans = await aside(ask.texts, partial(self._plan, ask))
        if ask.alignments:
            return await self._aligned(ask, plans, client)
        with self._counted(plans, client), closing(self._submitted(plans, client)) as tickets:
            ended = [[await _finished(next(tickets)) for _ in plan.sources] for plan in plans]

        def answers() -> list[Answer]:
            return [plan.answer(found) for plan, found in zip(plans, ended, strict=True)]

        return answers() if ask.mbr is None else await asyncio.to_thread(answers)

    async def stream(self, ask: Ask, client: Client = ANYBODY) -> AsyncGenerator[Delta | Answer, None]:
        """Deltas of the answer to the one text, which make up its text, and at the end the answer. What is refused is
        told before the first of them."""
        if ask.mbr is not None:
            raise invalid("mbr: its samples are compared when all have ended, so there is nothing to stream.", "mbr")
        if ask.settings.get("n_best") is None:
            ask = replace(ask, settings=dict(ask.settings) | {"n_best": 1})
        (plan,) = await aside(ask.texts, partial(self._plan, ask))
        if plan.settings.n_best > 1:
            raise invalid("n_best: one output can be streamed, and no more; ask for n_best 1, or no stream.", "n_best")
        with self._counted([plan], client), closing(self._submitted([plan], client, stream=True)) as tickets:
            try:
                async for part in plan.follow(tickets):
                    yield part
            except RefusedError as error:
                current().refused = error.reason  # the answer has begun, and its status tells nothing of it
                raise

    async def call(
        self,
        model: str | None,
        method: str,
        client: Client = ANYBODY,
        *,
        timeout: float | None = None,
        **arguments: Any,
    ) -> Any:
        """What a method of engine/host.py returns. timeout: seconds, at most the server's."""
        name, _ = self.side(model)
        current().asked(name)
        with self._counted((), client):
            ticket = self._asked(partial(self.pool.call, name, method, **arguments))
            try:
                ended = await asyncio.wait_for(ticket.end(), min(timeout or math.inf, self.settings.timeout))
            except TimeoutError:
                raise RefusedError(504, "late", "the server did not get to it in time; ask again later.") from None
        if isinstance(ended, Failure):
            raise _refused(ended)
        assert isinstance(ended, Returned)
        return ended.value

    async def alternatives(self, ask: Ask, count: int, client: Client = ANYBODY) -> list[Alternative]:
        """The words that could come after the prefix, the most probable first, each with the best output that goes on
        from it: for every token that is likely there, an output that is made to begin with it."""
        (plan,) = await aside(ask.texts, partial(self._plan, ask))
        if not plan.sources:
            return []
        (source,) = plan.sources
        asked = {"source": source, "prefix": plan.prefix, "count": count}
        tokens = await self.call(ask.model, "following", client, timeout=ask.timeout, **asked)
        plans = [replace(plan, prefix=(*plan.prefix, token)) for token in tokens]
        with self._counted(plans, client), closing(self._submitted(plans, client)) as tickets:
            ended = [await _finished(ticket) for ticket in tickets]
        outputs = [plan.answer([one]).outputs[0] for one in ended]
        begun = plan.side.tokenizers.target.decode(plan.prefix)  # as outputs have it: words may be unknown
        found = [Alternative(plan.side.word_after(begun, output), output) for output in outputs]
        best: dict[str, Alternative] = {}
        for one in sorted(found, key=lambda one: (one.word.probability, one.output.score), reverse=True):
            best.setdefault(one.word.text, one)
        return list(best.values())

    def check_length(self, name: str, text: str) -> list[int]:
        """The ids of a source. Refuses one that is too long for the model."""
        side = self.sides[name]
        limit = side.config.training.max_length
        try:
            ids = side.source_ids(text)
        except ValueError as error:
            raise _misread(error, "text") from None
        if len(ids) - 1 > limit:
            raise RefusedError(
                422,
                "too_long",
                f"text: at most {limit} tokens, found {len(ids) - 1} in {text[:SHOWN]!r}...; give it in sentences.",
                "text",
            )
        return ids

    def check_target(self, name: str, text: str) -> int:
        """How many tokens a target has. Refuses one that is too long."""
        side = self.sides[name]
        try:
            count = len(side.target_ids(text))
        except ValueError as error:
            raise _misread(error, "target") from None
        if count > side.config.training.max_length:
            limit = side.config.training.max_length
            raise RefusedError(422, "too_long", f"target: at most {limit} tokens, found {count}.", "target")
        return count

    def check_settings(self, name: str, asked: dict[str, Any], prefix: str) -> tuple[GenerationConfig, tuple[int, ...]]:
        """The settings that a model is asked for with its own, and the ids of a prefix. Refuses what cannot be."""
        side = self.sides[name]
        try:
            settings = generation_settings(side.config.generation, **asked)
        except ValueError as error:
            raise invalid(str(error)) from None
        try:
            ids = tuple(side.prefix_ids(prefix))
        except ValueError as error:
            raise _misread(error, "prefix") from None
        limit = self.settings.max_output
        if max(asked.get("max_length") or 0, settings.min_length, len(ids)) > limit:
            raise invalid(f"max_length, min_length, prefix: at most {limit} tokens.", "max_length")
        return settings.model_copy(update={"max_length": min(settings.max_length, limit)}), ids

    def _plan(self, ask: Ask) -> list["_Plan"]:
        """What to ask the engine for; refuses what cannot be."""
        name, side = self.side(ask.model)
        current().asked(name, ask.texts)
        if len(ask.texts) > self.settings.max_texts:
            raise invalid(f"text: at most {self.settings.max_texts} texts, found {len(ask.texts)}.", "text")
        asked, kept = _asked_settings(ask, side)
        settings, prefix = self.check_settings(name, asked, ask.prefix)
        deadline = time.monotonic() + min(ask.timeout or math.inf, self.settings.timeout)
        plans = []
        for text in ask.texts:
            segments = _segments(text, ask, side.facts.tags)
            sources = [tuple(self.check_length(name, sentence)) for sentence in segments.sources]
            plans.append(_Plan(name, side, settings, prefix, segments, sources, tuple(ask.stop), deadline, kept))
        return plans

    def _at_once(self, client: Client) -> int:
        """Requests that one client's texts may make at the same time: a long text leaves places for others."""
        half = max(1, self.settings.max_outstanding // 2)
        return min(half, client.max_outstanding or half)

    def _submitted(
        self, plans: Sequence["_Plan"], client: Client, stream: bool = False
    ) -> Generator[Ticket, None, None]:
        """A ticket for each source in turn; some that come next run already. Those that nobody asked for are cancelled
        at the end."""
        ahead: deque[Ticket] = deque()
        try:
            for plan in plans:
                for source in plan.sources:
                    ahead.append(self._submit(plan, source, client, stream))
                    if len(ahead) >= self._at_once(client):
                        yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            for ticket in ahead:
                ticket.cancel()

    def _submit(self, plan: "_Plan", source: tuple[int, ...], client: Client, stream: bool) -> Ticket:
        request = partial(
            self.pool.submit,
            model=plan.model,
            source=source,
            settings=plan.settings,
            max_length=min(plan.side.max_length(len(source), plan.settings), self.settings.max_output),
            prefix=plan.prefix,
            stream=stream,
            key=client.name,
            priority=client.priority,
            deadline=plan.deadline,
        )
        return self._asked(request)

    def _asked(self, ask: Any) -> Ticket:
        try:
            ticket: Ticket = ask()
        except UnavailableError as error:
            raise RefusedError(503, "unavailable", str(error), retry_after=1) from None
        return ticket

    async def _aligned(self, ask: Ask, plans: list["_Plan"], client: Client) -> list[Answer]:
        """Attention is looked at aside from the running batch, which does not keep it."""
        if ask.split != "none":
            raise invalid("alignments: can be had for a text that is not split; set split to none.", "alignments")
        plan = plans[0]
        arguments = {"texts": list(ask.texts), "prefix": ask.prefix, "settings": plan.settings.model_dump()}
        found = await self.call(ask.model, "align", client, timeout=ask.timeout, **arguments)
        answers = []
        for plan, outputs in zip(plans, found, strict=True):
            shown = [_stopped(Output(**output), plan.stop) for output in outputs]
            current().answered(sum(map(len, plan.sources)), shown)
            answers.append(Answer(shown, [], sum(map(len, plan.sources))))
        return answers

    def _counted(self, plans: Sequence["_Plan"], client: Client) -> "_Count":
        """Holds places for requests, or a call, while they are answered; refuses when there is none."""
        count = min(sum(len(plan.sources) for plan in plans), self._at_once(client)) if plans else 1
        if self.draining:
            raise RefusedError(503, "unavailable", "the server is stopping; ask another one.", retry_after=1)
        if not self.pool.is_ready:
            raise RefusedError(503, "unavailable", "the server is not ready yet; ask again soon.", retry_after=1)
        total, own = self._outstanding.total(), self._outstanding[client.name]
        limit = client.max_outstanding
        if (total and total + count > self.settings.max_outstanding) or (limit and own + count > limit):
            whose = "the server" if limit is None or own + count <= limit else "this key"
            raise RefusedError(
                429, "overloaded", f"{whose} has too many requests open; ask again later.", retry_after=self._pause()
            )
        return _Count(self._outstanding, client.name, count, self._took)

    def _pause(self) -> int:
        """Seconds after which it may be worth asking again."""
        return max(1, math.ceil(sum(self._took) / len(self._took)))


async def aside(texts: Iterable[str], work: Callable[[], T]) -> T:
    """What `work` returns, which looks through texts: in a thread where these are long, so that nobody else waits."""
    if sum(map(len, texts)) < LONG_TEXT:
        return work()
    return await asyncio.to_thread(work)


class _Count:
    """Requests counted as outstanding while it is open."""

    def __init__(self, outstanding: Counter[str], name: str, count: int, took: deque[float]) -> None:
        self._outstanding, self._name, self._count, self._took = outstanding, name, count, took

    def __enter__(self) -> None:
        self._start = time.monotonic()
        self._outstanding[self._name] += self._count

    def __exit__(self, *_: object) -> None:
        self._took.append(time.monotonic() - self._start)
        self._outstanding[self._name] -= self._count
        if not self._outstanding[self._name]:
            del self._outstanding[self._name]


@dataclass(frozen=True)
class _Plan:
    """One text on its way: its sentences as ids, and how they are put together again. kept: of the samples that are
    compared, how many are wanted; None: nothing is compared."""

    model: str
    side: TextSide
    settings: GenerationConfig
    prefix: tuple[int, ...]
    segments: Segments
    sources: list[tuple[int, ...]]
    stop: tuple[str, ...]
    deadline: float
    kept: int | None = None

    def answer(self, ended: Sequence[Finished]) -> Answer:
        """The sentences' results as one."""
        found = [self._outputs(end) for end in ended]
        if not found:
            return Answer([_stopped(replace(BLANK, text=self.segments.join([])), self.stop)], [], 0)
        count = max(map(len, found))
        ranked = [[outputs[min(rank, len(outputs) - 1)] for outputs in found] for rank in range(count)]
        outputs = [_stopped(_joined(self.segments, some), self.stop) for some in ranked]
        sentences = list(zip(self.segments.sentences, ranked[0], strict=True))
        current().answered(sum(map(len, self.sources)), outputs, ended)
        return Answer(outputs, sentences, sum(map(len, self.sources)), overall([end.times for end in ended]))

    def _outputs(self, end: Finished) -> list[Output]:
        """Of one sentence, best first."""
        outputs = [self.side.output(hypothesis) for hypothesis in end.hypotheses]
        if self.kept is None:
            return outputs
        return [outputs[place] for place in by_consensus([output.text for output in outputs])[: self.kept]]

    async def follow(self, tickets: Iterable[Ticket]) -> AsyncIterator[Delta | Answer]:
        """Deltas in the order of the sentences, and the answer."""
        writer = _Writer(self.stop)
        ended: list[Finished] = []
        for gap, ticket in zip(self.segments.gaps, tickets, strict=False):
            if delta := writer.write(gap):
                yield Delta(delta)
            tokens: tuple[int, ...] = ()
            async for event in ticket.events():
                if isinstance(event, Progress):
                    tokens += event.tokens
                    if delta := writer.show(self.side.settled_text(tokens)):
                        yield Delta(delta, event.tokens)
                elif isinstance(event, Finished):
                    ended.append(event)
                    if delta := writer.finish(self.side.output(event.hypotheses[0]).text):
                        yield Delta(delta)
                else:
                    assert isinstance(event, Failure)
                    raise _refused(event)
        if delta := writer.write(self.segments.gaps[-1]) + writer.end():
            yield Delta(delta)
        yield self.answer(ended)


class _Writer:
    """Text that grows sentence by sentence, and how much of it has been shown: never past a stop, nor what may become
    the beginning of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._before = ""  # the sentences that are done, and what lies between
        self._shown = ""

    def write(self, text: str) -> str:
        self._before += text
        return self._fresh(self._before, last=False)

    def show(self, text: str) -> str:
        """The sentence so far, all of it settled."""
        return self._fresh(self._before + text, last=False)

    def finish(self, text: str) -> str:
        """The sentence is this."""
        return self.write(text)

    def end(self) -> str:
        return self._fresh(self._before, last=True)

    def _fresh(self, text: str, last: bool) -> str:
        cut = _cut(text, self._stop)
        if not last and len(cut) == len(text):
            held = max(
                (size for stop in self._stop for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0
            )
            cut = cut[: len(cut) - held]
        if not cut.startswith(self._shown):
            return ""
        fresh, self._shown = cut[len(self._shown) :], cut
        return fresh


def _asked_settings(ask: Ask, side: TextSide) -> tuple[dict[str, Any], int | None]:
    """The settings to decode with, and of samples that are compared how many are wanted."""
    if ask.mbr is None:
        return ask.settings, None
    if ask.alignments:
        raise invalid("alignments: can be had for what a beam or greedy search finds, not with mbr.", "alignments")
    kept = ask.settings.get("n_best") or side.config.generation.n_best
    try:
        return voters(ask.mbr, kept, ask.settings), kept
    except ValueError as error:
        raise invalid(str(error), "mbr") from None


def _segments(text: str, ask: Ask, tags: Sequence[str]) -> Segments:
    """A text that is not split is answered as it stands; a blank one not at all."""
    if ask.split == "none":
        return Segments(("", ""), (text,)) if text.strip() else Segments(("",), ())
    return split(text, ask.split, ask.language, tags=tags)


def _cut(text: str, stop: Sequence[str]) -> str:
    """The text before the stop that is complete first, and begins first of those that are then: no text that follows
    changes this."""
    ends = [(place + len(one), place) for one in stop if (place := text.find(one)) >= 0]
    return text[: min(ends)[1]] if ends else text


def _stopped(output: Output, stop: Sequence[str]) -> Output:
    text = _cut(output.text, stop)
    return output if text == output.text else replace(output, text=text)


def _joined(segments: Segments, outputs: Sequence[Output]) -> Output:
    """The outputs of the sentences as that of the text."""
    text = segments.join([output.text for output in outputs])
    if len(outputs) == 1:
        return replace(outputs[0], text=text)
    return Output(
        text=text,
        score=sum(output.score for output in outputs),
        tokens=[token for output in outputs for token in output.tokens],
        token_scores=[score for output in outputs for score in output.token_scores],
        finished=all(output.finished for output in outputs),
    )


def _misread(error: ValueError, place: str) -> RefusedError:
    """For a text that the tokenizer cannot read, by its field."""
    return invalid(re.sub("^text[ 1]*:", f"{place}:", str(error)), place)


async def _finished(ticket: Ticket) -> Finished:
    ended = await ticket.end()
    if isinstance(ended, Failure):
        raise _refused(ended)
    assert isinstance(ended, Finished)
    return ended


def _refused(failure: Failure) -> RefusedError:
    retry = 1 if failure.kind in ("late", "lost") else None
    return RefusedError(STATUS[failure.kind], REASON[failure.kind], failure.message, retry_after=retry)
