"""Checkpoints: everything that makes a stopped run go on as if it had never stopped.

A checkpoint is a folder with weights, optimiser and progress, written to the side and renamed, so one that is there is
whole. Older ones keep their weights only, for the average, up to a number. Those between validations are passing: they
are no part of the average, which must not depend on when a run was stopped, and go when the next one comes.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from antiphon import files
from antiphon.model.seq2seq import Seq2Seq
from antiphon.run import load_weights

PASSING = ".passing"  # ends the name of a checkpoint between validations
MODEL, OPTIMIZER, PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Progress:
    """Where a run stands.

    pairs: of the running epoch, as are batches. seconds: of training; validating: those of them in validations. best:
    which weights are the best so far, in words; their metric was `best_value`. stale: validations without better ones.
    noise: where dropout's random numbers stand.
    """

    step: int = 0
    epoch: int = 0
    batches: int = 0
    pairs: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    validating: float = 0.0
    validations: int = 0
    best_score: float | None = None
    best_value: float | None = None
    best: str = ""
    stale: int = 0
    finished: str = ""
    noise: str = ""


def save(
    folder: Path,
    model: Seq2Seq,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    keep: int,
    passing: bool = False,
) -> None:
    """Writes the checkpoint of `progress.step` into `folder`, unless it is there; keeps `keep` for the average."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{progress.step:08d}"
    if any((path / OPTIMIZER).exists() for path in folder.glob(f"{name}*")):
        return
    aside = folder / ".part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    files.write_tensors(aside / MODEL, dict(model.named_parameters()))
    files.write_tensors(aside / OPTIMIZER, _moments(model, optimizer))
    progress.noise = model.noise.state()
    _write_progress(aside, progress)
    aside.rename(folder / (name + PASSING if passing else name))
    averaged = validated(folder, keep)
    for old in checkpoints(folder)[:-1]:
        if old in averaged:
            (old / OPTIMIZER).unlink(missing_ok=True)
        else:
            shutil.rmtree(old)


def update(folder: Path, progress: Progress) -> None:
    """Tells the newest checkpoint what has become of the run since."""
    found = newest(folder)
    if found is not None:
        _write_progress(found, progress)


def _write_progress(checkpoint: Path, progress: Progress) -> None:
    files.write_text(checkpoint / PROGRESS, json.dumps(asdict(progress), indent=2) + "\n")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*"))


def validated(folder: Path, keep: int) -> list[Path]:
    """The last `keep` checkpoints that were validated, oldest first: those that are averaged."""
    return [path for path in checkpoints(folder) if path.suffix != PASSING][-keep:]


def newest(folder: Path) -> Path | None:
    """The checkpoint in `folder` that a run goes on from; None if there is none."""
    return next((path for path in reversed(checkpoints(folder)) if (path / OPTIMIZER).exists()), None)


def restore(folder: Path, model: Seq2Seq, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Brings back the newest checkpoint; None if there is none. Raises ValueError where it is broken or another's."""
    found = newest(folder)
    if found is None:
        return None
    try:
        progress = Progress(**json.loads((found / PROGRESS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{found / PROGRESS}: is not what training writes ({error}); restore the file, or train anew into another "
            "folder."
        ) from None
    load_weights(model, found / MODEL)
    stored = _read(found / OPTIMIZER)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            if f"step/{name}" in stored:
                optimizer.state[parameter] = {
                    moment: stored[f"{moment}/{name}"].to(parameter.device) for moment in MOMENTS
                }
    model.noise.restore(progress.noise)
    return progress


def average(folder: Path, keep: int) -> dict[str, Tensor]:
    """The mean of the weights of the last `keep` checkpoints in `folder` that were validated."""
    found = validated(folder, keep)
    total: dict[str, Tensor] = {}
    for path in found:
        for name, tensor in _read(path / MODEL).items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    return {name: (tensor / len(found)).float() for name, tensor in total.items()}


@torch.no_grad()
def load_parameters(model: Seq2Seq, tensors: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(tensors[name])


def _moments(model: Seq2Seq, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file}: cannot be read ({error}); restore the file, or train anew into another folder."
        ) from None
