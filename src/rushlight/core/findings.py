"""Findings: what was measured, as plain data that every report can draw.

Tasks, judges and curators all return them and reports alone format them, so they live on the lowest floor: a report
needs to know neither which judge found something nor which task was judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Kind = Literal["text", "count", "number", "share", "points"]
"""How a value is written: `share` (0 … 1) as per cent, `points` as a signed difference of shares, times 100."""
NAN = float("nan")


@dataclass(frozen=True)
class Measure:
    """One measured number.

    Attributes:
        low, high: its 95 % interval, where there is one.
        kind: how it is written; unit: a word after it, such as `nats`.
        n: how many units (images, slides) it was measured on.
        remark: a few words beside it.
        figure: what it is called among the few figures at the head of a report; empty keeps it from there.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: Kind = "number"
    unit: str = ""
    n: int | None = None
    remark: str = ""
    figure: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; `low` and `high` name the columns that hold its interval, which a page draws beside it."""

    name: str
    kind: Kind = "number"
    low: str = ""
    high: str = ""
    hidden: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under named columns; `table["recall"]` is a column's values.

    Attributes:
        lead: numbers of the rows to emphasise.
        caption: a sentence about it. shown: rows that a page shows at most. folded: whether it opens on demand.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""
    lead: frozenset[int] = frozenset()
    shown: int = 40
    folded: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        values: Mapping[str, Sequence[Any]],
        *,
        kinds: Mapping[str, Kind] | None = None,
        intervals: Mapping[str, tuple[str, str]] | None = None,
        hidden: Iterable[str] = (),
        **settings: Any,
    ) -> Table:
        """Return the table of these columns.

        Args:
            values: each column's values, all of one length.
            kinds: of columns that are not what their first value tells: texts, whole numbers or numbers.
            intervals: column → the columns of its lower and upper end.
            hidden: columns that only files and data frames hold.
        """
        kinds, intervals, hidden = kinds or {}, intervals or {}, set(hidden)
        columns = tuple(
            Column(key, kinds.get(key, kind_of(column)), *intervals.get(key, ("", "")), key in hidden)
            for key, column in values.items()
        )
        return cls(name, columns, tuple(zip(*values.values(), strict=True)), **settings)

    @classmethod
    def of_rows(cls, name: str, rows: Sequence[Mapping[str, Any]], **settings: Any) -> Table:
        """Return the table of these rows, which have the same keys; see `of`."""
        return cls.of(name, {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}, **settings)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, column: str) -> bool:
        return column in self.names

    def __getitem__(self, column: str) -> list[Any]:
        place = self.names.index(column)
        return [row[place] for row in self.rows]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def without(self, *names: str) -> Table:
        """Return the table without some columns."""
        kept = [place for place, column in enumerate(self.columns) if column.name not in names]
        columns, *rows = (tuple(line[place] for place in kept) for line in (self.columns, *self.rows))
        return replace(self, columns=columns, rows=tuple(rows))

    def dicts(self) -> list[dict[str, Any]]:
        """Return each row by column."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]

    def to_pandas(self) -> Any:
        """Return the table as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=self.names)


def kind_of(values: Sequence[Any]) -> Kind:
    """Return the kind of a column by its first value that is not empty."""
    first = next((value for value in values if value is not None and value != ""), "")
    if isinstance(first, bool | np.bool_) or not isinstance(first, int | float | np.number):
        return "text"
    return "count" if all(isinstance(value, int | np.integer) or value == "" for value in values) else "number"


@dataclass(frozen=True)
class Curves:
    """Lines in one drawing: series → (x, y).

    Attributes:
        style: `line`, `spectrum` (logarithmic y, filled) or `reliability` (bars against the diagonal).
        x_kind, y_kind: how values are written; a `share` is drawn in per cent.
        note: what the reader sees in it.
    """

    name: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    style: Literal["line", "spectrum", "reliability"] = "line"
    x_kind: Kind = "number"
    y_kind: Kind = "number"
    counts: Sequence[int] = ()
    note: str = ""


@dataclass(frozen=True)
class Matrix:
    """Counts of true × predicted, with the names of rows and columns; `what` is counted."""

    name: str
    counts: np.ndarray
    names: tuple[str, ...]
    what: str = "images"


@dataclass(frozen=True)
class Picture:
    """An image as bytes (height × width × 3), its name, and short lines under it."""

    pixels: np.ndarray
    name: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other, with a caption."""

    name: str
    pictures: tuple[Picture, ...]
    caption: str = ""


@dataclass(frozen=True)
class Findings:
    """What was found, for a reader.

    Attributes:
        judge: who found it: the id of a method, or a word such as `calibration`.
        notes: sentences for the reader. warnings: those that must not be overlooked.
        title: the heading of its section; findings of one title share a section.
        headline: a clause for the verdict of a report, such as `3 of 500 labels are likely wrong`.
        priority: the order of sections and headlines, the lowest first.
    """

    judge: str
    measures: tuple[Measure, ...] = ()
    tables: tuple[Table, ...] = ()
    curves: tuple[Curves, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    pictures: tuple[Pictures, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    title: str = ""
    headline: str = ""
    priority: int = 50

    @property
    def numbers(self) -> dict[str, float]:
        """Return the value of each measure by name."""
        return {measure.name: measure.value for measure in self.measures}

    def measure(self, name: str) -> Measure:
        """Return a measure by name; a `KeyError` lists the known names."""
        return _named(self.measures, name)

    def table(self, name: str) -> Table:
        """Return a table by name; a `KeyError` lists the known names."""
        return _named(self.tables, name)

    def curve(self, name: str) -> Curves:
        """Return a drawing of curves by name; a `KeyError` lists the known names."""
        return _named(self.curves, name)


def _named(parts: Sequence[Any], name: str) -> Any:
    found = next((part for part in parts if part.name == name), None)
    if found is None:
        raise KeyError(f"there is no {name!r}; there are {[part.name for part in parts]}")
    return found


def measures(values: Mapping[str, float], kind: Kind = "number", **settings: Any) -> tuple[Measure, ...]:
    """Return a measure of one kind for each value."""
    return tuple(Measure(name, value, kind=kind, **settings) for name, value in values.items())


def measures_table(measured: Sequence[Measure], name: str = "numbers") -> Table:
    """Return measures as a table: what, value, low and high."""
    rows = [(m.name, m.value, m.low, m.high) for m in measured]
    return Table(name, (Column("what", "text"), *map(Column, ("value", "low", "high"))), tuple(rows))


def side_by_side(judge: str, found: Mapping[str, Findings]) -> Findings:
    """Return the findings on several models as one: measures in a table, and each table with a column `model`."""
    kinds = {m.name: m.kind for each in found.values() for m in each.measures}
    columns: dict[str, list[Any]] = {"model": list(found)}
    columns |= {name: [each.numbers.get(name, NAN) for each in found.values()] for name in kinds}
    titles = dict.fromkeys(table.name for each in found.values() for table in each.tables)
    return Findings(
        judge,
        tables=(Table.of("models", columns, kinds=kinds), *(stacked(title, found) for title in titles)),
        curves=tuple(replace(c, name=f"{c.name}: {name}") for name, each in found.items() for c in each.curves),
        notes=tuple(dict.fromkeys(note for each in found.values() for note in each.notes)),
        warnings=tuple(dict.fromkeys(note for each in found.values() for note in each.warnings)),
    )


def stacked(title: str, found: Mapping[str, Findings]) -> Table:
    """Return the tables of one name below each other, with a first column `model`; what one lacks is empty."""
    parts = {name: table for name, each in found.items() for table in each.tables if table.name == title}
    columns = {column.name: column for table in parts.values() for column in table.columns}
    rows = [(name, *(row.get(key, "") for key in columns)) for name, table in parts.items() for row in table.dicts()]
    first = next(iter(parts.values()))
    return replace(first, columns=(Column("model", "text"), *columns.values()), rows=tuple(rows), lead=frozenset())
