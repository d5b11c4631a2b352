"""Findings as plain data."""

from __future__ import annotations

import pytest

from rushlight.core.findings import Curves, Findings, Measure, Table, kind_of, measures_table, side_by_side


def test_a_table_reads_by_column_and_by_row() -> None:
    table = Table.of("t", {"who": ["a", "b"], "n": [1, 2], "x": [0.5, 1.0]}, kinds={"x": "share"})
    assert [column.kind for column in table.columns] == ["text", "count", "share"]
    assert table["n"] == [1, 2]
    assert table.dicts()[1] == {"who": "b", "n": 2, "x": 1.0}
    assert "who" in table
    assert len(table) == 2
    assert Table.of_rows("t", table.dicts(), kinds={"x": "share"}) == table
    assert table.to_pandas().x.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["a"], "text"), ([1, 2], "count"), ([1, 2.5], "number"), ([True], "text"), (["", 3], "count"), ([], "text")],
)
def test_kinds_are_told_by_the_first_value(values: list, kind: str) -> None:
    assert kind_of(values) == kind


def test_what_is_not_there_is_named() -> None:
    found = Findings("j", (Measure("a", 1.0),), (Table.of("t", {"x": [1]}),), (Curves("c", "x", "y", {}),))
    assert found.numbers == {"a": 1.0}
    for read in (found.measure, found.table, found.curve):
        with pytest.raises(KeyError, match="no 'z'; there are"):
            read("z")


def test_findings_side_by_side_keep_kinds_and_name_their_model() -> None:
    one = Findings("j", (Measure("a", 0.5, kind="share"),), (Table.of("t", {"x": [1, 2]}),), notes=("n",))
    two = Findings("j", (Measure("a", 0.7, kind="share"), Measure("b", 3)), warnings=("w",), notes=("n",))
    both = side_by_side("j", {"p": one, "q": two})
    assert both.table("models").dicts()[1] == {"model": "q", "a": 0.7, "b": 3}
    assert both.table("models").columns[1].kind == "share"
    assert both.table("t").rows == (("p", 1), ("p", 2))
    assert (both.notes, both.warnings) == (("n",), ("w",))


def test_measures_are_a_table_too() -> None:
    table = measures_table([Measure("a", 0.5, 0.4, 0.6), Measure("b", 1.0)])
    assert table.rows == (("a", 0.5, 0.4, 0.6), ("b", 1.0, None, None))
