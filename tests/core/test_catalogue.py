"""The catalogue; and jobs and reports know methods by their cards and tasks by their objects, never by an id."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import rushlight
from rushlight import tasks
from rushlight.core import catalogue
from rushlight.core.catalogue import cards, entries, load_method, serving
from rushlight.core.errors import UserError

ROOT = Path(rushlight.__file__).parent
FILES = sorted(path for floor in ("jobs", "present") for path in (ROOT / floor).rglob("*.py"))
EXEMPT = {
    "jobs/look/run.py": "its tables are not yet those of the tasks",
    "jobs/claims/members.py": "the protocol of experiments on photos with classes",
}
WORDS = {"pass", "slides", "pgd"}
"""Ids that are words of a sentence too; whole strings are compared with them all the same."""


def test_entries_are_in_order_and_their_names_are_the_cards() -> None:
    assert list(entries()) == sorted(entries())
    assert {name: card.id for name, card in cards().items()} == {name: name for name in entries()}


def test_an_unknown_method_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'supervised'"):
        load_method("supervisd")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = EntryPoint("lost", "a_package_that_is_not_there:Lost", "rushlight.methods")
    monkeypatch.setattr(catalogue, "entries", lambda: {"lost": lost})
    with pytest.raises(UserError, match="'lost' needs the package 'a_package_that_is_not_there'"):
        load_method("lost")


def strings(path: Path) -> Iterator[str]:
    """Every string of a module but its docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    told = {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    told |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_job_and_no_report_names_a_method_or_a_task(path: Path) -> None:
    if str(path.relative_to(ROOT)) in EXEMPT:
        return
    found = set()
    for text in strings(path):
        found |= {text} & {*entries(), *tasks.names()}
        found |= set(re.findall(r"[\w-]+", text)) & (set(entries()) - WORDS)
    assert not found


def test_services_are_served() -> None:
    assert [len(serving(service)) for service in ("reference", "signals", "pretraining")] == [1, 1, 1]
    assert serving("baseline")
    assert len(serving("encoder")) >= 3
    assert all(card.role == "judge" for card in serving("signals"))
    assert all(card.id in cards() for card in serving("encoder"))
