"""What a server does at this moment: its engines as they are, and how long the requests of the last minute took."""

import time
from collections import deque
from dataclasses import asdict
from typing import Any

from antiphon.serving.account import Account
from antiphon.serving.service import Service

WINDOW = 60.0  # seconds that are looked back on
KEPT = 20_000  # requests at most


class Load:
    """Keeps the last minute of the requests for a model that were answered."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._answered: deque[tuple[float, float]] = deque(maxlen=KEPT)  # when, and the seconds it took

    def record(self, account: Account) -> None:
        """A request that has ended."""
        if account.model and account.outcome == "answered":
            self._answered.append((time.monotonic(), account.seconds))

    def now(self) -> dict[str, Any]:
        """engines: those that take requests. Then the fields of `Statistics`, over all engines: what they do now, and
        what they have done since they began. answered: requests in the last `window` seconds; p50 and p95: seconds that
        these took, or None."""
        since = time.monotonic() - WINDOW
        while self._answered and self._answered[0][0] < since:
            self._answered.popleft()
        seconds = sorted(took for _, took in self._answered)
        pool = self._service.pool
        return {
            "time": time.time(),
            "engines": pool.ready,
            **asdict(pool.statistics),
            "window": WINDOW,
            "answered": len(seconds),
            "p50": _percentile(seconds, 0.50),
            "p95": _percentile(seconds, 0.95),
        }


def _percentile(ordered: list[float], share: float) -> float | None:
    """The smallest that at least this share do not exceed."""
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)] if ordered else None
