"""Saved data sets: a folder of raw files that are mapped into memory, never read whole.

| file | what it holds |
|---|---|
| `info.json` | what the columns mean |
| `columns.json` | of each column its form, dtype, shape and hash, or where it lies |
| `columns/NAME.memmap` | values (`NAME.offsets.memmap` beside those of a ragged column) |
| `columns/NAME.digests` | a hash of each row, where rows are longer than that |
| `columns/rows-I.memmap`, `columns/NAME.hidden` | of a column that lies elsewhere: its rows, what is hidden |

A view that is saved by reference writes no values that lie in a saved data set already: it names that folder and the
hash of its column, and opening it fails in one sentence where either has changed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data import rows as at
from rushlight.data.columns import KINDS, Ragged
from rushlight.data.stored import Held, Stored

VERSION = 2
COLUMNS, INFO = "columns.json", "info.json"


def write(folder: Path, columns: dict[str, Stored], info: str, *, reference: bool = False) -> None:
    """Write columns into a folder that does not exist yet; it appears whole or not at all.

    Args:
        reference: of a column that lies in a saved data set, write which of its rows these are rather than the values.

    Raises:
        FileExistsError: the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "columns").mkdir(parents=True)
    try:
        entries = _write_all(partial / "columns", columns, reference)
        rows = len(next(iter(columns.values())))
        seal(partial, rows, entries, info)
        partial.rename(folder)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(partial)
        raise


def complete(folder: Path, data: Any, mapped: list[str]) -> None:
    """Write the rest of a data set whose `mapped` columns lie in the folder already, and all digests."""
    columns, place = data.stored, folder / "columns"
    entries = {
        name: describe(one, [len(one), *one.row_shape] if name in mapped else _values(place, name, one), place)
        for name, one in columns.items()
    }
    seal(folder, len(data), entries, data.info.to_json())


def seal(folder: Path, rows: int, entries: dict[str, Any], info: str) -> None:
    """Write the description of a folder's columns, and its info."""
    (folder / INFO).write_text(info)
    (folder / COLUMNS).write_text(json.dumps({"version": VERSION, "rows": rows, "columns": entries}, indent=1))


def read(folder: Path) -> tuple[dict[str, Stored], str]:
    """Return a saved data set's columns, mapped, and its info.

    Raises:
        OSError, ValueError, KeyError: it is not whole, or of another version.
        UserError: it refers to a data set that is gone or has changed.
    """
    content = _content(folder)
    columns: dict[str, Stored] = {}
    opened: dict[str, Any] = {}
    for name, entry in content["columns"].items():
        if entry["form"] == "reference":
            columns[name] = _refer(folder, name, entry, content["rows"], opened)
        else:
            columns[name] = Stored(held(folder, name, entry, content["rows"]), slice(0, content["rows"]))
    return columns, (folder / INFO).read_text()


def held(folder: Path, name: str, entry: dict[str, Any], rows: int) -> Held:
    """Map one column of a saved data set."""
    kind, place = KINDS[name], folder / "columns"
    values = mapped(place / f"{name}.memmap", kind.dtype, entry["shape"])
    kept = mapped(place / f"{name}.digests", torch.uint8, [rows, 16]) if entry["digests"] else None
    if entry["form"] != "ragged":
        return Held(kind, values, rows, folder, kept)
    offsets = mapped(place / f"{name}.offsets.memmap", torch.int64, [rows + 1])
    return Held(kind, Ragged(values, offsets), rows, folder, kept)


def describe(stored: Stored, shape: Iterable[int], place: Path) -> dict[str, Any]:
    """Return a written column's entry, and write its rows' digests where it has any."""
    digests = stored.kind.form != "relation" and not stored.held.short
    if digests:
        _put(place / f"{stored.kind.name}.digests", [stored.row_digests()])
    return {"form": stored.kind.form, "shape": list(shape), "digests": digests, "hash": stored.digest}


def _content(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / COLUMNS).read_text())
    if content["version"] != VERSION:
        raise ValueError(f"it was saved by another version ({content['version']}, not {VERSION})")
    return content


def _write_all(place: Path, columns: dict[str, Stored], reference: bool) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    written: list[at.Rows] = []
    for name, stored in columns.items():
        if reference and stored.held.folder is not None:
            entries[name] = _reference(place, name, stored, written)
        else:
            entries[name] = describe(stored, _values(place, name, stored), place)
    return entries


def _values(place: Path, name: str, stored: Stored) -> list[int]:
    """Write a column's values, a chunk at a time; return their shape."""
    if stored.kind.form == "dense":
        _put(place / f"{name}.memmap", stored.chunks())  # type: ignore[arg-type]
        return [len(stored), *stored.row_shape]
    values = stored.read()
    if isinstance(values, Ragged):
        _put(place / f"{name}.offsets.memmap", [values.offsets])
        values = values.values
    else:
        values = values.T
    _put(place / f"{name}.memmap", [values])
    return list(values.shape)


def _put(path: Path, parts: Iterable[Tensor]) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part.contiguous().numpy().reshape(-1).view(np.uint8).data)


def mapped(path: Path, dtype: torch.dtype, shape: list[int]) -> Tensor:
    """Return a file as a tensor: its pages are read on first access, and shared by all processes.

    Raises:
        OSError: the file is not there, or of another length.
    """
    count = int(np.prod(shape))
    if path.stat().st_size != count * dtype.itemsize:
        raise OSError(f"{path} has another length than it had")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(str(path), shared=False, size=count, dtype=dtype).view(shape)


def _reference(place: Path, name: str, stored: Stored, written: list[at.Rows]) -> dict[str, Any]:
    rows = stored.rows
    if isinstance(rows, slice):
        chosen: Any = [rows.start, rows.stop]
    else:
        number = next((i for i, one in enumerate(written) if one is rows), len(written))
        if number == len(written):
            written.append(rows)
            _put(place / f"rows-{number}.memmap", [rows])
        chosen = f"rows-{number}.memmap"
    if stored.hidden is not None:
        _put(place / f"{name}.hidden", [stored.hidden])
    folder = stored.held.folder
    assert folder is not None
    entry = _content(folder)["columns"][name]
    return {
        "form": "reference",
        "folder": str(folder.resolve()),
        "hash": entry["hash"],
        "rows": chosen,
        "hidden": stored.hidden is not None,
    }


def _refer(folder: Path, name: str, entry: dict[str, Any], rows: int, opened: dict[str, Any]) -> Stored:
    """Open a column that lies in another folder."""
    home, chosen, place = Path(entry["folder"]), entry["rows"], folder / "columns"
    try:
        content = opened.setdefault(entry["folder"], _content(home))
        found = content["columns"][name]
        if found["hash"] != entry["hash"]:
            raise ValueError("it has changed")
        values = held(home, name, found, content["rows"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the data in '{folder}' refers to '{home}', which cannot be used: {error}") from error
    if isinstance(chosen, str):
        path = chosen
        chosen = opened.setdefault(path, mapped(place / path, torch.int64, [rows]))
    hidden = mapped(place / f"{name}.hidden", torch.bool, [rows]) if entry["hidden"] else None
    return Stored(values, slice(*chosen) if isinstance(chosen, list) else chosen, hidden)
