"""What `look` finds, and how it shows itself: in a terminal, a notebook, or as tables."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rushlight.data.dataset import Quarantined

if TYPE_CHECKING:
    import pandas
    from rich.console import RenderableType

SHOWN = 12
"""Rows of a kind that are shown."""


@dataclass(frozen=True)
class Count:
    """How often one class (tag, domain) occurs.

    Attributes:
        present, absent: images (for boxes, boxes) known to show it, and known not to (None where it cannot be known).
        unknown: images of which it is not known.
        test: those of `present` that are in the test fold.
        share: of all known mask pixels, those of this class; None for other columns.
    """

    column: str
    name: str
    present: int
    absent: int | None
    unknown: int
    test: int
    share: float | None = None


@dataclass(frozen=True)
class Look:
    """What `look` found. Shows itself in a terminal (`rich.print`) and in a notebook; a table by `to_pandas`.

    Attributes:
        columns: label column → (rows of which it is known, rows of which it is not).
        counts: of each class, tag, mask class and domain.
        sizes: (height, width) of the smallest, the median and the largest original image; how many sizes
        differ.
        exact: groups of rows with equal pixels; near: pairs of rows that look the same.
        contradictions: those groups whose classes differ; leaks: those with rows in training and test.
        quarantined: files that were left out, with reasons.
        warnings: one sentence each.
        fits: (method, does it fit, why), where the caller gave them.
    """

    source: str
    rows: int
    packed: tuple[int, int]
    folds: dict[str, int]
    columns: dict[str, tuple[int, int]]
    counts: list[Count]
    sizes: dict[str, Any]
    exact: list[list[int]]
    near: list[tuple[int, int]]
    contradictions: list[list[int]]
    leaks: list[list[int]]
    names: list[str] = field(repr=False)
    quarantined: tuple[Quarantined, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fits: list[tuple[str, bool, str]] | None = None

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row per class, tag, mask class and domain, with the fields of `Count`."""
        import dataclasses

        import pandas

        fields = [entry.name for entry in dataclasses.fields(Count)]
        return pandas.DataFrame([dataclasses.asdict(count) for count in self.counts], columns=fields)

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Return all that is shown, as tables: (title, header, rows)."""
        shown = [
            _overview(self),
            _columns(self),
            _counts(self),
            _duplicates(self),
            _left_out(self),
            _fits(self),
        ]
        return [table for table in shown if table[2]]

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = []
        for title, header, rows in self.tables():
            table = Table(box=None, show_header=any(header))
            for number, name in enumerate(header):
                table.add_column(Text(name), justify="right" if number and _numeric(rows, number) else "left")
            for row in rows:
                table.add_row(*(Text(cell) for cell in row))
            parts += [Text(title, style="bold"), table, Text("")]
        return Group(*parts, *(Text(f"! {warning}", style="yellow") for warning in self.warnings))

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        console = Console(file=StringIO(), width=110, color_system=None)
        console.print(self)
        return console.file.getvalue()  # type: ignore[attr-defined]

    def _repr_html_(self) -> str:
        parts = [_html_table(*table) for table in self.tables()]
        warnings = "".join(f"<li>{html.escape(warning)}</li>" for warning in self.warnings)
        return "<div>" + "".join(parts) + (f"<ul>{warnings}</ul>" if warnings else "") + "</div>"


def _by(size: Sequence[int]) -> str:
    return f"{size[0]}×{size[1]}"


def _overview(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows = [["images", f"{seen.rows:,}"], ["packed as", f"{_by(seen.packed)} (height×width)"]]
    sizes = [f"{name} {_by(seen.sizes[name])}" for name in ("smallest", "median", "largest")]
    several = seen.sizes["different"] > 1
    rows.append(["original sizes", ", ".join(sizes) if several else f"all {_by(seen.sizes['median'])}"])
    if seen.folds:
        rows.append(["folds", ", ".join(f"{name} {count:,}" for name, count in seen.folds.items())])
    return seen.source, ["", ""], rows


def _columns(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows = [[name, f"{known:,}", f"{missing:,}"] for name, (known, missing) in seen.columns.items()]
    return "Labels", ["column", "images known", "unknown"], rows


def _counts(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows: list[list[str]] = []
    for column in dict.fromkeys(count.column for count in seen.counts):
        counts = sorted((c for c in seen.counts if c.column == column), key=lambda count: -count.present)
        for c in counts[: 2 * SHOWN]:
            share = f"{100 * c.share:.1f} % of pixels" if c.share is not None else ""
            absent = f"{c.absent:,}" if c.absent is not None else ""
            rows.append([c.column, c.name[:60], f"{c.present:,}", absent, f"{c.unknown:,}", f"{c.test:,}", share])
        if len(counts) > 2 * SHOWN:
            rows.append([column, f"… {len(counts) - 2 * SHOWN} more", "", "", "", "", ""])
    return "Classes", ["column", "name", "present", "absent", "unknown", "in test", ""], rows


def _duplicates(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows = [["equal", ", ".join(seen.names[row] for row in group[:4])] for group in seen.exact[:SHOWN]]
    rows += [["near", f"{seen.names[a]}, {seen.names[b]}"] for a, b in seen.near[:SHOWN]]
    extra = sum(len(group) - 1 for group in seen.exact)
    return f"Duplicates: {extra:,} equal, {len(seen.near):,} near pairs", ["", "images"], rows


def _left_out(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows = [[entry.name, entry.reason] for entry in seen.quarantined[: 4 * SHOWN]]
    return f"Left out: {len(seen.quarantined):,}", ["file", "reason"], rows


def _fits(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows = [[name, "yes" if good else "no", why] for name, good, why in seen.fits or ()]
    return "Methods that fit", ["method", "fits", "why"], rows


def _numeric(rows: list[list[str]], column: int) -> bool:
    cells = [row[column].replace(",", "") for row in rows if row[column]]
    return bool(cells) and all(cell.isdigit() for cell in cells)


def _html_table(title: str, header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header) if any(header) else ""
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h4>{html.escape(title)}</h4><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
