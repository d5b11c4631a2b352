"""What people say of single images: verdicts of a reviewed sample, lists of images that must go, earlier versions."""

from __future__ import annotations

import csv
from pathlib import Path

from rushlight.core.errors import UserError
from rushlight.data.sources.table import read_table

KEEP, REMOVE = ("keep", "ok", "yes", "0"), ("remove", "drop", "no", "1")
HEADS = ("name", "image", "file", "filename")


def verdicts(path: str) -> dict[str, float]:
    """Read a CSV's columns `name` and `verdict`: 1 for an image to remove, 0 for one to keep; blanks are left out.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a verdict that is neither.
    """
    table = read_table(Path(path))
    name, verdict = table.find(HEADS), table.find(("verdict",))
    if name is None or verdict is None:
        raise UserError(f"'{path}' holds no verdicts: it needs the columns 'name' and 'verdict'")
    found = {}
    for number, image, text in zip(table.numbers, table.column(name), table.column(verdict), strict=True):
        word = text.lower()
        if word and word not in KEEP + REMOVE:
            raise UserError(f"'{path}', row {number}: the verdict '{text[:40]}' is neither keep nor remove")
        if word:
            found[image] = float(word in REMOVE)
    return found


def names(path: str) -> list[str]:
    """Read the first cell of each line of a text or CSV file; a heading such as `name` is left out.

    Raises:
        UserError: the file cannot be read.
    """
    rows = _rows(path)
    first = [row[0].strip() for row in rows if row and row[0].strip()]
    return first[1:] if first and first[0].lower() in HEADS else first


def removed(path: str) -> list[str]:
    """Read the names of the images that a `curation.csv` does not keep.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    head, *rows = _rows(path) or [[]]
    if not {"name", "kept"} <= set(head):
        raise UserError(f"'{path}' is no curation.csv of an earlier version: it lacks the columns 'name' and 'kept'")
    name, kept = head.index("name"), head.index("kept")
    return [row[name] for row in rows if len(row) > max(name, kept) and row[kept] == "0"]


def at_most(found: int, reviewed: int, confidence: float = 0.95) -> float:
    """Return the upper bound of a share by Clopper and Pearson (one-sided), after `found` of `reviewed`.

    Raises:
        ValueError: nothing was reviewed, or more found than reviewed.
    """
    from scipy.stats import beta

    if not 0 <= found <= reviewed or not reviewed:
        raise ValueError(f"{found} of {reviewed} is no share")
    return 1.0 if found == reviewed else float(beta.ppf(confidence, found + 1, reviewed - found))


def _rows(path: str) -> list[list[str]]:
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"'{path}' cannot be read as a list of images: {error}") from error
