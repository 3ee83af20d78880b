"""An engine in a process of its own, told what to do over a pipe: `python -m antiphon.engine DESCRIPTOR`.

It gets Hosted first, answers Ready or Broken, and then gets lists of requests, calls and ids to cancel, and answers
with deliveries. It ends when told to, or when the pipe does: whoever began it is gone then. Signals are for those who
began it, which end it in their own time.
"""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from antiphon import machine
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


def main() -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s engine %(process)d: %(message)s")
    machine.settle()
    pipe = Connection(int(sys.argv[1]))
    try:
        _serve(pipe)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # nobody is there who could want an answer


def _serve(pipe: Connection) -> None:
    from antiphon.engine.host import make_engine

    lock = threading.Lock()

    def deliver(told: list[Delivery], statistics: Statistics) -> None:
        try:
            with lock:
                pipe.send((told, statistics))
        except OSError:
            os._exit(0)

    try:
        engine = make_engine(pipe.recv(), deliver)
    except (ValueError, OSError) as error:
        pipe.send(Broken(str(error)))
        return
    gc.collect()
    gc.freeze()  # what is there now stays: no request shall wait until all of it is looked through
    pipe.send(Ready())
    engine.start()
    while (messages := pipe.recv()) is not CLOSE:
        for message in messages:
            if isinstance(message, Request):
                engine.submit(message)
            elif isinstance(message, Call):
                engine.call(message)
            else:
                engine.cancel(message)
    engine.close()
