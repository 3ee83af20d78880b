"""What goes into an engine and what comes out of it: plain records, which travel between processes.

Ids only, no text and no tensors. Times are seconds of `time.monotonic`, which all processes of a machine share.
"""

from dataclasses import dataclass
from typing import Any, Literal

from antiphon.config import GenerationConfig
from antiphon.decoding.search import Hypothesis

Priority = Literal["interactive", "batch"]


@dataclass(frozen=True, slots=True)
class Request:
    """A source to answer. id: one of its own among all requests.

    source: ids ending with EOS. max_length, prefix: as of `make_search`. stream: tokens are handed out as soon as they
    cannot change any more. key: whose it is; keys share the engine fairly. deadline: when nobody waits any longer.
    """

    id: int
    model: str
    source: tuple[int, ...]
    settings: GenerationConfig
    max_length: int
    prefix: tuple[int, ...] = ()
    stream: bool = False
    key: str = ""
    priority: Priority = "interactive"
    deadline: float | None = None

    @property
    def rows(self) -> int:
        """The most rows that it may have at once."""
        return self.settings.n_best if self.settings.sample else self.settings.beam_size

    @property
    def tokens(self) -> int:
        """The most tokens that are kept for it at once: of its source, and of all its rows."""
        return len(self.source) + self.rows * max(self.max_length, len(self.prefix) + 1)


@dataclass(frozen=True, slots=True)
class Call:
    """Work on a whole model that is no request of a running batch: `method` is one of `engine.calls`."""

    id: int
    model: str
    method: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Times:
    """When a request came, was encoded, had its first token, and ended."""

    came: float
    encoded: float
    first: float
    ended: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Further tokens of the output that a request will have."""

    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a request: its hypotheses, best first."""

    hypotheses: list[Hypothesis]
    times: Times


@dataclass(frozen=True, slots=True)
class Returned:
    """The end of a call: what it returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a request or call that has no answer.

    kind: "refused": it asked for what cannot be; "failed": the model failed at it; "late": its deadline passed; "lost":
    the engine ended while it ran.
    """

    kind: Literal["refused", "failed", "late", "lost"]
    message: str


Event = Progress | Finished | Returned | Failure
Delivery = tuple[int, Event]  # the id of a request or call, and what became of it


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an engine does now (waiting, running, rows, tokens kept for these), and has done since it began."""

    waiting: int = 0
    running: int = 0
    rows: int = 0
    tokens: int = 0
    steps: int = 0
    row_steps: int = 0  # rows, summed over the steps
    encoded: int = 0  # sources
    generated: int = 0  # tokens of finished outputs
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0
