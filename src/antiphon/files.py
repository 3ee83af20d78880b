"""Writing files so that a reader, or a run that is killed, never finds half of one: to the side, then renamed."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor


def write_text(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file. Raises ValueError where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    aside = path.with_name(f".{path.name}.part")
    try:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, aside, metadata)
    except SafetensorError as error:  # what the library makes of an OSError
        raise ValueError(f"{path}: cannot be written ({error}); check its rights and the disk's room.") from None
    aside.replace(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder aside to write into; it becomes `path` if all goes well, else it is gone.

    Raises ValueError when something is there already.
    """
    path = path.resolve()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path}: is there and is not an empty folder; nothing was written, choose another.")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        if path.exists():
            path.rmdir()
        aside.replace(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
