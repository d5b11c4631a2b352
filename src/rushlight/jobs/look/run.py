"""What is in a data set: known and unknown, sizes, duplicates, files left out, and likely mistakes."""

from __future__ import annotations

import difflib
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from rushlight import tasks
from rushlight.data.columns import KINDS, TEST
from rushlight.data.dataset import Dataset, Quarantined
from rushlight.data.edit import duplicates
from rushlight.data.sources.read import load

if TYPE_CHECKING:
    import pandas
    from rich.console import RenderableType

_SHOWN = 12
DOMAIN = "domain"


@dataclass(frozen=True)
class Count:
    """How often one class (tag, domain) occurs.

    Attributes:
        present, absent: images (for boxes, boxes) known to show it, and known not to (tags only).
        unknown: images of which it is not known.
        test: those of `present` that are in the test fold.
        share: of all known mask pixels, those of this class; None for other columns.
    """

    column: str
    name: str
    present: int
    absent: int
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
        fits: (system, does it fit, why), where the caller gave them.
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
        """A row for each class, tag, mask class and domain, with the fields of `Count`."""
        import dataclasses

        import pandas

        fields = [entry.name for entry in dataclasses.fields(Count)]
        return pandas.DataFrame([dataclasses.asdict(count) for count in self.counts], columns=fields)

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """All that is shown, as tables: (title, header, rows)."""
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


def look(source: Any, *, fits: Sequence[tuple[str, bool, str]] | None = None, **settings: Any) -> Look:
    """Look at a data set, or at anything that `rushlight.data.sources.read.load` reads.

    Args:
        fits: (system, does it fit, why) of each system, shown at the end.
        settings: those of `load`.

    Raises:
        UserError: the source cannot be read.
    """
    data = load(source, **settings)
    groups = duplicates.exact(data)
    pairs = [(int(a), int(b)) for a, b in duplicates.near(data)]
    contradictions = [rows for rows in groups if _contradict(data, rows)]
    leaks = [rows for rows in groups if "fold" in data and len(set((data["fold"][rows] == TEST).tolist())) > 1]
    seen = Look(
        source=data.info.source,
        rows=len(data),
        packed=(data.height, data.width),
        folds=_folds(data),
        columns={name: _known(data, name) for name in data.label_names},
        counts=_count(data),
        sizes=_sizes(data),
        exact=groups,
        near=pairs,
        contradictions=contradictions,
        leaks=leaks,
        names=data.names,
        quarantined=data.info.quarantined,
        notes=data.info.settings,
        fits=list(fits) if fits is not None else None,
    )
    seen.warnings.extend(_warnings(seen, data))
    return seen


def _known(data: Dataset, name: str) -> tuple[int, int]:
    known = int(data.known(name).sum())
    return known, len(data) - known


def _folds(data: Dataset) -> dict[str, int]:
    if "fold" not in data:
        return {}
    names = {0: "train", 1: "test", -1: "neither"}
    counts = {name: int((data["fold"] == value).sum()) for value, name in names.items()}
    return {name: count for name, count in counts.items() if count}


def _sizes(data: Dataset) -> dict[str, Any]:
    sizes = data["size"] if "size" in data else torch.tensor([[data.height, data.width]])
    order = sizes.prod(1).argsort(stable=True)
    picked = {"smallest": order[0], "median": order[len(order) // 2], "largest": order[-1]}
    found: dict[str, Any] = {name: tuple(sizes[row].tolist()) for name, row in picked.items()}
    return found | {"different": len(sizes.unique(dim=0))}


def _contradict(data: Dataset, rows: list[int]) -> bool:
    return any(task.contradicts(data, rows) for task in tasks.all() if task.column in data)


def _count(data: Dataset) -> list[Count]:
    """Return how often each class of each task occurs, and each domain."""
    counts: list[Count] = []
    for task in (task for task in tasks.all() if task.column in data):
        table = task.counts(data)
        none = [0] * len(table["present"])
        columns = (table[task.noun], table["present"], table.get("absent", none), table["unknown"], table["in test"])
        shares = table.get("share of pixels", [None] * len(none))
        counts += [Count(task.column, *row) for row in zip(*columns, shares, strict=True)]
    return counts + _domains(data)


def _domains(data: Dataset) -> list[Count]:
    if DOMAIN not in data:
        return []
    values, names = data[DOMAIN], data.info.domain_names
    test = data["fold"] == TEST if "fold" in data else torch.zeros(len(data), dtype=torch.bool)
    ids = range(max(int(values.max()) + 1 if len(values) else 0, len(names)))
    every = torch.bincount(values[values >= 0], minlength=len(ids)).tolist()
    tested = torch.bincount(values[(values >= 0) & test], minlength=len(ids)).tolist()
    unknown = int((values < 0).sum())
    said = [names[i] if i < len(names) else str(i) for i in ids]
    return [Count(DOMAIN, said[i], every[i], 0, unknown, tested[i]) for i in ids]


def _warnings(seen: Look, data: Dataset) -> list[str]:
    found = [_pair(seen, rows, "are equal but labelled differently") for rows in seen.contradictions[:_SHOWN]]
    found += [_pair(seen, rows, "are equal but in training and in test") for rows in seen.leaks[:_SHOWN]]
    for column in [task.column for task in tasks.all() if not KINDS[task.column].geometric]:  # typed for each image
        found += _suspicious(column, [count for count in seen.counts if count.column == column])
    for key, value in data.info.settings.items():
        if key == "duplicated_rows":
            found.append(f"the label file has {value} rows more than once, without contradiction")
        if key == "ignored_columns":
            found.append(f"columns of the label file that were not used: {', '.join(map(str, value))}")
        if key == "masks":
            found.append(f"masks: {value}")
    return found


def _pair(seen: Look, rows: list[int], what: str) -> str:
    names = [f"'{seen.names[row]}'" for row in rows[:3]]
    return f"{', '.join(names)}{' …' if len(rows) > 3 else ''} {what}"


def _suspicious(column: str, counts: list[Count]) -> list[str]:
    """Names that are probably another name misspelt: in one image only, or alike but for case and spaces."""
    found, names = [], [count.name for count in counts]
    for count in counts:
        others = [name for name in names if name != count.name]
        plain = {"".join(name.lower().split()): name for name in others}
        twin = plain.get("".join(count.name.lower().split()))
        if twin is not None and count.name < twin:
            found.append(f"the {column} names '{count.name}' and '{twin}' differ only in case or spaces")
        elif twin is None and count.present == 1 and not count.name.isdigit() and len(count.name) > 2:
            close = difflib.get_close_matches(count.name, others, n=1, cutoff=0.75)
            if close:
                found.append(f"the {column} '{count.name}' occurs once only: was '{close[0]}' meant?")
        if count.name[:1] in "=+@" and count.name:
            found.append(f"the {column} name '{count.name[:40]}' looks like a spreadsheet formula: it is kept as text")
    return found


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
        for c in counts[: 2 * _SHOWN]:
            share = f"{100 * c.share:.1f} % of pixels" if c.share is not None else ""
            absent = f"{c.absent:,}" if any(count.absent for count in counts) else ""
            rows.append([c.column, c.name[:60], f"{c.present:,}", absent, f"{c.unknown:,}", f"{c.test:,}", share])
        if len(counts) > 2 * _SHOWN:
            rows.append([column, f"… {len(counts) - 2 * _SHOWN} more", "", "", "", "", ""])
    return "Classes", ["column", "name", "present", "absent", "unknown", "in test", ""], rows


def _duplicates(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows = [["equal", ", ".join(seen.names[row] for row in group[:4])] for group in seen.exact[:_SHOWN]]
    rows += [["near", f"{seen.names[a]}, {seen.names[b]}"] for a, b in seen.near[:_SHOWN]]
    extra = sum(len(group) - 1 for group in seen.exact)
    return f"Duplicates: {extra:,} equal, {len(seen.near):,} near pairs", ["", "images"], rows


def _left_out(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows = [[entry.name, entry.reason] for entry in seen.quarantined[: 4 * _SHOWN]]
    return f"Left out: {len(seen.quarantined):,}", ["file", "reason"], rows


def _fits(seen: Look) -> tuple[str, list[str], list[list[str]]]:
    rows = [[name, "yes" if good else "no", why] for name, good, why in seen.fits or ()]
    return "Systems that fit", ["system", "fits", "why"], rows


def _numeric(rows: list[list[str]], column: int) -> bool:
    cells = [row[column].replace(",", "") for row in rows if row[column]]
    return bool(cells) and all(cell.isdigit() for cell in cells)


def _html_table(title: str, header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header) if any(header) else ""
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h4>{html.escape(title)}</h4><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
