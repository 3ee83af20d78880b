"""The one way from texts to answers, which all dialects take: texts -> ids -> engine -> hypotheses -> texts.

It knows no HTTP. A long text is split into sentences, each a request of its own in the running batch.
"""

import asyncio
import math
import re
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

from antiphon.choosing import Choice
from antiphon.config import GenerationConfig, generation_settings
from antiphon.engine.messages import Hosted
from antiphon.engine.pool import EnginePool, Ticket, UnavailableError
from antiphon.engine.request import Failure, Priority, Returned
from antiphon.ids import UNK
from antiphon.segments import Segments, split
from antiphon.serving.account import current
from antiphon.serving.answers import Answer, Delta, Plan, finished, refused, stopped
from antiphon.serving.errors import RefusedError, invalid
from antiphon.serving.settings import ServerSettings
from antiphon.text_side import LONG_TEXT, Output, TextSide
from antiphon.words import Word

SHOWN = 40  # characters of a text in a message
T = TypeVar("T")


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
    keep: phrases; of a beam's hypotheses, the n best are those that leave out the fewest. stop: an output ends before
    the first of these that is complete. timeout: seconds, at most the server's.
    """

    texts: Sequence[str]
    model: str | None = None
    prefix: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    mbr: int | None = None
    keep: Sequence[str] = ()
    split: Literal["none", "sentence"] = "none"
    language: str = "en"  # of the texts, for splitting them
    stop: Sequence[str] = ()
    alignments: bool = False
    timeout: float | None = None


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
        _refuse_unknown(plans)
        if ask.alignments:
            return await self._aligned(ask, plans, client)
        with self._counted(plans, client), closing(self._submitted(plans, client)) as tickets:
            ended = [[await finished(next(tickets)) for _ in plan.sources] for plan in plans]

        def answers() -> list[Answer]:
            return [plan.answer(found) for plan, found in zip(plans, ended, strict=True)]

        return answers() if all(plan.choice.is_by_search for plan in plans) else await asyncio.to_thread(answers)

    async def stream(self, ask: Ask, client: Client = ANYBODY) -> AsyncGenerator[Delta | Answer, None]:
        """Deltas of the answer to the one text, which make up its text, and at the end the answer. What is refused is
        told before the first of them."""
        if ask.mbr is not None:
            raise invalid("mbr: its samples are compared when all have ended, so there is nothing to stream.", "mbr")
        if ask.keep:
            raise invalid("keep: hypotheses are compared when all have ended; leave out keep, or stream.", "keep")
        if ask.settings.get("n_best") is None:
            ask = replace(ask, settings=dict(ask.settings) | {"n_best": 1})
        (plan,) = await aside(ask.texts, partial(self._plan, ask))
        _refuse_unknown([plan])
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
            raise refused(ended)
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
            ended = [await finished(ticket) for ticket in tickets]
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

    def _plan(self, ask: Ask) -> list[Plan]:
        """What to ask the engine for; refuses what cannot be."""
        name, side = self.side(ask.model)
        current().asked(name, ask.texts)
        if len(ask.texts) > self.settings.max_texts:
            raise invalid(f"text: at most {self.settings.max_texts} texts, found {len(ask.texts)}.", "text")
        asked, choice = _asked_settings(ask, side)
        settings, prefix = self.check_settings(name, asked, ask.prefix)
        deadline = time.monotonic() + min(ask.timeout or math.inf, self.settings.timeout)
        plans = []
        for text in ask.texts:
            segments = _segments(text, ask, side.facts.tags)
            sources = [tuple(self.check_length(name, sentence)) for sentence in segments.sources]
            plans.append(Plan(name, side, settings, prefix, segments, sources, tuple(ask.stop), deadline, choice))
        return plans

    def _at_once(self, client: Client) -> int:
        """Requests that one client's texts may make at the same time: a long text leaves places for others."""
        half = max(1, self.settings.max_outstanding // 2)
        return min(half, client.max_outstanding or half)

    def _submitted(self, plans: Sequence[Plan], client: Client, stream: bool = False) -> Generator[Ticket, None, None]:
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

    def _submit(self, plan: Plan, source: tuple[int, ...], client: Client, stream: bool) -> Ticket:
        request = partial(
            self.pool.submit,
            model=plan.model,
            source=source,
            settings=plan.settings,
            max_length=plan.side.max_length(len(source), plan.settings, self.settings.max_output),
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

    async def _aligned(self, ask: Ask, plans: list[Plan], client: Client) -> list[Answer]:
        """Attention is looked at aside from the running batch, which does not keep it."""
        if ask.split != "none":
            raise invalid("alignments: can be had for a text that is not split; set split to none.", "alignments")
        plan = plans[0]
        arguments = {"prefix": ask.prefix, "settings": plan.settings.model_dump(), "longest": self.settings.max_output}
        found = await self.call(ask.model, "align", client, timeout=ask.timeout, texts=list(ask.texts), **arguments)
        answers = []
        for plan, outputs in zip(plans, found, strict=True):
            shown = plan.choice.among("", [stopped(Output(**output), plan.stop) for output in outputs])
            current().answered(sum(map(len, plan.sources)), shown)
            answers.append(Answer(shown, [], sum(map(len, plan.sources))))
        return answers

    def _counted(self, plans: Sequence[Plan], client: Client) -> "_Count":
        """Holds places for requests, or a call, while they are answered; refuses when there is none."""
        count = min(sum(len(plan.sources) for plan in plans), self._at_once(client)) if plans else 1
        if self.draining and not current().begun:
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
        current().begun = True
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


def _refuse_unknown(plans: Sequence[Plan]) -> None:
    """No output can begin with what a model does not know."""
    if any(UNK in plan.prefix for plan in plans):
        raise invalid("prefix: the model does not know all of it, and cannot say it; change it.", "prefix")


def _asked_settings(ask: Ask, side: TextSide) -> tuple[dict[str, Any], Choice]:
    """The settings to decode with, and which of the outputs are wanted."""
    if ask.mbr is not None and ask.alignments:
        raise invalid("alignments: can be had for what a beam or greedy search finds, not with mbr.", "alignments")
    if ask.keep and ask.split != "none":
        raise invalid("keep: its phrases are those of a text that is not split; set split to none.", "keep")
    usual = side.config.generation
    n_best = usual.n_best if ask.settings.get("n_best") is None else ask.settings["n_best"]
    choice = Choice(n_best, ask.mbr, (lambda _: ask.keep) if ask.keep else None)
    try:
        return choice.to_search(ask.settings, usual), choice
    except ValueError as error:
        raise invalid(str(error), "keep" if ask.mbr is None else "mbr") from None


def _segments(text: str, ask: Ask, tags: Sequence[str]) -> Segments:
    """A text that is not split is answered as it stands; a blank one not at all."""
    if ask.split == "none":
        return Segments(("", ""), (text,)) if text.strip() else Segments(("",), ())
    return split(text, ask.split, ask.language, tags=tags)


def _misread(error: ValueError, place: str) -> RefusedError:
    """For a text that the tokenizer cannot read, by its field."""
    return invalid(re.sub("^text[ 1]*:", f"{place}:", str(error)), place)
