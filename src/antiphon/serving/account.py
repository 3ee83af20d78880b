"""What is known of one request while it is answered, for logs, metrics and traces: whose it is, what it came to, how it
ended.

The middleware opens an account, the service and the dialects write into the one that is open, and whoever keeps books
reads it when the answer has gone out. Where none is open, what is written is lost, and nobody needs to ask.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from antiphon.engine.request import Finished, Times
from antiphon.text_side import Output


@dataclass(frozen=True, slots=True)
class Run:
    """One request that an engine has answered. steps: tokens of its longest hypothesis, with its end; stopped: the best
    one ended by itself, and was not cut at its longest length."""

    times: Times
    steps: int
    stopped: bool


@dataclass(slots=True)
class Account:
    """Of one HTTP request. client: the name of its key; refused: the reason, a word; begun: its answer, for which the
    engine may be asked more than once; left: the client went away before the end; sent: bytes of the answer's body."""

    request_id: str = ""
    method: str = ""
    path: str = ""
    started: float = 0.0
    client: str = ""
    model: str = ""
    refused: str = ""
    begun: bool = False
    left: bool = False
    status: int = 0
    sent: int = 0
    seconds: float = 0.0
    trace: str = ""
    source_tokens: int = 0
    output_tokens: int = 0
    runs: list[Run] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """answered, left, or the reason why it was refused."""
        return self.refused or ("left" if self.left else "answered")

    @property
    def times(self) -> Times | None:
        """From the first that one of its runs came, was encoded and had a token, to the last that ended."""
        return overall([run.times for run in self.runs]) if self.runs else None

    def asked(self, model: str, texts: Sequence[str] = ()) -> None:
        """Of a model that is served."""
        self.model = model
        self.texts += texts

    def answered(self, source_tokens: int, outputs: Sequence[Output], ended: Sequence[Finished] = ()) -> None:
        """To one text: its n best outputs, and the runs that made them."""
        self.source_tokens += source_tokens
        self.output_tokens += sum(len(output.tokens) for output in outputs)
        self.outputs += [output.text for output in outputs[:1]]
        self.runs += [_run(one) for one in ended]


_OPEN: ContextVar[Account | None] = ContextVar("antiphon_account", default=None)


def open_account(account: Account) -> None:
    """It is the current one of this task, and of those that it begins."""
    _OPEN.set(account)


def current() -> Account:
    return _OPEN.get() or Account()


def overall(times: Sequence[Times]) -> Times:
    return Times(
        min(one.came for one in times),
        min(one.encoded for one in times),
        min(one.first for one in times),
        max(one.ended for one in times),
    )


def _run(ended: Finished) -> Run:
    longest = max(len(hypothesis.tokens) for hypothesis in ended.hypotheses)
    return Run(ended.times, longest, ended.hypotheses[0].ended)
