"""One table, drawn for a terminal, a notebook, a page and a file.

A `Table` says of each column what it holds, so every place writes a share, a count or an interval alike.
"""

from __future__ import annotations

import csv as files
import html as escaping
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rushlight.core.findings import Column, Kind, Measure, Table
from rushlight.present import plots
from rushlight.present.page import FactSheet, Named, Strip
from rushlight.present.page import Table as Block

WIDE = 12
"""Columns that a terminal still shows."""
FOLDS = 20
"""Characters from which a terminal folds text."""
INTERVAL = "95 % interval"


def written(value: Any, kind: Kind = "number") -> str:
    """Return a value as text for people; a value that is not finite is a dash."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if kind == "text":
        return str(value)
    if not math.isfinite(value):
        return "—"
    if kind == "share":
        return f"{100 * value:.1f}"
    if kind == "points":
        return f"{100 * value:+.1f}".replace("-", "−")
    return f"{value:,.0f}" if kind == "count" or float(value).is_integer() else f"{value:.4g}"


def heading(column: Column) -> str:
    """Return a column's name with its unit."""
    return column.name + {"share": " %", "points": ", points"}.get(column.kind, "")


def said(measure: Measure) -> str:
    """Return a measure with its unit, interval and remark."""
    unit = measure.unit or {"share": "%", "points": "points"}.get(measure.kind, "")
    low, high = (written(end, measure.kind) for end in (measure.low, measure.high))
    between = f"95 % interval {low} to {high}" if low and high else f"at most {high}" if high else ""
    beside = "; ".join(text for text in (between, measure.remark) if text)
    return f"{written(measure.value, measure.kind)} {unit}".strip() + (f" ({beside})" if beside else "")


def fact_sheet(measures: Sequence[Measure]) -> FactSheet:
    """Return measures as names and values."""
    return FactSheet({measure.name: said(measure) for measure in measures})


# --- what is shown of a table ---


def _shown(table: Table) -> list[Column]:
    ends = {end for column in table.columns for end in (column.low, column.high)}
    return [column for column in table.columns if not column.hidden and column.name not in ends]


def _header(table: Table) -> Iterator[tuple[str, bool]]:
    """Yield each column's heading, and whether it is numeric; an interval stands behind its value."""
    for column in _shown(table):
        yield heading(column), column.kind != "text"
        if column.low:
            yield INTERVAL, True


def _cells(table: Table, row: Mapping[str, Any]) -> Iterator[str]:
    for column in _shown(table):
        yield written(row[column.name], column.kind)
        if column.low:
            yield _between(row[column.low], row[column.high], column.kind)


def _between(low: Any, high: Any, kind: Kind) -> str:
    ends = [written(end, kind) for end in (low, high)]
    return "" if "—" in ends or "" in ends else " … ".join(ends)


# --- where it is drawn ---


def terminal(table: Table, *, heading: bool = True) -> Any:
    """Return the table for a terminal (rich); one that is too wide is a sentence."""
    from rich.text import Text

    header = list(_header(table))
    if len(header) > WIDE:
        return Text(f"{table.name}: {len(header)} columns, too wide for a terminal; the report shows it")
    return Fitted(table, heading)


@dataclass(frozen=True)
class Fitted:
    """A table as wide as its terminal: numbers and intervals stay on one line, so the last columns make room."""

    table: Table
    heading: bool

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        header = list(_header(self.table))
        cells = [list(_cells(self.table, row)) for row in self.table.dicts()]
        ranges = [_range(name, numeric, column) for (name, numeric), column in zip(header, _columns(cells, header))]
        shown = len(header)
        while shown > 2 and sum(least for least, _ in ranges[:shown]) + _edges(shown) > options.max_width:
            shown -= 1
        spare = options.max_width - sum(least for least, _ in ranges[:shown]) - _edges(shown)
        widths = []
        for least, most in ranges[:shown]:
            more = max(min(spare, most - least), 0)
            widths.append(least + more)
            spare -= more
        yield self._drawn(header[:shown], widths, cells)
        if shown < len(header):
            names = ", ".join(name for name, _ in header[shown:])
            yield Text(f"  no room here for: {names}", style="dim")

    def _drawn(self, header: list[tuple[str, bool]], widths: list[int], cells: list[list[str]]) -> Any:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as Drawn
        from rich.text import Text

        title = Text(self.table.name, style="bold") if self.heading else None
        drawn = Drawn(box=SIMPLE_HEAD, padding=(0, 1), title=title, title_justify="left")
        for (name, numeric), width in zip(header, widths):
            drawn.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", width=width)
        for number, row in enumerate(cells):
            style = "bold green" if number in self.table.lead else None
            drawn.add_row(*map(Text, row[: len(header)]), style=style)
        return drawn


def _columns(cells: list[list[str]], header: list[tuple[str, bool]]) -> list[list[str]]:
    return [list(column) for column in zip(*cells)] if cells else [[] for _ in header]


def _range(name: str, numeric: bool, cells: list[str]) -> tuple[int, int]:
    """Return the widths that a column needs at least and at most: a heading breaks between words, text within `FOLDS`
    characters, a number never."""
    widest = max(map(len, cells), default=0)
    words = max(map(len, name.split()), default=0)
    return max(words, widest if numeric else min(widest, FOLDS)), max(len(name), widest)


def _edges(columns: int) -> int:
    """Return what the box adds: two spaces and a rule a column, and the last rule."""
    return 3 * columns + 1


def html(table: Table) -> str:
    """Return the table for a notebook."""
    head = "".join(f"<th>{escaping.escape(name)}</th>" for name, _ in _header(table))
    body = "".join(_html_row(_cells(table, row), number in table.lead) for number, row in enumerate(table.dicts()))
    return f"<table><caption>{escaping.escape(table.name)}</caption><tr>{head}</tr>{body}</table>"


def _html_row(cells: Iterator[str], lead: bool) -> str:
    tag = "th" if lead else "td"
    return "<tr>" + "".join(f"<{tag}>{escaping.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def csv(table: Table) -> str:
    """Return the whole table as CSV: every column, as it was measured."""
    text = io.StringIO()
    writer = files.writer(text, lineterminator="\n")
    writer.writerow(table.names)
    writer.writerows(table.rows)
    return text.getvalue()


def page(
    table: Table, *, colours: Mapping[str, str] | None = None, badges: Mapping[str, str] | None = None, title: str = ""
) -> Block:
    """Return the table for a page, its intervals drawn on an axis that they share.

    Args:
        colours, badges: of the values of the first column, by name.
        title: what stands above it.
    """
    colours, badges, spans = colours or {}, badges or {}, _spans(table)
    rows: list[list[str | Strip | Named]] = []
    for row in table.dicts()[: table.shown if not table.folded else None]:
        cells: list[str | Strip | Named] = []
        for column in _shown(table):
            cells.append(written(row[column.name], column.kind))
            if column.low:
                cells += [_strip(row, column, spans[column.name], colours), _between(row[column.low], row[column.high],
                          column.kind)]  # fmt: skip
        first = str(cells[0])
        rows.append([Named(first, colours.get(first, ""), badges.get(first, "")), *cells[1:]])
    names, numeric = _page_header(table)
    more = f" The first {len(rows)} of {len(table)} rows." if len(rows) < len(table) else ""
    lead = sorted(table.lead)
    return Block(names, rows, table.caption + more, title, numeric, lead, table.folded)


def _page_header(table: Table) -> tuple[list[str], list[int]]:
    names: list[str] = []
    numeric: list[int] = []
    for column in _shown(table):
        numeric += [len(names)] if column.kind != "text" else []
        names.append(heading(column))
        if column.low:
            names += ["", INTERVAL]
            numeric.append(len(names) - 1)
    return names, numeric


def _spans(table: Table) -> dict[str, tuple[float, float]]:
    """Return the axis of each column that has intervals."""
    return {
        column.name: plots.span_of(
            [_hundred(end, column.kind) for name in (column.low, column.high) for end in table[name]],
            zero=column.kind == "points",
        )
        for column in table.columns
        if column.low
    }


def _strip(
    row: Mapping[str, Any], column: Column, span: tuple[float, float], colours: Mapping[str, str]
) -> Strip | str:
    value, low, high = (_hundred(row[name], column.kind) for name in (column.name, column.low, column.high))
    if not all(map(math.isfinite, (value, low, high))):
        return ""
    colour = next((colours[text] for text in row.values() if isinstance(text, str) and text in colours), "s0")
    return Strip(plots.strip(value, low, high, span, colour=colour, zero=column.kind == "points"))


def _hundred(value: Any, kind: Kind) -> float:
    number = float("nan") if value is None or value == "" else float(value)
    return 100 * number if kind in ("share", "points") else number
