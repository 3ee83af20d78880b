"""API keys: who may ask, how much, and how urgently. Only digests of them are kept and compared.

They stand in a file of TOML, which is read again when it has changed, and there may be one in the environment variable
ANTIPHON_API_KEY. A file that is broken when it changes leaves the keys as they were, and is told in the log.

    [[keys]]
    name = "alice"
    key = "..."                 # or sha256 = "...", its digest in hexadecimal digits
    priority = "batch"          # interactive, when nothing is said
    max_outstanding = 8         # requests that may wait or run at once
    requests_per_minute = 600
"""

import hashlib
import hmac
import logging
import math
import time
import tomllib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from antiphon.serving.errors import RefusedError
from antiphon.serving.service import Client

VARIABLE = "ANTIPHON_API_KEY"
SHORTEST = 16  # characters of a key
WINDOW = 60.0  # seconds that requests are counted over

log = logging.getLogger(__name__)


class KeyEntry(BaseModel):
    """A key as it stands in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")
    key: str | None = Field(None, min_length=SHORTEST, max_length=512, pattern=r"^[!-~]*$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$")
    priority: Literal["interactive", "batch"] = "interactive"
    max_outstanding: int | None = Field(None, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("expected one of key and sha256")
        return self


class KeyFile(BaseModel):
    """The file. An empty list lets nobody in; a file without one is a mistake, or not yet written to its end."""

    model_config = ConfigDict(extra="forbid")

    keys: list[KeyEntry]

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [entry.name for entry in self.keys]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two keys are named {twice[0]!r}")
        return self


@dataclass(frozen=True)
class Known:
    """A key that lets its client in. digest: its SHA-256."""

    digest: bytes
    client: Client
    requests_per_minute: int | None = None


class Keys:
    """Those of a server. Raises ValueError, in a sentence, for a file or a key that cannot be used."""

    def __init__(self, file: Path | None, given: str | None = None) -> None:
        self._file = file
        self._given = [] if given is None else [_given(given)]
        self._known: list[Known] = []
        self._seen: tuple[int, ...] = ()
        self._asked: dict[str, deque[float]] = {}  # when each client with a limit did, in the last minute
        if file is not None:
            self._seen = _signature(file)
            self._known = read_keys(file)

    @property
    def are_needed(self) -> bool:
        return self._file is not None or bool(self._given)

    def admit(self, key: str | None, counted: bool = True) -> Client:
        """Whose key it is. Raises RefusedError for one that is missing or not known, and for too many requests."""
        self._look_again()
        if not key:
            raise RefusedError(401, "unauthorized", "an API key is needed; send it as Authorization: Bearer KEY.")
        found = find_key([*self._known, *self._given], key)
        if found is None:
            raise RefusedError(401, "unauthorized", "this API key is not known here.")
        if counted and found.requests_per_minute:
            self._count(found.client.name, found.requests_per_minute, time.monotonic())
        return found.client

    def _count(self, name: str, limit: int, now: float) -> None:
        asked = self._asked.setdefault(name, deque())
        while asked and asked[0] <= now - WINDOW:
            asked.popleft()
        if len(asked) >= limit:
            pause = max(1, math.ceil(asked[len(asked) - limit] + WINDOW - now))
            message = f"this key may ask {limit} times a minute, and has; ask again in {pause} seconds."
            raise RefusedError(429, "overloaded", message, retry_after=pause)
        asked.append(now)

    def _look_again(self) -> None:
        if self._file is None:
            return
        before = self._seen
        try:
            self._seen = ()
            self._seen = _signature(self._file)
            if self._seen == before:
                return
            self._known = read_keys(self._file)
            log.info("%s: has changed; there are %d keys now", self._file, len(self._known))
        except ValueError as error:
            if before or self._seen:  # else it is still gone, which has been told
                log.error("%s The keys stay as they were.", error)


def find_key(known: Sequence[Known], key: str) -> Known | None:
    """All are compared, each in constant time: how long it takes tells nothing of which it is, or how much of it."""
    digest = _digest(key)
    found = None
    for one in known:
        if hmac.compare_digest(one.digest, digest):
            found = one
    return found


def read_keys(file: Path) -> list[Known]:
    """Raises ValueError, in a sentence, for a file that cannot be used."""
    try:
        entries = KeyFile.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).keys
    except OSError as error:
        raise ValueError(f"{file}: the file of API keys cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: expected API keys in TOML, found a mistake: {error}.") from None
    except ValidationError as error:
        raise ValueError(f"{file}: {_mistake(error)}.") from None
    known = [_known(entry) for entry in entries]
    whose: dict[bytes, str] = {}
    for one in known:
        first = whose.setdefault(one.digest, one.client.name)
        if first != one.client.name:
            raise ValueError(f"{file}: {first!r} and {one.client.name!r} have the same key; give each its own.")
    return known


def _known(entry: KeyEntry) -> Known:
    digest = bytes.fromhex(entry.sha256) if entry.sha256 else _digest(entry.key or "")
    client = Client(entry.name, entry.priority, entry.max_outstanding)
    return Known(digest, client, entry.requests_per_minute)


def _given(key: str) -> Known:
    """The key of the environment."""
    try:
        return _known(KeyEntry(name="default", key=key))
    except ValidationError:
        told = "unset it, or give" if not key else "expected"
        raise ValueError(f"{VARIABLE}: {told} at least {SHORTEST} characters of ASCII without spaces.") from None


def _mistake(error: ValidationError) -> str:
    """The first one, without what was found: that may be a key."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"not known; a key may have {', '.join(KeyEntry.model_fields)}"
    return f"{place}: {message}" if place else message


def _signature(file: Path) -> tuple[int, ...]:
    """What changes when the file does, or who may read it."""
    try:
        stat = file.stat()
    except OSError as error:
        raise ValueError(f"{file}: the file of API keys cannot be read ({error.strerror}).") from None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
