"""Writing files so that a reader, or a run that is killed, never finds half of one: to the side, then renamed."""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def write_text(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file."""
    from safetensors.torch import save_file

    aside = path.with_name(f".{path.name}.part")
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, aside)
    aside.replace(path)
