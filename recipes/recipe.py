"""A recipe, and what its table takes: the trainings of its models, their measurements, and where both are kept."""

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from antiphon.data.pairs import Pair, iter_pairs, read_lines

ROOT = Path(__file__).parent.parent


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
    def wanted(self) -> tuple[str, ...]:
        """The measures."""
        return (self.measure, *self.others)

    @property
    def chosen_by(self) -> str:
        """The files that training chooses by; "" where pairs are set aside."""
        return self.dev or (self.measured if self.set == "dev" else "")

    @property
    def script(self) -> Path:
        """What measures as its field does, where it is there."""
        return self.home / "score.py"

    @property
    def searched(self) -> dict[str, float]:
        """The options of its search."""
        return self.search if "mbr" in self.search else {"beam": 5, **self.search}

    @property
    def kept(self) -> Path:
        return ROOT / "runs" / "recipes" / self.name

    def file(self, data: Path, pattern: str, task: str) -> str:
        """A file of a task, as `antiphon` takes it: one that is no file of pairs is rewritten first."""
        names = pattern.format(task=task).split(",")
        files = [data / self.folder / name for name in names]
        for file in files:
            if not file.exists():
                sys.exit(f"{file}: there is no such file; name the folder of the data with --data.")
        if self.line or self.rewrite:
            return str(self._as_pairs(files[0], flat(names[0].removesuffix(".gz"))))
        return ",".join(map(str, files))

    def _as_pairs(self, file: Path, name: str) -> Path:
        pairs = self.kept / "pairs" / f"{name}.tsv"
        text = "".join(f"{source}\t{target}\n" for source, target in self._pairs(file)).encode()
        if not (pairs.exists() and pairs.read_bytes() == text):
            pairs.parent.mkdir(parents=True, exist_ok=True)
            unfinished = pairs.with_suffix(".new")
            unfinished.write_bytes(text)
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
        name = "together" if is_all else "-and-".join(map(flat, self.tasks))
        return self.recipe.kept / self.settings.stem / f"{name}-{self.seed}"

    @property
    def measurements(self) -> "list[Measurement]":
        return [Measurement((self,), task) for task in self.tasks if task in self.recipe.tasks]

    @property
    def begun_with(self) -> Path:
        """The settings as they were when it was begun."""
        return self.out / "settings.toml"

    @property
    def begun_from(self) -> Path:
        """What marks the weights of its origin as they were when it was begun."""
        return self.out / "origin.txt"

    @property
    def begun_on(self) -> Path:
        """What marks its pairs as they were when it was begun."""
        return self.out / "pairs.txt"

    @property
    def pairs_now(self) -> str:
        """What marks those that it learns from, and chooses by, a line each."""
        recipe = self.recipe
        patterns = filter(None, (recipe.train, recipe.chosen_by))
        names = [recipe.file(self.data, pattern, task) for pattern in patterns for task in self.tasks]
        return "".join(f"{digest(Path(file))}\n" for name in names for file in name.split(","))

    @property
    def weights(self) -> str:
        """What marks those that it has."""
        return digest(self.out / "model.safetensors")

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
            return first.out / (f"report-{flat(self.task)}.json" if first.together else "report.json")
        names = "+".join(f"{one.settings.stem}-{one.seed}" for one in self.members)
        return self.recipe.kept / "ensembles" / f"{flat(self.task)}-{'together-' * first.together}{names}.json"

    @property
    def record(self) -> dict[str, Any]:
        """What its figures depend on; the report tells it too."""
        recipe, first = self.recipe, self.members[0]
        return {
            "search": recipe.searched,
            "pairs": [digest(Path(file)) for file in recipe.file(first.data, recipe.measured, self.task).split(",")],
            "script": digest(recipe.script),
            "weights": [member.weights for member in self.members],
        }

    @property
    def done(self) -> bool:
        """Its report has what is wanted, and was made from what is there now."""
        if not self.report.exists():
            return False
        found = json.loads(self.report.read_text(encoding="utf-8"))
        has_all = all(found.get(name) is not None for name in self.recipe.wanted)
        return has_all and all(found.get(name) == value for name, value in self.record.items())

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


def refuse_other_beginning(job: Training) -> None:
    """Ends the program where a model was begun with other settings than its recipe has now, or from another model."""
    if not (job.begun_with.exists() and (job.out / "config.json").exists()):
        return
    before, now = (_settings(file) for file in (job.begun_with, job.settings))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            sys.exit(
                f"{job.out}: was begun with {name} {before.get(name, 'left out')}, and in {job.settings} it is "
                f"{now.get(name, 'left out')}; remove the folder to train anew, or take the setting back."
            )
    if job.begun_on.exists() and job.begun_on.read_text(encoding="utf-8") != job.pairs_now:
        sys.exit(
            f"{job.out}: was begun with other pairs than its recipe names now; remove the folder to train anew, or put "
            "them back."
        )
    if job.origin and job.begun_from.exists() and job.begun_from.read_text(encoding="utf-8") != job.origin.weights:
        sys.exit(
            f"{job.out}: was begun from another model than is in {job.origin.out} now; remove the folder to train "
            "anew, or put that model back."
        )


def _settings(file: Path) -> dict[str, Any]:
    """The values in a file of settings, by table.key."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {f"{table}.{key}": value for table, values in tables.items() for key, value in values.items()}


def digest(file: Path) -> str:
    """What tells a file from others; nothing where there is none."""
    if not file.exists():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def flat(task: str) -> str:
    """Its name as that of a file, where it has a folder before it."""
    return task.replace("/", "-")
