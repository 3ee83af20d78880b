"""What a run wrote down while it trained, `metrics.jsonl`: one JSON object a line, each with its "step"."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_records(metrics: Path) -> Iterator[dict[str, Any]]:
    """The records of a `metrics.jsonl`, in their order.

    A last line without its newline, as a killed run leaves it, is left out. Raises ValueError, with the line, for any
    other that is not a JSON object with a step, once it is reached.
    """
    try:
        text = metrics.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{metrics}: cannot be read ({error.strerror}).") from None
    *whole, _unfinished = text.split("\n")
    for number, line in enumerate(whole, 1):
        yield _parse(line, f"{metrics}, line {number}")


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise ValueError(f"{place}: expected a JSON object with a step, found {line[:60]!r}; delete the line.")
    return record
