"""What an engine process is told over its pipe, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from antiphon.engine.request import Call, Delivery, Request, Statistics
from antiphon.engine.scheduler import Limits

CLOSE = None  # the message that asks it to finish and end


@dataclass(frozen=True)
class Hosted:
    """What an engine runs: the run folder of each model by its name, and how. threads: of torch's operators; 0: its own
    choice."""

    runs: Mapping[str, Path]
    device: str = "cpu"
    precision: Literal["auto", "float32", "int8"] = "auto"
    threads: int = 0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Ready:
    """The models are loaded and warm."""


@dataclass(frozen=True)
class Broken:
    """A model cannot be had: why, in a sentence."""

    reason: str


Message = list[Request | Call | int] | None  # of ids to cancel
Answer = Ready | Broken | tuple[list[Delivery], Statistics]
