"""The user's own files behind the rows of a data set, where it was read from a folder.

A name leads to a file only below that folder: neither `..` nor a symbolic link leads out of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from rushlight.data.dataset import Dataset
from rushlight.data.pack.decode import Unreadable, decode, header


def folder(data: Dataset) -> Path | None:
    """Return the folder that a data set was read from, or None where there is none (any more)."""
    try:
        path = Path(data.info.source).expanduser()
        return path if "name" in data and path.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None


def file(root: Path, name: str) -> Path | None:
    """Return the file of this name below a folder; None where there is none, or it lies outside."""
    try:
        path = (root / name).resolve()
        return path if path.is_relative_to(root.resolve()) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def pixels(
    data: Dataset, rows: Int[Tensor, "n"], longest: int | None, batch: int = 16
) -> Iterator[list[UInt8[Tensor, "3 _ _"]]]:
    """Yield the images of some rows, batch by batch: from their files, in their own shape, the longer side at most
    `longest`.

    Where there is no file, or `longest` is None, the packed image.
    """
    root, names = folder(data) if longest else None, data.names
    for part in rows.split(batch) if len(rows) else ():
        found = []
        for row in part.tolist():
            seen = _decoded(file(root, names[row]), longest) if root is not None and longest else None
            found.append(data.read("image", row) if seen is None else seen)
        yield found


def _decoded(path: Path | None, longest: int) -> UInt8[Tensor, "3 _ _"] | None:
    if path is None:
        return None
    try:
        head = header(path)
        scale = min(1.0, longest / max(head.height, head.width))
        canvas = (max(1, round(head.height * scale)), max(1, round(head.width * scale)))
        values, _ = decode(path, canvas, "squash")
    except Unreadable:
        return None
    return torch.from_numpy(values.copy()).permute(2, 0, 1).contiguous()
