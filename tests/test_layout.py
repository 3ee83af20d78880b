"""The import direction of the package, read from its source: what is below knows nothing of what is above."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "antiphon"

FACE = "antiphon"  # the package's own __init__, which shows users everything

# From top to bottom. Neighbours on one floor are strangers; the files of one package know each other.
FLOORS = [
    {"__main__"},
    {"cli"},
    {FACE},
    {"serving"},
    {"engine", "evaluation"},
    {"training", "convert", "pipelines", "trace"},
    {"run"},
    {"text_side"},
    {"decoding", "data", "model"},
    {"tokenizer", "segments", "words", "choosing", "files", "kernels", "plots"},
    {"config", "consensus", "history", "ids", "machine", "metrics"},
]
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}

# Those who see ids only: text stays outside.
WITHOUT_TEXT = {"model", "decoding", "engine"}

HEAVY = ["torch", "numpy", "sacrebleu", "rapidfuzz", "matplotlib", "fastapi", "uvicorn", "tokenizers"]


def part_of(module: str) -> str:
    """The file or folder right under `antiphon` that holds a module; the face for the package itself."""
    names = module.split(".")
    return names[1] if len(names) > 1 else FACE


def fault(importer: str, imported: str) -> str | None:
    """What is wrong with one module importing another, or None."""
    above, below = part_of(importer), part_of(imported)
    for part, module in ((above, importer), (below, imported)):
        if part not in FLOOR:
            return f"{module} stands on no floor; give {part!r} one in tests/test_layout.py and CONTRIBUTING.md"
    if above in (FACE, below):
        return None
    if above in WITHOUT_TEXT and below == "tokenizer":
        return f"{importer} imports {imported}, but {above} works on ids and knows no text"
    if FLOOR[above] >= FLOOR[below]:
        return f"{importer} imports {imported}, which does not stand below it"
    return None


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        names = ["antiphon", *file.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = file
    return found


def imports(source: str, module: str, is_package: bool, known: set[str]) -> Iterator[str]:
    """The modules of antiphon that a module imports anywhere: at its top, in functions, for type checkers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                names = module.split(".")
                package = names[: len(names) - node.level + is_package]
                base = ".".join([*package, *filter(None, [base])])
            # `from package import name`: the name may be a module or something in the package's __init__.
            inner = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in known else base for name in inner]
        else:
            continue
        yield from (name for name in targets if name.split(".")[0] == "antiphon")


def test_imports_go_down() -> None:
    known = modules()
    faults = [
        wrong
        for module, file in known.items()
        for imported in imports(file.read_text(encoding="utf-8"), module, file.name == "__init__.py", set(known))
        if (wrong := fault(module, imported))
    ]
    assert not faults, "\n".join(faults)


def test_every_module_has_a_floor() -> None:
    homeless = {part_of(module) for module in modules()} - set(FLOOR)
    assert not homeless, f"give {', '.join(sorted(homeless))} a floor in tests/test_layout.py and CONTRIBUTING.md"


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("antiphon.model.attention", "antiphon.training.loss"),  # upwards
        ("antiphon.config", "antiphon.cli"),
        ("antiphon.decoding.search", "antiphon.model.seq2seq"),  # strangers: the search knows no model
        ("antiphon.model.seq2seq", "antiphon.decoding.search"),  # and the model no search
        ("antiphon.model.seq2seq", "antiphon.decoding"),
        ("antiphon.metrics", "antiphon.config"),
        ("antiphon.config", "antiphon.tokenizer"),
        ("antiphon.engine.engine", "antiphon.evaluation.report"),
        ("antiphon.engine.engine", "antiphon.tokenizer"),  # downwards, but text
        ("antiphon.model", "antiphon.tokenizer"),
        ("antiphon.decoding.rules", "antiphon.tokenizer"),
        ("antiphon.training.loop", "antiphon"),  # through the face anything could be had
        ("antiphon.training.loop", "antiphon.somewhere"),
    ],
)
def test_a_wrong_direction_is_found(importer: str, imported: str) -> None:
    assert fault(importer, imported)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("antiphon.cli.train", "antiphon"),
        ("antiphon.cli.train", "antiphon.cli.console"),
        ("antiphon", "antiphon.run"),
        ("antiphon.data.batches", "antiphon.tokenizer"),
        ("antiphon.tokenizer", "antiphon.config"),
        ("antiphon.data.corpora.dates", "antiphon.data.pairs"),
        ("antiphon.run", "antiphon.model.seq2seq"),
    ],
)
def test_a_right_direction_is_let_through(importer: str, imported: str) -> None:
    assert fault(importer, imported) is None


@pytest.mark.parametrize(
    ("line", "imported"),
    [
        ("import antiphon.run as r", ["antiphon.run"]),
        ("from antiphon import config, load", ["antiphon.config", "antiphon"]),
        ("from antiphon.config import Config", ["antiphon.config"]),
        ("from . import pairs", ["antiphon.data.pairs"]),
        ("from .pairs import Pair", ["antiphon.data.pairs"]),
        ("from ..config import Config", ["antiphon.config"]),
        ("def f():\n    import antiphon.run", ["antiphon.run"]),
        ("import antiphonal, torch", []),
    ],
)
def test_imports_are_read_in_every_form(line: str, imported: list[str]) -> None:
    known = {"antiphon", "antiphon.config", "antiphon.data", "antiphon.data.pairs", "antiphon.run"}
    assert list(imports(line, "antiphon.data.batches", False, known)) == imported


def test_a_package_s_own_relative_import_stays_inside_it() -> None:
    known = {"antiphon.data", "antiphon.data.pairs"}
    assert list(imports("from .pairs import Pair", "antiphon.data", True, known)) == ["antiphon.data.pairs"]


def test_files_are_nouns_of_the_field() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert not [module for module in modules() if vague & set(module.split("."))]


@pytest.mark.parametrize("module", ["antiphon", "antiphon.cli", "antiphon.metrics", "antiphon.plots"])
def test_an_import_costs_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [], f"importing {module} brings these in; import them where they are used"


def test_a_server_s_own_process_has_no_torch() -> None:
    program = "import sys, antiphon.serving.app, antiphon.serving.api.watch; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False"], "engines of other processes have it; the server is quick without"
