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
import signal
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from recipe import ROOT, Measurement, Recipe, Training, read_recipe, refuse_other_beginning
from running import run_all, try_score
from safetensors import safe_open

from antiphon.config import TokenizerConfig, load_config

DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "docs" / "results.md"


def table(recipe: Recipe, jobs: list[Training], ensembles: list[Measurement], command: str) -> str:
    """The section of docs/results.md."""
    columns: dict[str, dict[str, list[float]]] = {}  # what was measured of each task, seed by seed
    for name in recipe.wanted:
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


def settings(recipe: Recipe, models: Sequence[str]) -> list[Path]:
    """Their files. Ends the program where one is not there, or cannot be."""
    files = [recipe.home / f"{model}.toml" for model in models]
    for file in files:
        if not file.exists():
            sys.exit(f"{file}: there is no such model in the recipe.")
        try:
            load_config(None, file)
        except ValueError as error:
            sys.exit(str(error))
    return files


def plan(recipe: Recipe, options: argparse.Namespace) -> tuple[list[Training], list[Measurement]]:
    """What is to be trained (those that others begin from are not among them), and which ensembles to measure. Ends the
    program for what cannot be, before anything is trained."""
    files = settings(recipe, options.model)
    if (options.together or recipe.begin_from) and len(recipe.tags) != len(recipe.all_tasks):
        sys.exit(
            f"{recipe.home / 'recipe.toml'}: one model for all needs a tag for each of {len(recipe.all_tasks)} tasks."
        )
    known = recipe.all_tasks if options.together else recipe.tasks
    for task in options.only or []:
        if task not in known:
            sys.exit(f"{task}: is no task of the recipe; there are {', '.join(known)}.")
    tasks, all_tasks = tuple(options.only or recipe.tasks), tuple(options.only or recipe.all_tasks)
    jobs = [
        Training(recipe, file, some, seed, options.data)
        for seed in options.seeds
        for file in files
        for some in ([all_tasks] if options.together else [(task,) for task in tasks])
    ]
    for job in [*origins(jobs), *jobs]:
        for pattern in filter(None, (recipe.train, recipe.dev, recipe.measured)):
            job.pairs(pattern, *job.tasks)
        refuse_other_beginning(job)
    try_score(recipe)
    if not options.ensemble:
        return jobs, []
    refuse_other_vocabularies(jobs)
    return jobs, [Measurement(tuple(job for job in jobs if task in job.tasks), task) for task in tasks]


def refuse_other_vocabularies(jobs: Sequence[Training]) -> None:
    """Ends the program where models that are to decide together would cut text into other tokens."""
    first, *others = [(job.model, *_tokens(job)) for job in {job.model: job for job in jobs}.values()]
    for name, *ways in others:
        if ways != list(first[1:]):
            sys.exit(
                f"--ensemble: {first[0]} and {name} learn from other pairs, or with other [tokenizer] settings, what "
                "their tokens are, and models that decide together share them; measure several seeds of one instead."
            )


def _tokens(job: Training) -> tuple[tuple[str, ...], TokenizerConfig]:
    """The tasks and the settings that make a model's tokens."""
    learner = job.origin or job
    has_own = load_config(None, job.settings).training.own_tokens
    return job.tasks if has_own else learner.tasks, load_config(None, learner.settings).tokenizer


def origins(jobs: Sequence[Training]) -> list[Training]:
    """The models that these begin from, each once."""
    return list({job.origin.out: job.origin for job in jobs if job.origin}.values())


def parse() -> argparse.Namespace:
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
    return options


def stop_like_ctrl_c() -> None:
    """When the terminal is closed, or by `kill`: else what it trains would go on without it."""
    for one in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(one) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(one, signal.default_int_handler)


def main() -> None:
    stop_like_ctrl_c()
    options = parse()
    recipe = read_recipe(options.recipe)
    jobs, ensembles = plan(recipe, options)
    if not all(run_all(some, options.jobs) for some in (origins(jobs), jobs, ensembles) if some):
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
