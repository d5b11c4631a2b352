"""The house is in order: tests mirror the source, and what stands on a shared floor is shared."""

from __future__ import annotations

import ast
import tomllib
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE, TESTS = ROOT / "src" / "rushlight", ROOT / "tests"
SHARED = ("core", "data", "nets", "augment", "losses", "tasks", "run", "train", "measure", "present")
"""Floors whose modules serve all above them."""

WITHOUT_MODULE = {
    "data/columns/test_installed.py": "kinds that another package brings",
    "methods/test_catalogue.py": "what every method must do",
    "methods/test_float64.py": "what no step of a method may do",
    "methods/test_memory.py": "what no method may hold",
    "methods/test_two_processes.py": "what every method gives on two processes",
    "tasks/test_f1.py": "the part of tasks.scores that PU-MLC's paper defines",
}
"""Test files that mirror no module, and why."""

WITHOUT_TEST = {
    "core.entries": "core/test_catalogue.py",
    "data.columns.*": "data/columns/test_columns.py asks every kind",
    "data.folder": "data/test_dataset.py saves and opens",
    "data.rows": "data/test_dataset.py selects",
    "data.synthetic.scenes*": "data/synthetic/test_scenes.py composes with all of it",
    "data.sources.*": "data/sources/test_read.py reads every source",
    "losses.supervised": "tasks/: each task's loss",
    "measure.atlas": "present/test_atlas.py draws it",
    "nets.detect.boxes": "tasks/test_detect.py",
    "nets.detect.joints": "tasks/test_keypoints.py",
    "present.*": "jobs/*/test_page.py show every part",
    "run.executor": "jobs/compare/test_run.py",
    "run.stage": "methods/test_catalogue.py runs every stage",
    "run.trial": "jobs/compare/test_run.py; test_kill.py",
    "tasks": "the door alone",
    "tasks.draw": "tasks/: each task's pictures",
    "tasks.examples": "methods/test_catalogue.py learns them",
    "train.*": "methods/: bases of learners, tested by those that stand on them",
}
"""Modules of the shared floors without a test file of their own (`*` is any in a folder), and what tests them."""

WITH_ONE_USER = {
    "data.synthetic.figures": "composed data sets stand together; the example of keypoints",
    "data.synthetic.graph": "the example of an input that no method reads yet",
    "data.synthetic.points": "the example of an input that no method reads yet",
    "data.synthetic.tissue": "composed data sets stand together; slides and two claims",
    "measure.accuracy": "measures stand together; audit is the job that takes them all",
    "measure.calibration": "measures stand together; audit is the job that takes them all",
    "measure.examples": "measures stand together; audit is the job that takes them all",
    "measure.mistakes": "measures stand together; audit is the job that takes them all",
    "nets.detect.boxes": "a head is built again from a model's file by its place",
    "nets.detect.joints": "a head is built again from a model's file by its place",
    "run.executor": "the protocol that a cluster's executor will have too",
    "run.model_info": "run.model hands it on",
    "tasks.open_set": "a second metric of classes, as long as a file",
    "tasks.precision": "average precision of boxes, as long as a file",
    "tasks.registry": "the door hands it on",
    "train.watch": "the loop reads without it: what waits for a device, and when",
}
"""Modules of the shared floors that one module alone imports, and why they stand there."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name below `rushlight`; a package is its `__init__`."""
    found = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


def is_empty(path: Path) -> bool:
    """Whether a file says nothing but, perhaps, a docstring."""
    return all(isinstance(line, ast.Expr) for line in ast.parse(path.read_text()).body)


@cache
def shared() -> list[str]:
    """The modules of the shared floors that hold anything."""
    return sorted(name for name, path in modules().items() if name.split(".")[0] in SHARED and not is_empty(path))


@cache
def users() -> dict[str, set[str]]:
    """Who imports a module, by the syntax tree: from the package's own modules, and what a door hands on counts for
    the module behind it."""
    found: dict[str, set[str]] = {name: set() for name in modules()}
    for user, path in modules().items():
        for target in imported(path):
            if target in found and target != user:
                found[target].add(user)
    return found


@cache
def entry_points() -> set[str]:
    """The modules that the package's entry points name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [value for group in project["entry-points"].values() for value in group.values()]
    return {value.partition(":")[0].removeprefix("rushlight.") for value in named}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, by their names below `rushlight`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("rushlight.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rushlight"):
            base = node.module.removeprefix("rushlight").removeprefix(".")
            names = {f"{base}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= {name if name in modules() else base for name in names}
    return found


def outside(module: str, name: str) -> bool:
    """Whether a user stands outside a module's own folder."""
    folder = module.rpartition(".")[0]
    return not name.startswith(f"{folder}.") and name != folder


def listed(name: str, exceptions: dict[str, str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in exceptions)


def mirror(name: str) -> Path:
    """Where a module's tests stand; those of a package itself stand in its folder, under its name."""
    parts = name.split(".")
    folder = parts if modules()[name].name == "__init__.py" else parts[:-1]
    return TESTS.joinpath(*folder, f"test_{parts[-1]}.py")


def belongs_to(name: str) -> list[str] | None:
    """The users of a module that does not belong on its floor; None where it does.

    It does where it has two users, of which those in its own folder count too (a part of what the folder is for), or
    where an entry point names it. In a folder below the floor one user is enough: the folder is judged as a whole.
    """
    found = sorted(users()[name])
    part = name.count(".") > 1 and any(not outside(name, user) for user in found)
    stands = len(found) >= 2 or part or name in entry_points()
    return None if stands else found


def test_every_test_file_mirrors_a_module() -> None:
    strays = []
    for path in TESTS.rglob("test_*.py"):
        relative = path.relative_to(TESTS)
        stem = path.stem.removeprefix("test_")
        module = ".".join((*relative.parts[:-1], stem))
        package = ".".join(relative.parts[:-1])
        mirrors = module in modules() or (package in modules() and relative.parts[-2:-1] == (stem,))
        if len(relative.parts) > 1 and not mirrors and str(relative) not in WITHOUT_MODULE:
            strays.append(str(relative))
    assert not strays, f"these test files mirror no module of src/: {sorted(strays)}"


def test_every_module_of_a_shared_floor_has_a_test_file() -> None:
    lacking = [name for name in shared() if not mirror(name).exists() and not listed(name, WITHOUT_TEST)]
    assert not lacking, f"these modules have no test file beside their mirror: {lacking}"


def test_what_stands_on_a_shared_floor_is_shared() -> None:
    names = [name for name in shared() if modules()[name].name != "__init__.py" and name not in WITH_ONE_USER]
    lonely = {name: found for name in names if (found := belongs_to(name)) is not None}
    assert not lonely, "these belong to their users, or on the list with a reason: " + ", ".join(
        f"{name} ({', '.join(found) or 'nobody'})" for name, found in lonely.items()
    )


def test_each_folder_of_a_shared_floor_has_two_users() -> None:
    folders = {name.rpartition(".")[0] for name in shared()} - {"", *SHARED}
    lonely = {}
    for folder in folders:
        parts = [name for name in modules() if name == folder or name.startswith(f"{folder}.")]
        found = {user for part in parts for user in users()[part] if user not in parts}
        if len(found) < 2 and folder not in WITH_ONE_USER:
            lonely[folder] = sorted(found)
    assert not lonely, f"these folders belong to their users: {lonely}"


def test_exceptions_are_needed() -> None:
    gone = [pattern for pattern in WITHOUT_TEST if not any(fnmatch(name, pattern) for name in shared())]
    gone += [name for name in WITHOUT_MODULE if not (TESTS / name).exists()]
    used = [name for name in WITH_ONE_USER if name not in shared() or belongs_to(name) is None]
    assert not gone + used, f"take these off the lists: {gone + used}"
