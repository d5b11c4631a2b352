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
    "__init__": "test_api.py: the door",
    "_version": "a number",
    "cli": "test_install.py: the door",
    "cli.app": "jobs/test_command.py and test_bad_input.py give it commands",
    "cli.commands.*": "jobs/test_command.py and test_bad_input.py give each to the command line",
    "cli.options": "jobs/test_command.py reads data with every option",
    "cli.show": "jobs/test_command.py; test_docs.py",
    "core.entries": "core/test_catalogue.py and tasks/test_base.py find entries by it",
    "data.columns.*": "data/columns/test_columns.py asks every kind",
    "data.folder": "data/test_dataset.py saves and opens",
    "data.rows": "data/test_dataset.py selects",
    "data.sources.coco": "data/sources/test_read.py reads COCO's files",
    "data.sources.folder": "data/sources/test_read.py reads folders",
    "data.sources.huggingface": "data/sources/test_arrays.py reads a data set of the Hub's library",
    "data.sources.listing": "data/sources/test_read.py lists files",
    "data.sources.table": "data/sources/test_join.py joins tables",
    "data.sources.torchvision": "data/sources/test_arrays.py reads a data set of torchvision",
    "data.synthetic.scenes*": "data/synthetic/test_scenes.py composes with all of it",
    "jobs.*.page": "jobs/*/test_run.py: the reports of curate, judge and rank_encoders",
    "jobs.*.result": "jobs/*/test_run.py: what the job returns",
    "jobs.claims.members": "methods/test_catalogue.py and the claims, which run it",
    "losses.supervised": "tasks/: each task's loss",
    "measure.atlas": "present/test_atlas.py draws it",
    "nets.detect.boxes": "tasks/test_detect.py",
    "nets.detect.joints": "tasks/test_keypoints.py",
    "present.dataset": "jobs/*/test_page.py show it",
    "present.findings": "present/test_table.py",
    "present.phrases": "jobs/*/test_page.py show it",
    "present.shown": "present/test_table.py",
    "run.executor": "jobs/compare/test_run.py",
    "run.stage": "methods/test_catalogue.py runs every stage",
    "run.trial": "jobs/compare/test_run.py; test_kill.py",
    "tasks": "the door alone",
    "tasks.draw": "tasks/: each task's pictures",
    "tasks.examples": "methods/test_catalogue.py learns them",
    "train.joint_embedding": "methods/pretrain/: test_barlow_twins.py its views and crops, test_dino.py its sizes",
    "train.self_distillation": "methods/pretrain/: test_dino.py and test_ibot.py, its two methods",
}
"""Modules without a test file of their own (`*` is any in a folder), and what tests them."""

WITH_FEW_USERS = {
    "augment.affine": "augment: policies, presets and views share it, and stand on one floor",
    "data.columns.*": "behind the package's door, which finds kinds there and by entry point",
    "data.folder": "part of the data set behind data.dataset",
    "data.rows": "part of the data set behind data.dataset",
    "data.stored": "part of the data set behind data.dataset",
    "data.pack.*": "steps of packing behind data.pack.write",
    "data.sources.*": "kinds of source behind data.sources.read, which takes the one that fits",
    "data.synthetic.figures": "composed data sets stand together; the example of keypoints",
    "data.synthetic.graph": "the example of an input that no method reads yet",
    "data.synthetic.points": "the example of an input that no method reads yet",
    "data.synthetic.scenes.*": "behind the package's door",
    "data.synthetic.tissue": "composed data sets stand together; slides and two claims",
    "losses.forward_gradients": "losses: the blockwise forms of two families share it",
    "measure.accuracy": "measures stand together; audit is the job that takes them all",
    "measure.calibration": "measures stand together; audit is the job that takes them all",
    "measure.examples": "measures stand together; audit is the job that takes them all",
    "measure.mistakes": "measures stand together; audit is the job that takes them all",
    "measure.units": "audit, through measure.accuracy, and compare take intervals over the same units",
    "nets.detect.*": "a head is built again from a model's file by its place",
    "nets.encoders.*": "kinds of encoder behind the package's door, which makes them by name",
    "nets.local_global": "encoders are made with it by name, and one method asks for it",
    "run.executor": "the protocol that a cluster's executor will have too",
    "run.model_info": "run.model hands it on",
    "tasks.coco": "tasks: detect and keypoints share it, and stand on one floor",
    "tasks.draw": "tasks: detect, keypoints and segment share it, and stand on one floor",
    "tasks.examples": "tasks: detect, segment and tag share it, and stand on one floor",
    "tasks.open_set": "a second metric of classes, as long as a file",
    "tasks.precision": "average precision of boxes, as long as a file",
    "tasks.registry": "the door hands it on",
    "train.loop": "the training that a learner runs, of which replay runs one step",
    "train.plan": "the learner makes it and the loop follows it",
    "train.watch": "the loop reads without it: what waits for a device, and when",
}
"""Modules of the shared floors with fewer than two users outside their own folder, and why they stand there. A pattern
covers the private parts of one package: each of them has a user inside of it, or another pattern or reason."""


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
def parts() -> list[str]:
    """The modules of the shared floors that are no door of a package."""
    return [name for name in shared() if modules()[name].name != "__init__.py"]


def untested() -> list[str]:
    """The modules that hold anything and have no test file beside their mirror."""
    return sorted(name for name, path in modules().items() if not is_empty(path) and not mirror(name).exists())


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


def lonely(name: str) -> list[str] | None:
    """The users of a module outside its own folder, where they are fewer than two; None where they are enough.

    An entry point is a user of its own kind: whoever looks for what is installed.
    """
    found = sorted(user for user in users()[name] if outside(name, user))
    return found if len(found) < 2 and name not in entry_points() else None


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


def test_every_module_has_a_test_file() -> None:
    lacking = [name for name in untested() if not listed(name, WITHOUT_TEST)]
    assert not lacking, f"these modules have no test file beside their mirror: {lacking}"


def test_what_stands_on_a_shared_floor_is_shared() -> None:
    strays = {name: found for name in parts() if (found := lonely(name)) is not None}
    strays = {name: found for name, found in strays.items() if not listed(name, WITH_FEW_USERS)}
    assert not strays, "these belong to their users, or on the list with a reason: " + ", ".join(
        f"{name} ({', '.join(found) or 'nobody'})" for name, found in strays.items()
    )


def test_the_private_parts_of_a_package_have_a_user_in_it() -> None:
    patterns = [pattern for pattern in WITH_FEW_USERS if pattern.endswith(".*")]
    unused = [name for name in parts() if listed(name, dict.fromkeys(patterns, "")) and not users()[name]]
    assert not unused, f"nobody uses these: {unused}"


def test_each_folder_of_a_shared_floor_has_two_users() -> None:
    folders = {name.rpartition(".")[0] for name in shared()} - {"", *SHARED}
    strays = {}
    for folder in folders:
        inside = [name for name in modules() if name == folder or name.startswith(f"{folder}.")]
        found = {user for part in inside for user in users()[part] if user not in inside}
        if len(found) < 2:
            strays[folder] = sorted(found)
    assert not strays, f"these folders belong to their users: {strays}"


def test_exceptions_are_needed() -> None:
    gone = [pattern for pattern in WITHOUT_TEST if not any(fnmatch(name, pattern) for name in untested())]
    gone += [name for name in WITHOUT_MODULE if not (TESTS / name).exists()]
    few = [name for name in parts() if lonely(name) is not None]
    gone += [pattern for pattern in WITH_FEW_USERS if not any(fnmatch(name, pattern) for name in few)]
    assert not gone, f"take these off the lists: {gone}"
