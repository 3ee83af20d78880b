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
from multiprocessing.connection import Connection

from antiphon import machine
from antiphon.engine.messages import CLOSE, Broken, Ready
from antiphon.engine.request import Call, Delivery, Request, Statistics


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
