"""Labels from a CSV or Parquet file: a row an image, blank wherever nothing is known.

A column names the image; then either `class`; or `tags`, separated by `|` (the tags listed are present and
all others absent; a lone `|` says that none is present); or one column a tag with 1, 0 or blank. `fold` (or
`split`), `domain`, `study`, `magnification`, `caption`, `licence` and `creator` (or `photographer`) may stand beside
them. Cells are text and stay text: nothing in them is interpreted or run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rushlight.core.errors import UserError, nearest
from rushlight.data.columns import KINDS, TEST, TRAIN
from rushlight.data.sources.listing import Listing
from rushlight.data.sources.table import Table

NO_GROUP = "none"
"""What is given for a group where a column that looks like one is none."""

IMAGE = (
    "image",
    "file",
    "filename",
    "file_name",
    "image_path",
    "path",
    "img",
    "image_file",
    "name",
    "id",
    "image_id",
)
CLASS = KINDS["class"].headings
TAGS = KINDS["tags"].headings
EITHER = ("labels", "categories")
"""Tags if a bar occurs in a cell, else classes."""
FOLD = KINDS["fold"].headings
DOMAIN = KINDS["domain"].headings
ORIGIN = {name: KINDS[name].headings for name in ("study", "magnification")}
TEXTS = {name: KINDS[name].headings for name in ("caption", "licence", "creator")}
FOLDS = {
    "train": TRAIN, "training": TRAIN, "0": TRAIN, "test": TEST, "testing": TEST, "1": TEST, "": -1, "-1": -1,
    "val": TEST, "valid": TEST, "validation": TEST, "unlabelled": TRAIN, "unlabeled": TRAIN,
}  # fmt: skip
BLANKS = frozenset(["nan", "NaN", "NAN", "<NA>", "#N/A", "N/A", "n/a", "NULL", "null"])
"""How pandas and spreadsheets spell a cell without a value; `NA`, `None` and the like may be names of classes."""
_ONE, _ZERO = {"1", "1.0", "true", "True", "TRUE"}, {"0", "0.0", "false", "False", "FALSE"}


def join(listing: Listing, table: Table, group: str | None = None) -> Listing:
    """Return the listing with the table's labels; images that it does not name are unlabelled.

    Args:
        group: the column whose rows stay together; by default one that is called so (`patient`, `slide`, …).

    Raises:
        UserError: see `read_table`; missing files; no image or label column; two labels for one image; a tag
            cell that is neither 1, 0 nor blank.
    """
    image = _image_column(listing, table)
    rows = _rows_of_images(listing, table, image)
    table = _blanked(listing, table, image)
    table, merged = _one_row_an_image(listing, table, rows, image)
    used = {image}
    for read in (_class, _tag_list, _fold, _domain, _origin, _texts):
        used |= read(listing, table, merged)
    used |= _group(listing, table, merged, group)
    if not {"class", "tags"} & listing.labels.keys():
        used |= _tag_columns(listing, table, merged, used)
    ignored = [name for index, name in enumerate(table.header) if index not in used and name]
    if ignored:
        listing.notes["ignored_columns"] = ignored
    listing.label_file = table.file
    return listing


def _blanked(listing: Listing, table: Table, image: int) -> Table:
    """Return the table with the spellings of an empty cell as blanks, and note them; texts stay as they are."""
    texts = {table.find(names) for names in TEXTS.values()} | {image}
    counts: Counter[str] = Counter()
    rows = []
    for row in table.rows:
        empty = {i: cell.strip() for i, cell in enumerate(row) if i not in texts and cell.strip() in BLANKS}
        counts.update(empty.values())
        rows.append(["" if i in empty else cell for i, cell in enumerate(row)])
    if counts:
        told = ", ".join(f"{n:,} cells '{cell}'" if n > 1 else f"1 cell '{cell}'" for cell, n in counts.items())
        listing.notes["blanks"] = f"{told}: read as blank, so unknown (rename a class that is called so)"
    return Table(table.file, table.header, rows, table.numbers)


def _image_column(listing: Listing, table: Table) -> int:
    known = lookup(listing)
    named = [index for index in [table.find([name]) for name in IMAGE] if index is not None]
    others = [index for index in range(len(table.header)) if index not in named]
    hits = {index: sum(known(cell) is not None for cell in table.column(index)[:200]) for index in named + others}
    best = max(hits, key=lambda index: hits[index])
    if hits[best] and (not named or hits[named[0]] < hits[best]):
        return best
    if named:
        return named[0]
    raise UserError(
        f"the label file '{table.file}' has no column that names the images, only {_quoted(table.header)}: "
        "call the column with the file names 'image'"
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:12]) + (" …" if len(names) > 12 else "")


def lookup(listing: Listing) -> Callable[[str], int | None]:
    """Return a function from a cell to a row of the listing: by path, else by a name that occurs once."""
    exact = {name: row for row, name in enumerate(listing.names)}
    loose: dict[str, int | None] = {}
    for name, row in exact.items():
        base = name.rsplit("/", 1)[-1]
        for key in {base, base.rsplit(".", 1)[0], name.rsplit(".", 1)[0]}:
            loose[key] = None if key in loose else row

    def find(cell: str) -> int | None:
        cell = cell.strip().replace("\\", "/").removeprefix("./")
        if cell in exact:
            return exact[cell]
        if loose.get(cell) is not None:
            return loose[cell]
        return None if cell.startswith("../") or "/../" in cell else loose.get(cell.rsplit("/", 1)[-1])

    return find


def _rows_of_images(listing: Listing, table: Table, image: int) -> list[int]:
    """Return the listing's row of each row of the table; −1 for a file that exists but cannot be used."""
    find, refused = lookup(listing), {entry.name for entry in listing.quarantined}
    found: list[int] = []
    missing: list[tuple[int, str]] = []
    for number, cell in zip(table.numbers, table.column(image)):
        row = find(cell)
        if row is None and cell not in refused:
            missing.append((number, cell))
        found.append(-1 if row is None else row)
    if missing:
        raise UserError(_missing(listing, table, missing, table.header[image]))
    return found


def _missing(listing: Listing, table: Table, missing: list[tuple[int, str]], column: str) -> str:
    number, cell = missing[0]
    what = "a file that is" if len(missing) == 1 else f"{len(missing):,} files that are"
    first = f"'{cell}' (row {number}, column '{column}')"
    hint = nearest(cell, listing.names[:5000]) if cell else " The cell is blank."
    return (
        f"the label file '{table.file}' names {what} not in '{listing.source}': "
        f"{'' if len(missing) == 1 else 'first '}{first}.{hint} Add the files, or remove the rows"
    )


def _one_row_an_image(listing: Listing, table: Table, rows: list[int], image: int) -> tuple[Table, list[int]]:
    """Join rows of the same image into one if no cells contradict each other; blanks give way to known values."""
    at: dict[int, int] = {}
    kept: list[int] = []
    merged = 0
    cells, telling = [list(row) for row in table.rows], _telling(table, image)
    for index, row in enumerate(rows):
        if row < 0:
            continue
        if row not in at:
            at[row] = index
            kept.append(index)
        else:
            _merge(listing, table, telling, cells[at[row]], cells[index], (at[row], index), row)
            merged += 1
    if merged:
        listing.notes["duplicated_rows"] = merged
    picked = Table(table.file, table.header, [cells[i] for i in kept], [table.numbers[i] for i in kept])
    return picked, [rows[i] for i in kept]


def _merge(
    listing: Listing,
    table: Table,
    telling: set[int],
    into: list[str],
    other: list[str],
    where: tuple[int, int],
    row: int,
) -> None:
    for index, (a, b) in enumerate(zip(into, other)):
        if not b.strip() or a.strip() == b.strip():
            continue
        if a.strip() and index in telling:
            first, second = (table.numbers[i] for i in where)
            raise UserError(
                f"the label file '{table.file}' contradicts itself on '{listing.names[row]}': column "
                f"'{table.header[index]}' is '{a.strip()}' in row {first} and '{b.strip()}' in row {second}; "
                "keep one, or write several as tags: a|b"
            )
        into[index] = a if a.strip() else b


def _telling(table: Table, image: int) -> set[int]:
    """Return the columns in which rows of one image may not differ: labels and licences; several captions may."""
    known = (CLASS, TAGS, EITHER, FOLD, DOMAIN, KINDS["group"].headings, *ORIGIN.values(), TEXTS["licence"])
    found = {table.find(names) for names in known} - {None, image}
    labels = {table.find(names) for names in (CLASS, TAGS, EITHER)} - {None}
    others = set() if labels else {table.find([name]) for name in table.header} - {image}
    flags = {i for i in others if i is not None and (_ONE | _ZERO) & set(table.column(i))}
    return {index for index in found | flags if index is not None}


def natural(name: str) -> list[Any]:
    """Return a sort key that orders numbers by value: class 2 before class 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _names_and_ids(values: list[str]) -> tuple[tuple[str, ...], list[int]]:
    names = tuple(sorted({value for value in values if value}, key=natural))
    ids = {name: index for index, name in enumerate(names)} | {"": -1}
    return names, [ids[value] for value in values]


def _scatter(listing: Listing, rows: list[int], values: list[int], start: int = -1) -> np.ndarray:
    column = np.full(len(listing.names), start, dtype=np.int64)
    column[rows] = values
    return column


def _either(table: Table, names: Sequence[str], bars: bool) -> int | None:
    """Return the column of one of these names, or a column `labels` with (without) bars."""
    index = table.find(names)
    if index is None:
        index = table.find(EITHER)
        if index is not None and any("|" in cell for cell in table.column(index)) is not bars:
            return None
    return index


def _class(listing: Listing, table: Table, rows: list[int]) -> set[int]:
    index = _either(table, CLASS, bars=False)
    if index is None:
        return set()
    names, ids = _names_and_ids(table.column(index))
    listing.labels["class"] = _scatter(listing, rows, ids)
    listing.meaning["class_names"] = names
    return {index}


def parse_tags(cell: str) -> list[str] | None:
    """Return the tags of a cell, in order, each once; None where nothing is known; empty for a lone `|`."""
    if not cell.strip():
        return None
    return list(dict.fromkeys(tag.strip() for tag in cell.split("|") if tag.strip()))


def _tag_list(listing: Listing, table: Table, rows: list[int]) -> set[int]:
    index = _either(table, TAGS, bars=True)
    if index is None:
        return set()
    parsed = [parse_tags(cell) for cell in table.column(index)]
    names = tuple(sorted({tag for tags in parsed for tag in tags or ()}, key=natural))
    if not names:
        raise UserError(f"the label file '{table.file}' has no tag in its column '{table.header[index]}'")
    ids = {name: number for number, name in enumerate(names)}
    values = np.full((len(listing.names), len(names)), -1, dtype=np.int8)
    for row, tags in zip(rows, parsed):
        if tags is not None:
            values[row] = 0
            values[row, [ids[tag] for tag in tags]] = 1
    listing.labels["tags"], listing.meaning["tag_names"] = values, names
    return {index}


def _tag_columns(listing: Listing, table: Table, rows: list[int], used: set[int]) -> set[int]:
    """Read one column per tag. A column without any 1 or 0 is not a tag, unless it is all blank."""
    columns = {i: table.column(i) for i in range(len(table.header)) if i not in used and table.header[i]}
    tags = {i: cells for i, cells in columns.items() if not any(cells) or (_ONE | _ZERO) & set(cells)}
    if not any(any(cells) for cells in tags.values()):
        if {"boxes", "fold", "domain", "group", *ORIGIN, *TEXTS} & listing.labels.keys() or not columns:
            return set()
        raise UserError(
            f"the label file '{table.file}' has no label column, only {_quoted(table.header)}: call the "
            "column with the classes 'class', or the one with tags separated by | 'tags', or give each tag a "
            "column of 1, 0 or blank"
        )
    values = np.full((len(listing.names), len(tags)), -1, dtype=np.int8)
    for place, (index, cells) in enumerate(tags.items()):
        values[rows, place] = [_tag(table, index, number, cell) for number, cell in zip(table.numbers, cells)]
    listing.labels["tags"], listing.meaning["tag_names"] = values, tuple(table.header[i] for i in tags)
    return set(tags)


def _tag(table: Table, index: int, number: int, cell: str) -> int:
    if not cell:
        return -1
    if cell in _ONE or cell in _ZERO:
        return int(cell in _ONE)
    raise UserError(
        f"the label file '{table.file}', row {number}, column '{table.header[index]}': '{cell[:60]}' is "
        "neither 1 (present), 0 (absent) nor blank (unknown)"
    )


def _fold(listing: Listing, table: Table, rows: list[int]) -> set[int]:
    index = table.find(FOLD)
    if index is None:
        return set()
    cells = [cell.lower() for cell in table.column(index)]
    for number, cell in zip(table.numbers, cells):
        if cell not in FOLDS:
            raise UserError(
                f"the label file '{table.file}', row {number}, column '{table.header[index]}': '{cell[:60]}' "
                "is no fold; write train, test or val, or leave it blank"
            )
    tested = "test" in cells or "testing" in cells
    values = [-1 if tested and cell.startswith("val") else FOLDS[cell] for cell in cells]
    listing.labels["fold"] = _scatter(listing, rows, values)
    return {index}


def _domain(listing: Listing, table: Table, rows: list[int]) -> set[int]:
    index = table.find(DOMAIN)
    if index is None:
        return set()
    names, ids = _names_and_ids(table.column(index))
    listing.labels["domain"], listing.meaning["domain_names"] = _scatter(listing, rows, ids), names
    return {index}


def _origin(listing: Listing, table: Table, rows: list[int]) -> set[int]:
    """Read study and magnification, numbered in natural order of their text (5x, 10x, 20x)."""
    used = set()
    for name, headings in ORIGIN.items():
        index = table.find(headings)
        if index is not None:
            listing.labels[name] = _scatter(listing, rows, _names_and_ids(table.column(index))[1])
            used.add(index)
    return used


def _group(listing: Listing, table: Table, rows: list[int], name: str | None) -> set[int]:
    """Read the groups that belong together: from the named column, or from one with a heading for groups."""
    if name == NO_GROUP:
        return set()
    index = table.find([name.lower()]) if name is not None else table.find(KINDS["group"].headings)
    if index is None and name is not None:
        raise UserError(
            f"--group {name}: the label file '{table.file}' has no such column.{nearest(name, table.header)}"
        )
    if index is None:
        return set()
    names, ids = _names_and_ids(table.column(index))
    listing.labels["group"], listing.meaning["group_names"] = _scatter(listing, rows, ids), names
    listing.notes["group"] = f"column '{table.header[index]}': {len(names):,} groups, none on both sides of a split"
    return {index}


def _texts(listing: Listing, table: Table, rows: list[int]) -> set[int]:
    """Read captions, licences and creators, as written."""
    used = set()
    for name, headings in TEXTS.items():
        index = table.find(headings)
        if index is None:
            continue
        texts = [""] * len(listing.names)
        for row, text in zip(rows, table.column(index)):
            texts[row] = text.replace("\0", "")
        listing.labels[name] = texts
        used.add(index)
    return used
