"""What a test that trains asserts: a learned number beyond a bound, by a margin that `scripts/margins.py` measures.

A test that takes the fixture `margin` is marked `learns`. By itself it runs with seed 0 in float32 on one thread and
asserts. With `--margins FILE` it writes what it measured into the file, a line of JSON a number, and asserts nothing;
`--shift-seed`, `--precision` and `--threads` vary what should not matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("margins")
    group.addoption("--margins", type=Path, help="write each learned number into this file instead of asserting it")
    group.addoption("--shift-seed", type=int, default=0, help="added to the seed of every run and encoder")
    group.addoption("--precision", default="32-true", help="of every run: 32-true or bf16-mixed")
    group.addoption("--threads", type=int, default=1, help="of PyTorch")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "learns: trains, and asserts a learned number (set by the fixture `margin`)")
    torch.set_num_threads(config.getoption("--threads"))
    shift, precision = config.getoption("--shift-seed"), config.getoption("--precision")
    if shift or precision != "32-true":
        _vary(shift, precision)


def _vary(shift: int, precision: str) -> None:
    """Give every run another seed and precision, and every new encoder other weights."""
    from rushlight.nets import encoders
    from rushlight.run.stage import RunContext

    init, create = RunContext.__init__, encoders.create

    def varied(self: RunContext, *arguments: object, **settings: object) -> None:
        init(self, *arguments, **settings)  # type: ignore[arg-type]
        object.__setattr__(self, "seed", self.seed + shift)
        object.__setattr__(self, "precision", precision)

    def other_weights(*arguments: object, seed: int | None = None, **settings: object) -> object:
        return create(*arguments, seed=None if seed is None else seed + shift, **settings)  # type: ignore[arg-type]

    RunContext.__init__ = varied  # type: ignore[method-assign]
    encoders.create = other_weights  # type: ignore[assignment]


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "margin" in getattr(item, "fixturenames", ()):
            item.add_marker("learns")


Margin = Callable[..., None]


@pytest.fixture
def margin(request: pytest.FixtureRequest) -> Margin:
    """`margin(name, value, bound)` asserts value > bound; `below=True` the contrary."""
    record = request.config.getoption("--margins")

    def margin(name: str, value: float, bound: float, *, below: bool = False) -> None:
        value = float(value)
        if record is None:
            assert value < bound if below else value > bound, f"{name}: {value:.4g} against {bound:.4g}"
            return
        line = {"test": request.node.nodeid, "name": name, "value": value, "bound": bound, "below": below}
        with record.open("a") as file:
            file.write(json.dumps(line) + "\n")

    return margin
