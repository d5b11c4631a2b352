"""The fixture `margin` and the table of `scripts/margins.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from margins import Margin

SCRIPT = Path(__file__).parents[1] / "scripts/margins.py"
SPECIFICATION = importlib.util.spec_from_file_location("margins_script", SCRIPT)
script = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(script)


def test_a_number_on_the_wrong_side_of_its_bound_fails(margin: Margin, request: pytest.FixtureRequest) -> None:
    margin("above", 2.0, 1.0)
    margin("below", 1.0, 2.0, below=True)
    assert request.node.get_closest_marker("learns")
    if request.config.getoption("--margins") is None:
        for value, bound, below in ((1.0, 2.0, False), (2.0, 1.0, True), (float("nan"), 1.0, False)):
            with pytest.raises(AssertionError, match=r"it: .* against"):
                margin("it", value, bound, below=below)


def test_the_table_flags_what_lies_within_three_spreads() -> None:
    def values(name: str, bound: float, below: bool, *values: float) -> list[dict]:
        return [{"test": "t", "name": name, "value": v, "bound": bound, "below": below} for v in values]

    rows = script.summary(
        values("far", 0.4, False, 0.7, 0.8, 0.9)  # mean 0.8, spread 0.1: (0.8 − 0.4) / 0.1 = 4
        + values("near", 1.1, True, 0.9, 1.0, 1.1)  # mean 1, spread 0.1: (1.1 − 1) / 0.1 = 1
        + values("equal", 0.5, False, 0.6, 0.6)
        + values("missed", 0.5, False, 0.4, 0.4)
    )
    margins = {row["name"]: row["margin"] for row in rows}
    assert margins == {
        "missed": -float("inf"),
        "near": pytest.approx(1),
        "far": pytest.approx(4),
        "equal": float("inf"),
    }
    assert {row["name"]: row["worst"] for row in rows} == {"far": 0.7, "near": 1.1, "equal": 0.6, "missed": 0.4}
    lines = script.printed(rows).splitlines()
    assert [line.lstrip().startswith("!") for line in lines] == [False, True, True, False, False]


def test_a_number_that_is_missing_in_a_variant_is_flagged() -> None:
    numbers = [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b"), ("three", "a"), ("three", "a"), ("three", "b")]
    measured = [{"test": "t", "name": name, "variant": variant} for name, variant in numbers]
    assert script.missing(measured) == ["! t: three: not measured with b"]
    assert script.missing(measured[:3]) == ["! t: two: not measured with b"]
    assert script.missing(measured[:2]) == []
