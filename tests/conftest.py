"""What all tests share: one thread an operator, hypothesis without a clock, float64 for the laws, and a tiny run."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from laws.toys import float64
from letters import train_letters

from antiphon.run import Model

torch.set_num_threads(1)
hypothesis.settings.register_profile("steady", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture
def in_float64() -> Iterator[None]:
    """The laws are checked in float64, where what differs is a mistake and not a rounding."""
    with float64():
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run. Nobody writes into it."""
    return train_letters(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    return Model.load(folder)
