"""What is in a data set: known and unknown, sizes, duplicates, files left out, and likely mistakes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch

from rushlight import tasks
from rushlight.data.columns import KINDS, TEST
from rushlight.data.dataset import Dataset
from rushlight.data.edit import duplicates
from rushlight.data.edit.split import crossing
from rushlight.data.sources.read import load
from rushlight.jobs.look.result import SHOWN, Count, Look
from rushlight.tasks.base import some


def look(source: Any, *, fits: Sequence[tuple[str, bool, str]] | None = None, **settings: Any) -> Look:
    """Look at a data set, or at anything that `rushlight.data.sources.read.load` reads.

    Args:
        fits: (method, does it fit, why) of each method, shown at the end.
        settings: those of `load`.

    Raises:
        UserError: the source cannot be read.
    """
    data = load(source, **settings)
    groups = duplicates.exact(data)
    pairs = [(int(a), int(b)) for a, b in duplicates.near(data)] if "image" in data else []
    labelled = [task for task in tasks.all() if data.known(task.column).any()]
    contradictions = [rows for rows in groups if any(task.contradicts(data, rows) for task in labelled)]
    leaks = [rows for rows in groups if "fold" in data and len(set((data["fold"][rows] == TEST).tolist())) > 1]
    seen = Look(
        source=data.info.source,
        rows=len(data),
        packed=(data.height, data.width),
        folds=_folds(data),
        columns={
            name: _known(data, name) for name, kind in KINDS.items() if name in data and (kind.label or kind.option)
        },
        counts=[*(count for task in labelled for count in _of_task(task, data)), *_of_ids(data, labelled)],
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
    sizes = data["size"] if "size" in data else torch.tensor([data.row_shape(data.input)[-2:]])
    order = sizes.prod(1).argsort(stable=True)
    picked = {"smallest": order[0], "median": order[len(order) // 2], "largest": order[-1]}
    found: dict[str, Any] = {name: tuple(sizes[row].tolist()) for name, row in picked.items()}
    return found | {"different": len(sizes.unique(dim=0))}


def _of_task(task: tasks.Task, data: Dataset) -> list[Count]:
    """Return the counts of a task's classes."""
    table = task.counts(data)
    rows = len(table["present"])
    blank = [None] * rows
    columns = [next(iter(table.values())), table["present"], table.get("absent", blank), table["unknown"]]
    columns += [table["in test"], table.get("share of pixels", blank)]
    return [Count(task.column, *row) for row in zip(*columns, strict=True)]


def _of_ids(data: Dataset, labelled: Sequence[tasks.Task]) -> list[Count]:
    """Return the counts of columns of one number per row that no task learns: domains, groups."""
    taken = {task.column for task in labelled}
    test = data["fold"] == TEST if "fold" in data else torch.zeros(len(data), dtype=torch.bool)
    return [
        count
        for name, names in (("domain", data.info.domain_names), ("group", data.info.group_names))
        if name in data and name not in taken and KINDS[name].axes == ()
        for count in _of_numbers(name, data[name], names, test)
    ]


def _of_numbers(column: str, values: torch.Tensor, names: Sequence[str], test: torch.Tensor) -> list[Count]:
    known, unknown = values >= 0, int((values < 0).sum())
    size = max(len(names), int(values.max()) + 1 if len(values) else 0)
    every = torch.bincount(values[known], minlength=size).tolist()
    tested = torch.bincount(values[known & test], minlength=size).tolist()
    named = [*names, *map(str, range(len(names), size))]
    return [Count(column, named[i], every[i], None, unknown, tested[i]) for i in range(size)]


def _warnings(seen: Look, data: Dataset) -> list[str]:
    found = [_pair(seen, rows, "are equal but labelled differently") for rows in seen.contradictions[:SHOWN]]
    found += [_pair(seen, rows, "are equal but in training and in test") for rows in seen.leaks[:SHOWN]]
    for column in [task.column for task in tasks.all() if not KINDS[task.column].geometric]:  # typed for each image
        found += _suspicious(column, [count for count in seen.counts if count.column == column])
    for key, value in data.info.settings.items():
        if key == "duplicated_rows":
            found.append(f"the label file has {value} rows more than once, without contradiction")
        if key == "ignored_columns":
            found.append(f"columns of the label file that were not used: {', '.join(map(str, value))}")
        if key == "blanks":
            found.append(f"the label file has {value}")
        if key.startswith("spare "):
            found.append(f"{key.removeprefix('spare ')} that were not used: {value}")
        if key == "masks":
            found.append(f"masks: {value}")
        if key == "group":
            found.append(f"groups: {value} (--group COLUMN names another, --group none takes none)")
    for task in tasks.all():
        if unseen := task.opened(data)[1]:
            found.append(f"no training label names {some(unseen)}, only the test fold's: unseen, and to be rejected")
    shared = crossing(data)
    if shared:
        found.append(
            f"{shared:,} groups have rows in training and in test: what is measured there says little of new ones"
        )
    return found


def _pair(seen: Look, rows: list[int], what: str) -> str:
    names = [f"'{seen.names[row]}'" for row in rows[:3]]
    return f"{', '.join(names)}{' …' if len(rows) > 3 else ''} {what}"


def _suspicious(column: str, counts: list[Count]) -> list[str]:
    """Return sentences on suspicious names: in one image only and like another, alike but for case, or a formula."""
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
