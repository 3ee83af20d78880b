"""Trains and measures what a table takes, one core each, so many side by side. Stopped, it goes on where it was."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from recipe import Measurement, Recipe, Training
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LOOK = 1.0  # seconds between looks at whether a command is to be stopped


def train(job: Training, stopped: Event) -> None:
    """Trains and measures on one core. What it says goes to a log beside the model."""
    job.out.mkdir(parents=True, exist_ok=True)
    recipe = job.recipe
    words = ["train", job.pairs(recipe.train, *job.tasks), "--out", str(job.out)]
    if recipe.chosen_by:
        words += ["--dev", job.pairs(recipe.chosen_by, *job.tasks)]
    words += ["--source-key", recipe.keys[0], "--target-key", recipe.keys[1]]
    if (job.out / "config.json").exists():
        words.append("--resume")  # with the settings that it was begun with
    else:
        shutil.copy(job.settings, job.begun_with)
        job.begun_on.write_text(job.pairs_now, encoding="utf-8")
        words += ["--config", str(job.settings), "--set", f"training.seed={job.seed}"]
        if job.origin:
            job.begun_from.write_text(job.origin.weights, encoding="utf-8")
            words += ["--from", str(job.origin.out)]
    with (job.out / "log.txt").open("a", encoding="utf-8") as log:
        if not job.trained and _watched(words, stopped, stdout=log, stderr=log):
            return
    for measurement in job.measurements:
        if not (measurement.done or stopped.is_set()):
            measure(measurement, stopped)


def score(recipe: Recipe, pairs: str, outputs: Path, log: Any = None) -> dict[str, Any]:
    """What the recipe's own measure says, if it has one. Raises RuntimeError when it failed."""
    if not recipe.script.exists():
        return {}
    command = [sys.executable, str(recipe.script), pairs, str(outputs)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True)
    if ran.returncode:
        where = log.name if log else "what it says above"
        raise RuntimeError(f"{recipe.script} ended with {ran.returncode}; {where} tells why.")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def try_score(recipe: Recipe) -> None:
    """Ends the program where the recipe's measure does not work here, before anything is trained for it."""
    with tempfile.TemporaryDirectory() as folder:
        pairs, outputs = Path(folder) / "pairs.tsv", Path(folder) / "outputs.txt"
        pairs.write_text("word\tword\n", encoding="utf-8")
        outputs.write_text("word\n", encoding="utf-8")
        try:
            score(recipe, str(pairs), outputs)
        except RuntimeError as error:
            sys.exit(str(error))


def measure(job: Measurement, stopped: Event) -> None:
    recipe, first = job.recipe, job.members[0]
    together, pairs = "+".join(str(one.out) for one in job.members), first.pairs(recipe.measured, job.task)
    job.report.parent.mkdir(parents=True, exist_ok=True)
    unfinished, outputs = job.report.with_suffix(".new"), job.report.with_suffix(".txt")
    record = job.record
    evaluate = ["evaluate", together, pairs, "--json", "--outputs", str(outputs)]
    evaluate += ["--source-key", recipe.keys[0], "--target-key", recipe.keys[1]]
    evaluate += [
        word for name, value in recipe.searched.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    with unfinished.open("w", encoding="utf-8") as report, (first.out / "log.txt").open("a", encoding="utf-8") as log:
        if _watched(evaluate, stopped, stdout=report, stderr=log):
            return
        found = json.loads(unfinished.read_text(encoding="utf-8")) | score(recipe, pairs, outputs, log)
        unfinished.write_text(json.dumps(found | record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for name in recipe.wanted:
        if found.get(name) is None:
            there = ", ".join(one for one, value in found.items() if isinstance(value, float))
            raise RuntimeError(f"{recipe.home / 'recipe.toml'}: there is no measure {name!r}; name one of {there}.")
    unfinished.replace(job.report)


def _watched(command: list[str], stopped: Event, **streams: Any) -> bool:
    """Runs a command on one core; whether it was stopped. Raises RuntimeError when it failed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "antiphon", *command]
    process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
    code = None
    while code is None and not stopped.is_set():
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(LOOK)
    if code is None:
        process.send_signal(signal.SIGINT)  # it saves, and ends; a second one would end it unsaved
        process.wait()
    if stopped.is_set():
        return True
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}; its log tells why.")
    return False


def run_all(jobs: Sequence[Training | Measurement], side_by_side: int) -> bool:
    """All of them that have not been done, so many at once; whether all were done."""
    stopped = Event()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(side_by_side) as pool:
        bar = progress.add_task("models", total=len(jobs))
        try:
            for one in as_completed([pool.submit(_run_and_tell, job, stopped, progress, bar) for job in jobs]):
                one.result()
        except BaseException as error:
            stopped.set()  # the pool waits for the others, whatever it was
            if not isinstance(error, KeyboardInterrupt | RuntimeError):
                raise
            is_asked = isinstance(error, KeyboardInterrupt)
            progress.console.print("Stopping, and saving what is being trained." if is_asked else str(error))
    return all(job.done for job in jobs)


def _run_and_tell(job: Training | Measurement, stopped: Event, progress: Progress, bar: TaskID) -> None:
    if not (job.done or stopped.is_set()):
        if isinstance(job, Training):
            train(job, stopped)
        else:
            measure(job, stopped)
    for measurement in job.measurements if isinstance(job, Training) else [job]:
        if measurement.done:
            progress.console.print(f"{measurement}: {measurement.figure():.2f}")
    progress.advance(bar)
