"""Logs as lines of JSON on stderr: one for each request that has been answered, and one for whatever else is told.

Texts of users are in none of them, unless they are asked for. A traceback tells code and not values.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from antiphon.serving.account import Account, current

ACCESS = logging.getLogger("antiphon.access")
QUIET = {"/healthz", "/readyz", "/metrics"}  # asked all the time, by machines


class JsonLines(logging.Formatter):
    """time, level, request_id where one is answered, logger, message, and what `fields` has."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment, "level": record.levelname.lower()}
        if identity := current().request_id:
            line["request_id"] = identity
        line |= {"logger": record.name, "message": record.getMessage()} | getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII: what a client sends may be no Unicode


@contextmanager
def json_logs() -> Iterator[None]:
    """For a process that is a server: everything from warnings on, and this package's own from informations on."""
    root, own = logging.getLogger(), logging.getLogger("antiphon")
    handler, level = logging.StreamHandler(sys.stderr), own.level
    handler.setFormatter(JsonLines())
    root.addHandler(handler)
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        own.setLevel(level)


def log_request(account: Account, texts: bool) -> None:
    """The line of a request that has been answered."""
    level = logging.DEBUG if account.path in QUIET and account.status < 400 else logging.INFO
    if not ACCESS.isEnabledFor(level):
        return
    fields: dict[str, Any] = {
        "method": account.method,
        "path": account.path[:200],
        "status": account.status or 499,  # as nginx calls it: the client left before there was one
        "ms": round(1000 * account.seconds, 1),
        "bytes": account.sent,
    }
    known = {"key": account.client, "model": account.model, "trace": account.trace}
    tokens = {"source_tokens": account.source_tokens, "output_tokens": account.output_tokens}
    fields |= {name: value for name, value in (known | tokens).items() if value}
    if account.outcome != "answered":
        fields["outcome"] = account.outcome
    if texts and account.texts:
        fields |= {"texts": account.texts, "outputs": account.outputs}
    # Made by hand: it takes long to find who has called, and that is known.
    ACCESS.handle(ACCESS.makeRecord(ACCESS.name, level, "", 0, "request", (), None, extra={"fields": fields}))
