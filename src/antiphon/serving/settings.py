"""What a server is told: which models, how they run, and the limits it holds."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from antiphon import machine
from antiphon.text_side import members_of

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")
CODE = re.compile(r"[a-zA-Z]{2,3}(?:-[a-zA-Z0-9]{2,8})*")


class ServerSettings(BaseModel):
    """Of one server; `create_app` takes them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: dict[str, Path] = Field({}, description="the run folder of each model by the name it is served as")
    watch: Path | None = Field(None, description="the folder whose trainings are shown; then runs may be left out")
    languages: dict[str, tuple[str, str]] = Field(
        {}, description="(source, target) codes of a model whose name does not end with them, as NAME-en-fr does"
    )
    device: str = Field("cpu", description="cpu, cuda, or auto")
    precision: Literal["auto", "float32", "int8"] = Field("auto", description="of the linear layers")
    workers: int = Field(0, ge=0, description="engine processes; 0: the engine is a thread of the server")
    max_outstanding: int = Field(512, ge=1, description="requests that may wait or run at once; more are told 429")
    max_texts: int = Field(256, ge=1, description="texts in one HTTP request")
    max_output: int = Field(1024, ge=1, description="tokens that an output may have")
    max_body: int = Field(1 << 20, ge=1, description="bytes of an HTTP request's body")
    timeout: float = Field(60.0, gt=0, description="seconds after which a request that has no answer is given up")
    body_seconds: float = Field(30.0, gt=0, description="seconds that an HTTP request's body may take to come")
    drain_seconds: float = Field(
        30.0, ge=0, allow_inf_nan=False, description="seconds that requests have to end when the server stops"
    )
    api_keys: Path | None = Field(None, description="the file of those who may ask; None: everybody may")
    cors_origins: tuple[str, ...] = Field((), description="origins of web pages that may ask; * is all of them")
    log_texts: bool = Field(False, description="texts and outputs stand in the log")
    trace: bool = Field(False, description="spans for OpenTelemetry; they are made too where its variables are set")

    @model_validator(mode="after")
    def _check_purpose(self) -> Self:
        if not self.runs and self.watch is None:
            raise ValueError("there is nothing to serve; give a run that was trained, or a folder to --watch.")
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name in self.runs:
            if not name or name != name.strip() or "/" in name or not name.isprintable():
                raise ValueError(f"model name {name!r}: expected printable characters without a slash.")
        return self

    @model_validator(mode="after")
    def _check_origins(self) -> Self:
        for origin in self.cors_origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"CORS origin {origin!r}: expected one such as https://example.org, or *.")
        return self

    @model_validator(mode="after")
    def _check_languages(self) -> Self:
        for name, pair in self.languages.items():
            if name not in self.runs:
                served = f"there are {', '.join(self.runs)}" if self.runs else "no model is"
                raise ValueError(f"languages: model {name!r} is not served; {served}.")
            for code in pair:
                if not CODE.fullmatch(code):
                    raise ValueError(f"languages: {code!r} of model {name!r}: expected a code such as en or pt-BR.")
        return self


def server_settings(**settings: Any) -> ServerSettings:
    """Raises ValueError, in a sentence, for one that cannot be."""
    try:
        return ServerSettings(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        place, message = ".".join(map(str, first["loc"])), str(first["msg"]).removeprefix("Value error, ")
        raise ValueError(f"{place}: {message}" if place else message) from None


def runs_by_name(words: list[str]) -> dict[str, Path]:
    """RUN or NAME=RUN -> the folder by the name, where RUN may be an ensemble, as RUN+RUN. Raises ValueError when two
    models have one name."""
    runs: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or Path(word).is_dir():
            name, folder = "+".join(map(_name, members_of(word))), word
        if name in runs:
            raise ValueError(f"{word}: another model is called {name!r} too; say how to call it, as NAME={folder}.")
        runs[name] = Path(folder)
    return runs


def _name(folder: Path) -> str:
    """As it is written; of a folder that is written with dots alone, its own."""
    return folder.name if folder.name.strip(".") else folder.resolve().name


def best_workers(device: str) -> int:
    """Engine processes that suit this machine: one for each of its cores, or none when there is one, or a GPU."""
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = machine.cores()
    return cores if device == "cpu" and cores > 1 else 0
