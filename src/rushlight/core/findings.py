"""What a judge, a task or a stage found: numbers, tables, curves, matrices and pictures that a report draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Matrix:
    """Counts of `of` (images, pixels, boxes): true classes in rows, predicted ones in columns."""

    names: tuple[str, ...]
    counts: Int[Tensor, "true predicted"]
    of: str = "images"


@dataclass(frozen=True)
class Picture:
    """One image with what is drawn on it.

    Attributes:
        row: its row in the data; name: its file name; image: RGB; lines: captions.
    """

    row: int
    name: str
    image: UInt8[Tensor, "3 height width"]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """What a judge found: numbers, tables and curves, each with a name a report can print.

    Attributes:
        judge: the id of the judge.
        numbers: name → value.
        tables: name → columns → values, all of one length.
        curves: name → (x label, y label, {series: (x, y)}).
        notes: sentences for the reader.
        matrices: name → confusion counts.
        pictures: name → images with overlays.
    """

    judge: str
    numbers: dict[str, float] = field(default_factory=dict)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    curves: dict[str, tuple[str, str, dict[str, tuple[list[float], list[float]]]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    matrices: dict[str, Matrix] = field(default_factory=dict)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
