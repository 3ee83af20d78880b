"""A table of results: a model for each task and seed of a recipe, trained from nothing, measured, written down.

    python recipes/table.py recipes/sigmorphon2020-g2p [--model recurrent] [--seeds 1 2 3] [--ensemble] [--only kor ice]

A recipe is a folder: recipe.toml names the tasks, their files in the data folder, the measure and what was published;
MODEL.toml are the settings of a model. With --together one model learns all tasks, told by a tag which one is meant.
What is trained is kept in runs/recipes. Ctrl-C stops; the same command goes on where it stopped. When all is there, the
table in docs/results.md is written anew.
"""

import argparse
import json
import math
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from safetensors import safe_open

from antiphon.config import load_config
from antiphon.data.pairs import Pair, iter_pairs, read_lines

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "docs" / "results.md"


@dataclass(frozen=True)
class Recipe:
    """What recipe.toml says.

    train, measured: files below `folder` of the data, with {task} for the task; `measured` is what `set` tells, a dev
    or a test set. dev: what training chooses by; where nothing is said, the measured one if it is a dev set, else pairs
    that are set aside. measure: a number of `antiphon evaluate --json`; others are shown beside it. published: of each
    system, its figure for each task, and for `mean`. line: how a line is written where files are no pairs, as an
    expression whose groups are source and target. keys: those of source and target in JSON lines. rewrite: an
    expression and what is put in its place, in sources. also: tasks that one model for all learns too, and is not
    measured on. tags: of each task, then of each of those, what its sources begin with where one model learns all.
    begin_from: of a model, the one for all that it begins from. search: options of `antiphon evaluate`; a beam of 5
    unless it says otherwise.

    Where the folder has a score.py, it is run as `score.py PAIRS OUTPUTS`, and measures with the JSON object it prints;
    PAIRS is what `read_pairs` takes.
    """

    home: Path
    title: str
    folder: str
    train: str
    measured: str
    measure: str
    tasks: list[str]
    published: dict[str, dict[str, float]]
    note: str
    set: str = "dev"
    dev: str = ""
    others: tuple[str, ...] = ()
    line: str = ""
    keys: tuple[str, str] = ("source", "target")
    rewrite: tuple[str, str] | None = None
    also: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    begin_from: dict[str, str] = field(default_factory=dict)
    search: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.home.name

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """What one model for all learns."""
        return (*self.tasks, *self.also)

    @property
    def searched(self) -> dict[str, float]:
        """The options of its search."""
        return self.search if "mbr" in self.search else {"beam": 5, **self.search}

    @property
    def kept(self) -> Path:
        return ROOT / "runs" / "recipes" / self.name

    def file(self, data: Path, pattern: str, task: str) -> str:
        """A file of a task, as `antiphon` takes it: one that is no file of pairs is rewritten first."""
        files = [data / self.folder / one.format(task=task) for one in pattern.split(",")]
        for file in files:
            if not file.exists():
                sys.exit(f"{file}: there is no such file; name the folder of the data with --data.")
        return str(self._as_pairs(files[0])) if self.line or self.rewrite else ",".join(map(str, files))

    def _as_pairs(self, file: Path) -> Path:
        pairs = self.kept / "pairs" / f"{file.name.removesuffix('.gz')}.tsv"
        if not pairs.exists():
            pairs.parent.mkdir(parents=True, exist_ok=True)
            text = [f"{source}\t{target}\n" for source, target in self._pairs(file)]
            unfinished = pairs.with_suffix(".new")
            unfinished.write_text("".join(text), encoding="utf-8")
            unfinished.replace(pairs)
        return pairs

    def _pairs(self, file: Path) -> Iterator[Pair]:
        source_key, target_key = self.keys
        pairs = self._lines(file) if self.line else iter_pairs(file, source_key=source_key, target_key=target_key)
        for source, target in pairs:
            yield Pair(re.sub(*self.rewrite, source) if self.rewrite else source, target)

    def _lines(self, file: Path) -> Iterator[Pair]:
        for number, line in enumerate(read_lines(file), 1):
            found = re.fullmatch(self.line, line)
            if found is None:
                sys.exit(f"{file}, line {number}: is not written as recipe.toml tells: {line!r}.")
            yield Pair(*found.groups())


@dataclass(frozen=True)
class Training:
    """One model, and where it is kept. Of several tasks, it learns all, each with its tag."""

    recipe: Recipe
    settings: Path
    tasks: tuple[str, ...]
    seed: int
    data: Path

    @property
    def together(self) -> bool:
        return len(self.tasks) > 1

    @property
    def origin(self) -> "Training | None":
        """The one for all tasks that it begins from."""
        name = self.recipe.begin_from.get(self.settings.stem)
        if name is None:
            return None
        return replace(self, settings=self.recipe.home / f"{name}.toml", tasks=self.recipe.all_tasks)

    @property
    def model(self) -> str:
        return f"{self.settings.stem}, one for all" if self.together else self.settings.stem

    @property
    def out(self) -> Path:
        is_all = self.together and self.tasks == self.recipe.all_tasks
        name = "together" if is_all else "+".join(map(_flat, self.tasks))
        return self.recipe.kept / self.settings.stem / f"{name}-{self.seed}"

    @property
    def measurements(self) -> "list[Measurement]":
        return [Measurement((self,), task) for task in self.tasks if task in self.recipe.tasks]

    @property
    def begun_with(self) -> Path:
        """The settings as they were when it was begun."""
        return self.out / "settings.toml"

    @property
    def trained(self) -> bool:
        """It has come to its end."""
        metrics = self.out / "metrics.jsonl"
        return metrics.exists() and '"kept"' in metrics.read_text(encoding="utf-8")

    @property
    def done(self) -> bool:
        return all(measurement.done for measurement in self.measurements)

    def pairs(self, pattern: str, *tasks: str) -> str:
        """The files of tasks, as `antiphon` takes them."""
        files = {task: self.recipe.file(self.data, pattern, task) for task in tasks}
        if not (self.together or self.origin):
            return files[tasks[0]]
        tags = dict(zip(self.recipe.all_tasks, self.recipe.tags, strict=True))
        return "+".join(f"{tags[task]}={file}" for task, file in files.items())

    def __str__(self) -> str:
        return f"{', '.join(self.tasks)}, seed {self.seed}"


@dataclass(frozen=True)
class Measurement:
    """Of one model on one of its tasks, or of several that decide together."""

    members: tuple[Training, ...]
    task: str

    @property
    def recipe(self) -> Recipe:
        return self.members[0].recipe

    @property
    def report(self) -> Path:
        first = self.members[0]
        if len(self.members) == 1:
            return first.out / (f"report-{_flat(self.task)}.json" if first.together else "report.json")
        names = "+".join(f"{one.settings.stem}-{one.seed}" for one in self.members)
        return self.recipe.kept / "ensembles" / f"{_flat(self.task)}-{'together-' * first.together}{names}.json"

    @property
    def done(self) -> bool:
        """It was measured, and with this search."""
        if not self.report.exists():
            return False
        found = json.loads(self.report.read_text(encoding="utf-8"))
        return bool(found.get("search") == self.recipe.searched)

    def figure(self, name: str = "") -> float:
        """What was measured."""
        return float(json.loads(self.report.read_text(encoding="utf-8"))[name or self.recipe.measure])

    def __str__(self) -> str:
        first, count = self.members[0], len(self.members)
        return f"{self.task}, seed {first.seed}" if count == 1 else f"{self.task}, {count} together"


def read_recipe(folder: Path) -> Recipe:
    try:
        found = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
        return Recipe(home=folder.resolve(), **found)
    except (OSError, TypeError, tomllib.TOMLDecodeError) as error:
        sys.exit(f"{folder / 'recipe.toml'}: is no recipe ({error}).")


def refuse_other_settings(job: Training) -> None:
    """Ends the program where a model was begun with other settings than its recipe has now."""
    if not (job.begun_with.exists() and (job.out / "config.json").exists()):
        return
    before, now = (_settings(file) for file in (job.begun_with, job.settings))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            sys.exit(
                f"{job.out}: was begun with {name} {before.get(name, 'left out')}, and in {job.settings} it is "
                f"{now.get(name, 'left out')}; remove the folder to train anew, or take the setting back."
            )


def _settings(file: Path) -> dict[str, Any]:
    """The values in a file of settings, by table.key."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {f"{table}.{key}": value for table, values in tables.items() for key, value in values.items()}


def train(job: Training, stopped: Event) -> None:
    """Trains and measures on one core. What it says goes to a log beside the model."""
    job.out.mkdir(parents=True, exist_ok=True)
    recipe = job.recipe
    words = ["train", job.pairs(recipe.train, *job.tasks), "--out", str(job.out)]
    dev = recipe.dev or (recipe.measured if recipe.set == "dev" else "")
    if dev:
        words += ["--dev", job.pairs(dev, *job.tasks)]
    words += ["--source-key", recipe.keys[0], "--target-key", recipe.keys[1]]
    if (job.out / "config.json").exists():
        words.append("--resume")  # with the settings that it was begun with
    else:
        shutil.copy(job.settings, job.begun_with)
        words += ["--config", str(job.settings), "--set", f"training.seed={job.seed}"]
        words += ["--from", str(job.origin.out)] if job.origin else []
    with (job.out / "log.txt").open("a", encoding="utf-8") as log:
        if not job.trained and _watched(words, stopped, stdout=log, stderr=log):
            return
    for measurement in job.measurements:
        if not (measurement.done or stopped.is_set()):
            measure(measurement, stopped)


def score(recipe: Recipe, pairs: str, outputs: Path, log: Any = None) -> dict[str, Any]:
    """What the recipe's own measure says, if it has one. Raises RuntimeError when it failed."""
    script = recipe.home / "score.py"
    if not script.exists():
        return {}
    ran = subprocess.run([sys.executable, script, pairs, outputs], stdout=subprocess.PIPE, stderr=log, text=True)
    if ran.returncode:
        where = log.name if log else "what it says above"
        raise RuntimeError(f"{script} ended with {ran.returncode}; {where} tells why.")
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
    evaluate = ["evaluate", together, pairs, "--json", "--outputs", str(outputs)]
    evaluate += ["--source-key", recipe.keys[0], "--target-key", recipe.keys[1]]
    evaluate += [
        word for name, value in recipe.searched.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    with unfinished.open("w", encoding="utf-8") as report, (first.out / "log.txt").open("a", encoding="utf-8") as log:
        if _watched(evaluate, stopped, stdout=report, stderr=log):
            return
        found = json.loads(unfinished.read_text(encoding="utf-8")) | score(recipe, pairs, outputs, log)
        told = json.dumps(found | {"search": recipe.searched}, ensure_ascii=False, indent=2)
        unfinished.write_text(told + "\n", encoding="utf-8")
    unfinished.replace(job.report)


def _watched(command: list[str], stopped: Event, **streams: Any) -> bool:
    """Runs a command on one core; whether it was stopped. Raises RuntimeError when it failed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "antiphon", *command]
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


def run_all(jobs: Sequence[Training | Measurement], side_by_side: int) -> bool:
    """All of them that have not been done, so many at once; whether all were done."""
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


def table(recipe: Recipe, jobs: list[Training], ensembles: list[Measurement], command: str) -> str:
    """The section of docs/results.md."""
    columns: dict[str, dict[str, list[float]]] = {}  # what was measured of each task, seed by seed
    for name in (recipe.measure, *recipe.others):
        for model in dict.fromkeys(job.model for job in jobs):
            own = [measurement for job in jobs if job.model == model for measurement in job.measurements]
            columns[f"{model}: {_title(name)}, {recipe.set}"] = _by_task(recipe, own, name)
        if ensembles:
            together = f"{len(ensembles[0].members)} together: {_title(name)}, {recipe.set}"
            columns[together] = _by_task(recipe, ensembles, name)
    lines = [
        f"## {recipe.title}",
        "",
        f"    {command}",
        "",
        "| task | " + " | ".join([*columns, *(f"{system} (published)" for system in recipe.published)]) + " |",
        "|---" * (len(columns) + len(recipe.published) + 1) + "|",
    ]
    rows = {task: {title: found[task] for title, found in columns.items()} for task in recipe.tasks}
    if any("mean" in figures for figures in recipe.published.values()):
        rows["mean"] = {
            title: [statistics.mean(values) for values in zip(*found.values(), strict=True)]
            for title, found in columns.items()
        }
    for task, row in rows.items():
        published = [figures.get(task) for figures in recipe.published.values()]
        cells = [_spread(values) for values in row.values()]
        cells += ["" if value is None else f"{value:.2f}" for value in published]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _told(recipe, jobs), ""])


def _by_task(recipe: Recipe, measurements: Sequence[Measurement], name: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {task: [] for task in recipe.tasks}
    for measurement in measurements:
        found[measurement.task].append(measurement.figure(name))
    return found


def _told(recipe: Recipe, jobs: list[Training]) -> str:
    """What stands below the table."""
    seeds = sorted({job.seed for job in jobs})
    report = json.loads(jobs[0].measurements[0].report.read_text(encoding="utf-8"))
    signature = report.get(f"{recipe.measure}_signature")
    sizes = sorted({_parameters(job) for job in jobs})
    size = f"{sizes[0]:,} parameters" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,} parameters"
    search = ", ".join(f"{_title(name)} {value}" for name, value in recipe.searched.items())
    processor = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return (
        f"{size}; seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; {search}; one core each "
        f"({processor}), {statistics.mean(map(_seconds, jobs)) / 60:.1f} minutes a model. "
        + (f"{_title(recipe.measure)} `{signature}`. " if signature else "")
        + recipe.note
    )


def _flat(task: str) -> str:
    """Its name as that of a file, where it has a folder before it."""
    return task.replace("/", "-")


def _title(measure: str) -> str:
    return {
        "bleu": "BLEU",
        "chrf": "chrF",
        "wer": "WER",
        "per": "PER",
        "mbr": "minimum Bayes risk over samples:",
        "ter": "TER",
        "char_bleu": "character BLEU",
        "tokenised_bleu": "tokenised BLEU",
        "grouped_bleu": "grouped BLEU",
    }.get(measure, measure.replace("_", " "))


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def _seconds(job: Training) -> float:
    """Of training."""
    lines = (job.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(max((json.loads(line).get("seconds", 0.0) for line in lines), default=0.0))


def _parameters(job: Training) -> int:
    with safe_open(job.out / "model.safetensors", framework="numpy") as weights:
        names = list(weights.keys())
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)


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
    parser.add_argument("--model", nargs="+", default=["transformer"], help="the settings: MODEL.toml of the recipe")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ensemble", action="store_true", help="measure all models of a task together too")
    parser.add_argument("--together", action="store_true", help="one model for all tasks, by the recipe's tags")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings side by side, one core each")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="some of the tasks; nothing is written down then")
    options = parser.parse_args()
    if options.jobs < 1:
        sys.exit(f"--jobs is {options.jobs}: at least one training must run.")
    recipe = read_recipe(options.recipe)
    settings = [options.recipe.resolve() / f"{model}.toml" for model in options.model]
    for file in settings:
        if not file.exists():
            sys.exit(f"{file}: there is no such model in the recipe.")
        try:
            load_config(None, file)
        except ValueError as error:
            sys.exit(str(error))
    if (options.together or recipe.begin_from) and len(recipe.tags) != len(recipe.all_tasks):
        sys.exit(
            f"{recipe.home / 'recipe.toml'}: one model for all needs a tag for each of {len(recipe.all_tasks)} tasks."
        )
    tasks = tuple(options.only or recipe.tasks)
    together = tuple(options.only or recipe.all_tasks)
    jobs = [
        Training(recipe, file, some, seed, options.data)
        for seed in options.seeds
        for file in settings
        for some in ([together] if options.together else [(task,) for task in tasks])
    ]
    origins = list({job.origin.out: job.origin for job in jobs if job.origin}.values())
    for job in [*origins, *jobs]:
        for pattern in (recipe.train, recipe.measured):
            job.pairs(pattern, *job.tasks)
        refuse_other_settings(job)
    try_score(recipe)
    ensembles = []
    if options.ensemble:
        ensembles = [Measurement(tuple(job for job in jobs if task in job.tasks), task) for task in tasks]
    if not all(run_all(some, options.jobs) for some in (origins, jobs, ensembles) if some):
        sys.exit("Not all is done; the same command goes on from here.")
    if options.only:
        return
    flags = ["--together"] * options.together + ["--ensemble"] * options.ensemble
    command = " ".join(["--model", *options.model, "--seeds", *map(str, options.seeds), *flags])
    section = table(recipe, jobs, ensembles, f"python recipes/table.py recipes/{recipe.name} {command}")
    write_down(" ".join([recipe.name, *options.model, *["together"] * options.together]), section)
    print(f"The table is in {RESULTS.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
