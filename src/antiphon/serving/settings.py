"""What a server is told: which models, how they run, and the limits it holds."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from antiphon import machine


class ServerSettings(BaseModel):
    """Of one server; `create_app` takes them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: dict[str, Path] = Field(min_length=1, description="the run folder of each model by the name it is served as")
    device: str = Field("cpu", description="cpu, cuda, or auto")
    precision: Literal["auto", "float32", "int8"] = Field("auto", description="of the linear layers")
    workers: int = Field(0, ge=0, description="engine processes; 0: the engine is a thread of the server")
    max_outstanding: int = Field(512, ge=1, description="requests that may wait or run at once; more are told 429")
    max_texts: int = Field(256, ge=1, description="texts in one HTTP request")
    max_output: int = Field(1024, ge=1, description="tokens that an output may have")
    max_body: int = Field(1 << 20, ge=1, description="bytes of an HTTP request's body")
    timeout: float = Field(60.0, gt=0, description="seconds after which a request that has no answer is given up")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name in self.runs:
            if not name or name != name.strip() or "/" in name or not name.isprintable():
                raise ValueError(f"model name {name!r}: expected printable characters without a slash.")
        return self


def runs_by_name(words: list[str]) -> dict[str, Path]:
    """RUN or NAME=RUN -> the folder by the name. Raises ValueError when two models have one name."""
    runs: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or Path(word).is_dir():
            name, folder = Path(word).resolve().name, word
        if name in runs:
            raise ValueError(f"{word}: another model is called {name!r} too; say how to call it, as NAME={folder}.")
        runs[name] = Path(folder)
    return runs


def best_workers(device: str) -> int:
    """Engine processes that suit this machine: one for each of its cores, or none when there is one, or a GPU."""
    cores = machine.cores()
    return cores if device == "cpu" and cores > 1 else 0
