"""What all tests share: one thread an operator, hypothesis without a clock, and float64 for the laws."""

from collections.abc import Iterator

import hypothesis
import pytest
import torch
from laws.toys import float64

torch.set_num_threads(1)
hypothesis.settings.register_profile("steady", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture
def in_float64() -> Iterator[None]:
    """The laws are checked in float64, where what differs is a mistake and not a rounding."""
    with float64():
        yield
