"""A table of results: a model for each task and seed of a recipe, trained from nothing, measured on dev, written down.

    python recipes/table.py recipes/sigmorphon2020-g2p [--model transformer] [--seeds 1 2 3] [--jobs 2] [--only kor ice]

A recipe is a folder: recipe.toml names the tasks, their files in the data folder, the measure and what was published;
MODEL.toml are the settings of a model. What is trained is kept in runs/recipes. Ctrl-C stops; the same command goes on
where it stopped. When all is there, the table in docs/results.md is written anew.
"""

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "docs" / "results.md"


@dataclass(frozen=True)
class Recipe:
    """What recipe.toml says. train, dev: files below `folder` of the data, with {task} for the task. published: of each
    system, its figure for each task, and for `mean`."""

    name: str
    title: str
    folder: str
    train: str
    dev: str
    measure: str
    beam: int
    tasks: list[str]
    published: dict[str, dict[str, float]]
    note: str


@dataclass(frozen=True)
class Job:
    """One training, and where it is kept."""

    recipe: Recipe
    settings: Path
    task: str
    seed: int
    data: Path

    @property
    def out(self) -> Path:
        return ROOT / "runs" / "recipes" / self.recipe.name / self.settings.stem / f"{self.task}-{self.seed}"

    @property
    def report(self) -> Path:
        return self.out / "report.json"

    def path(self, pattern: str) -> Path:
        return self.data / self.recipe.folder / pattern.format(task=self.task)


def read_recipe(folder: Path) -> Recipe:
    try:
        found = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
        return Recipe(name=folder.resolve().name, **found)
    except (OSError, TypeError, tomllib.TOMLDecodeError) as error:
        sys.exit(f"{folder / 'recipe.toml'}: is no recipe ({error}).")


def run(job: Job, stopped: Event) -> None:
    """Trains and measures on one core, unless it has been done. What it says goes to a log beside the model."""
    if job.report.exists() or stopped.is_set():
        return
    job.out.mkdir(parents=True, exist_ok=True)
    antiphon = [sys.executable, "-m", "antiphon"]
    train = [*antiphon, "train", str(job.path(job.recipe.train)), "--dev", str(job.path(job.recipe.dev))]
    train += ["--out", str(job.out)]
    if (job.out / "config.json").exists():
        train.append("--resume")  # with the settings that it was begun with
    else:
        train += ["--config", str(job.settings), "--set", f"training.seed={job.seed}"]
    with (job.out / "log.txt").open("a", encoding="utf-8") as log:
        if _watched(train, stopped, stdout=log, stderr=log):
            return
        evaluate = [*antiphon, "evaluate", str(job.out), str(job.path(job.recipe.dev)), "--json"]
        unfinished = job.out / "report.json.new"
        with unfinished.open("w", encoding="utf-8") as report:
            if _watched([*evaluate, "--beam", str(job.recipe.beam)], stopped, stdout=report, stderr=log):
                return
        unfinished.replace(job.report)


def _watched(command: list[str], stopped: Event, **streams: Any) -> bool:
    """Runs a command on one core; whether it was stopped. Raises RuntimeError when it failed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(1)
            break
        if stopped.is_set():
            process.send_signal(signal.SIGINT)  # it saves, and ends
    if stopped.is_set():
        return True
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}; its log tells why.")
    return False


def run_all(jobs: list[Job], side_by_side: int) -> bool:
    """All of them, so many at once; whether all were done."""
    stopped = Event()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(side_by_side) as pool:
        bar = progress.add_task("models", total=len(jobs))
        waiting = [pool.submit(_run_and_tell, job, stopped, progress, bar) for job in jobs]
        try:
            for one in waiting:
                one.result()
        except KeyboardInterrupt:
            stopped.set()
            progress.console.print("Stopping, and saving what is being trained.")
        except RuntimeError as error:
            stopped.set()
            progress.console.print(str(error))
    return all(job.report.exists() for job in jobs)


def _run_and_tell(job: Job, stopped: Event, progress: Progress, bar: TaskID) -> None:
    run(job, stopped)
    if job.report.exists():
        progress.console.print(f"{job.task}, seed {job.seed}: {measured(job):.2f}")
    progress.advance(bar)


def measured(job: Job) -> float:
    report = json.loads(job.report.read_text(encoding="utf-8"))
    return float(report[job.recipe.measure])


def table(recipe: Recipe, jobs: list[Job], command: str) -> str:
    """The section of docs/results.md."""
    seeds = sorted({job.seed for job in jobs})
    found = {task: [measured(job) for job in jobs if job.task == task] for task in recipe.tasks}
    found = {task: values for task, values in found.items() if values}
    systems = list(recipe.published)
    lines = [
        f"## {recipe.title}",
        "",
        f"    {command}",
        "",
        f"| task | {recipe.measure.upper()}, dev | " + " | ".join(f"{system} (published)" for system in systems) + " |",
        "|---" * (len(systems) + 2) + "|",
    ]
    for task, values in found.items():
        published = [recipe.published[system].get(task) for system in systems]
        cells = ["" if value is None else f"{value:.2f}" for value in published]
        lines.append(f"| {task} | {_spread(values)} | " + " | ".join(cells) + " |")
    if len(found) == len(recipe.tasks):
        means = [statistics.mean(values) for values in zip(*found.values(), strict=True)]
        cells = [f"{recipe.published[system].get('mean', float('nan')):.2f}" for system in systems]
        lines.append(f"| **mean** | **{_spread(means)}** | " + " | ".join(cells) + " |")
    hours = sum(_seconds(job) for job in jobs) / 3600
    lines += [
        "",
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; beam {recipe.beam}; one core each, "
        f"{hours:.1f} hours of a core in all ({platform.machine()}). {recipe.note}",
        "",
    ]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def _seconds(job: Job) -> float:
    """Of training."""
    lines = (job.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(max((json.loads(line).get("seconds", 0.0) for line in lines), default=0.0))


def write_down(name: str, section: str) -> None:
    """Into docs/results.md, between the marks of this table."""
    begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
    text = RESULTS.read_text(encoding="utf-8")
    block = f"{begin}\n{section}{end}"
    if begin in text:
        text = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: block, text, flags=re.S)
    else:
        text = text.replace("## Speed\n", f"{block}\n\n## Speed\n", 1)
    RESULTS.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path, help="a folder with a recipe.toml")
    parser.add_argument("--model", default="transformer", help="the settings to train with: MODEL.toml of the recipe")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings side by side, one core each")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="some of the tasks; nothing is written down then")
    options = parser.parse_args()
    if options.jobs < 1:
        sys.exit(f"--jobs is {options.jobs}: at least one training must run.")
    recipe = read_recipe(options.recipe)
    settings = options.recipe.resolve() / f"{options.model}.toml"
    if not settings.exists():
        sys.exit(f"{settings}: there is no such model in the recipe.")
    tasks = options.only or recipe.tasks
    jobs = [Job(recipe, settings, task, seed, options.data) for seed in options.seeds for task in tasks]
    for job in jobs:
        if not job.path(recipe.train).exists():
            sys.exit(f"{job.path(recipe.train)}: there is no such file; name the folder of the data with --data.")
    if not run_all(jobs, options.jobs):
        sys.exit("Not all is done; the same command goes on from here.")
    if options.only:
        return
    seeds = " ".join(map(str, options.seeds))
    command = f"python recipes/table.py recipes/{recipe.name} --model {options.model} --seeds {seeds}"
    write_down(f"{recipe.name} {options.model}", table(recipe, jobs, command))
    print(f"The table is in {RESULTS.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
