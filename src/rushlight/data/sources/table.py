"""CSV and Parquet files as text. Cells stay text: nothing in them is interpreted or run."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rushlight.core.errors import UserError
from rushlight.data.sources.listing import IMAGES

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Table:
    """A label file as text: its header, and its rows with the number a spreadsheet shows for each."""

    file: str
    header: list[str]
    rows: list[list[str]]
    numbers: list[int]

    def find(self, names: Sequence[str]) -> int | None:
        """Return the first of these columns that exists, whatever its case."""
        lower = [cell.strip().lower() for cell in self.header]
        return next((lower.index(name) for name in names if name in lower), None)

    def column(self, index: int) -> list[str]:
        return [row[index].strip() for row in self.rows]


def read_table(path: Path) -> Table:
    """Read a CSV or Parquet file as text.

    Raises:
        UserError: it is neither, has no fixed number of cells a row, or holds one column only.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the label file '{path}' cannot be read: {error.strerror or error}") from error
    if path.suffix.lower() in (".parquet", ".pq") or data[:4] == b"PAR1":
        return _parquet(path)
    refuse_binary(path, data)
    return _csv(path, _text(path, data))


def refuse_binary(path: Path, data: bytes) -> None:
    """Raise an error that says what a label file is if it is no text.

    Raises:
        UserError: a pickle (never loaded), an archive, an array, or other binary data.
    """
    remedy = "give the labels as CSV, Parquet or COCO JSON"
    if data[:1] == b"\x80" or path.suffix.lower() in (".pt", ".pth", ".pkl", ".pickle"):
        raise UserError(f"the label file '{path}' is a pickle, which could run code and is never loaded: {remedy}")
    if data[:2] == b"PK":
        what = "an Excel workbook" if path.suffix.lower() in (".xlsx", ".xlsm") else "a zip archive"
        raise UserError(f"the label file '{path}' is {what}: {remedy}")
    if data[:6] == b"\x93NUMPY":
        raise UserError(f"the label file '{path}' is a NumPy array, which names no images: {remedy}")
    if b"\0" in data[:65536] and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"the label file '{path}' is not text: {remedy}")
    if not data.strip():
        raise UserError(f"the label file '{path}' is empty: its first row must name the columns")


def _text(path: Path, data: bytes) -> str:
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise UserError(f"the label file '{path}' is not UTF-8 (row {row}): save it as 'CSV UTF-8'") from error


def _csv(path: Path, text: str) -> Table:
    delimiter = _delimiter(path, text)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UserError(f"the label file '{path}' is no CSV: {error}; look for a quote that is not closed") from error
    header, numbered = (
        rows[0],
        [(number, row) for number, row in enumerate(rows[1:], 2) if any(map(str.strip, row))],
    )
    return _table(path, header, [row for _, row in numbered], [number for number, _ in numbered], delimiter)


def _table(path: Path, header: list[str], rows: list, numbers: list[int], delimiter: str) -> Table:
    header = [cell.strip() for cell in header]
    for name, times in Counter(header).items():
        if times > 1 and name:
            raise UserError(f"the label file '{path}' has {times} columns named '{name}': rename or remove one")
    for number, row in zip(numbers, rows):
        while len(row) > len(header) and not row[-1].strip():
            row.pop()
        if len(row) != len(header):
            raise UserError(
                f"the label file '{path}', row {number}, has {len(row)} cells where the header has "
                f"{len(header)}: cells are separated by {_DELIMITERS[delimiter]}, "
                "and a cell that holds one needs quotes"
            )
    if not rows:
        raise UserError(f"the label file '{path}' has a header but no rows")
    return Table(str(path), header, rows, numbers)


def _delimiter(path: Path, text: str) -> str:
    """Return what separates the cells of the header; if the header has one cell, the rows must have one too."""
    head = text.lstrip("\r\n").split("\n", 1)[0]
    counts = {mark: len(next(csv.reader([head], delimiter=mark), [])) for mark in _DELIMITERS}
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best] > 1:
        return best
    raise UserError(
        f"the label file '{path}' has one column only, '{head.strip()[:60]}': separate the cells of a row, "
        "and the names in the first row, by commas, semicolons or tabs"
    )


def _parquet(path: Path) -> Table:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"the label file '{path}' is not a Parquet file that can be read: {reason}") from error
    columns = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    rows = [list(row) for row in zip(*columns)]
    return _table(path, list(table.column_names), rows, list(range(1, len(rows) + 1)), ",")


def _cell(value: Any) -> str:
    """Return a Parquet value as the text it would have in a CSV file."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return "|".join(map(_cell, value)) or "|"
    return value if isinstance(value, str) else str(value)


def is_table(path: Path) -> bool:
    return path.suffix.lower() in {".csv", ".tsv", ".parquet", ".pq"} and path.suffix.lower() not in IMAGES
