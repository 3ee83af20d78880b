"""One text on its way: what its sentences' results come to, at the end or while they grow."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace

from antiphon.choosing import Choice
from antiphon.config import GenerationConfig
from antiphon.engine.pool import Ticket
from antiphon.engine.request import Failure, Finished, Progress, Times
from antiphon.segments import Segments
from antiphon.serving.account import current, overall
from antiphon.serving.errors import RefusedError
from antiphon.text_side import BLANK, Output, TextSide

LONGEST_STOP = 256  # characters of a text that ends an output: all its beginnings are looked for as the output grows
STATUS = {"refused": 422, "failed": 500, "late": 504, "lost": 503}
REASON = {"refused": "invalid", "failed": "failed", "late": "late", "lost": "unavailable"}


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
class Plan:
    """One text on its way: its sentences as ids, and how they are put together again. choice: which outputs
    to each are given."""

    model: str
    side: TextSide
    settings: GenerationConfig
    prefix: tuple[int, ...]
    segments: Segments
    sources: list[tuple[int, ...]]
    stop: tuple[str, ...]
    deadline: float
    choice: Choice

    def answer(self, ended: Sequence[Finished]) -> Answer:
        """The sentences' results as one."""
        found = [self.outputs(source, end) for source, end in zip(self.segments.sources, ended, strict=True)]
        if not found:
            return Answer([stopped(replace(BLANK, text=self.segments.join([])), self.stop)], [], 0)
        count = max(map(len, found))
        ranked = [[outputs[min(rank, len(outputs) - 1)] for outputs in found] for rank in range(count)]
        outputs = [stopped(_joined(self.segments, some), self.stop) for some in ranked]
        sentences = list(zip(self.segments.sentences, ranked[0], strict=True))
        current().answered(sum(map(len, self.sources)), outputs, ended)
        return Answer(outputs, sentences, sum(map(len, self.sources)), overall([end.times for end in ended]))

    def outputs(self, source: str, end: Finished) -> list[Output]:
        """Of one sentence, best first."""
        found = [self.side.output(hypothesis) for hypothesis in end.hypotheses]
        if not self.choice.is_by_search and len(self.sources) == 1:  # what is cut off does not count
            found = [stopped(output, self.stop) for output in found]
        return self.choice.among(source, found)

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
                    raise refused(event)
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
        kept = cut(text, self._stop)
        if not last and len(kept) == len(text):
            sizes = ((stop, range(1, min(len(stop), len(text) + 1))) for stop in self._stop)
            held = max((size for stop, some in sizes for size in some if text.endswith(stop[:size])), default=0)
            kept = kept[: len(kept) - held]
        if not kept.startswith(self._shown):
            return ""
        fresh, self._shown = kept[len(self._shown) :], kept
        return fresh


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the stop that is complete first, and begins first of those that are then: no text that follows
    changes this."""
    ends = [(place + len(one), place) for one in stop if (place := text.find(one)) >= 0]
    return text[: min(ends)[1]] if ends else text


def stopped(output: Output, stop: Sequence[str]) -> Output:
    text = cut(output.text, stop)
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


async def finished(ticket: Ticket) -> Finished:
    ended = await ticket.end()
    if isinstance(ended, Failure):
        raise refused(ended)
    assert isinstance(ended, Finished)
    return ended


def refused(failure: Failure) -> RefusedError:
    retry = 1 if failure.kind in ("late", "lost") else None
    return RefusedError(STATUS[failure.kind], REASON[failure.kind], failure.message, retry_after=retry)
