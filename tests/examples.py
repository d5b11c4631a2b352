"""The Python examples of a page, read without being run: every name is looked up, every call's arguments are bound."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rushlight as rl
from rushlight.jobs.catalogue.result import Catalogue
from rushlight.jobs.compare.result import Board
from rushlight.jobs.curate.result import Curation
from rushlight.jobs.judge.result import Judged
from rushlight.run.stage import Outcome

GIVEN: dict[str, type] = {"data": rl.Dataset, "test": rl.Dataset, "model": rl.Model, "board": Board}
"""What the examples take for granted, by name."""
RETURNED: dict[str, type] = {each.__name__: each for each in (Board, Catalogue, Curation, Judged, Outcome)}
"""Types that are imported for annotations alone."""


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


class Instance:
    """Something of a known type, as an example has it."""

    def __init__(self, kind: type):
        self.kind = kind


class Reader(ast.NodeVisitor):
    """Goes through one example and collects what is wrong with it."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {name: Instance(kind) for name, kind in GIVEN.items()}
        self.wrong: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            self.names[each.asname or each.name.split(".")[0]] = importlib.import_module(each.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            try:
                self.names[each.asname or each.name] = _imported(node.module or "", each.name)
            except ImportError as error:
                self.wrong.append(str(error))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """What a function of the example is given is not known."""
        outer = dict(self.names)
        for each in node.args.args:
            self.names.pop(each.arg, None)
        self.generic_visit(node)
        self.names = outer

    def visit_Assign(self, node: ast.Assign) -> None:
        found = self.value(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.names[target.id] = found
            elif isinstance(target, ast.Tuple):
                if isinstance(found, Instance) and not hasattr(found.kind, "__iter__"):
                    self.wrong.append(f"{ast.unparse(node)}: {found.kind.__name__} cannot be unpacked")
                self.names |= {each.id: None for each in target.elts if isinstance(each, ast.Name)}

    def visit_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self.value(node)
        else:
            super().generic_visit(node)

    def value(self, node: ast.expr) -> Any:
        """What an expression is: an imported thing, an `Instance`, or None where that is not known."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
        return None

    def attribute(self, node: ast.Attribute) -> Any:
        home = self.value(node.value)
        if home is None:
            return None
        of = home.kind if isinstance(home, Instance) else home
        if hasattr(of, node.attr):
            found = getattr(of, node.attr)
            if isinstance(found, property):
                return _returned(found.fget)
            return _Bound(found) if isinstance(home, Instance) and callable(found) else found
        if not isinstance(home, Instance) or node.attr not in _own(of):
            self.wrong.append(f"{ast.unparse(node)}: there is no '{node.attr}'")
        return None

    def call(self, node: ast.Call) -> Any:
        given = [*node.args, *(each.value for each in node.keywords)]
        for each in given:
            self.value(each)
        asked = self.value(node.func)
        function = asked.function if isinstance(asked, _Bound) else asked
        if not callable(function):
            return None
        starred = any(isinstance(each, ast.Starred) for each in node.args) or any(k.arg is None for k in node.keywords)
        try:
            first = [None] if isinstance(asked, _Bound) and not inspect.ismethod(function) else []
            names = dict.fromkeys(k.arg for k in node.keywords if k.arg)
            bind = inspect.signature(function).bind_partial
            if not starred:
                bind(*first, *node.args, **names)
        except TypeError as error:
            self.wrong.append(f"{ast.unparse(node)}: {error}")
        except ValueError:  # a function of C
            return None
        return Instance(function) if isinstance(function, type) else _returned(function)


class _Bound:
    """A method of an instance."""

    def __init__(self, function: Any):
        self.function = function


def _imported(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    try:
        return getattr(found, name)
    except AttributeError:
        return importlib.import_module(f"{module}.{name}")


def _own(kind: type) -> set[str]:
    """Attributes that instances alone have: annotated ones, and those that `__init__` sets."""
    annotated = {name for each in kind.__mro__ for name in vars(each).get("__annotations__", {})}
    return annotated | set(re.findall(r"\bself\.(\w+)\b", "".join(_sources(kind))))


def _sources(kind: type) -> Iterator[str]:
    for each in kind.__mro__:
        if each.__module__.startswith("rushlight"):
            yield inspect.getsource(each)


def _returned(function: Any) -> Instance | None:
    """What a function returns, by its annotation."""
    said = getattr(function, "__annotations__", {}).get("return")
    if isinstance(said, str):
        said = RETURNED.get(said) or getattr(inspect.unwrap(function), "__globals__", {}).get(said)
    ours = isinstance(said, type) and said.__module__.startswith("rushlight")
    return Instance(said) if ours else None


def wrong(code: str) -> list[str]:
    """What is wrong with an example."""
    reader = Reader()
    reader.visit(ast.parse(code))
    return reader.wrong
