"""What a kind of column is: its dtype and axes, its unknown value, how it lies in memory, how it is read and moved.

A column is *dense* (one array, a row an entry), *ragged* (rows of different lengths: values and offsets) or a
*relation* (pairs of rows, such as the edges of a graph, which no row owns).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Form = Literal["dense", "ragged", "relation"]
Where = Literal["value", "last", "nan", "empty", "never"]
Move = Literal["", "images", "masks", "depth", "instance", "boxes", "keypoints"]


@dataclass(frozen=True)
class Kind:
    """One kind of column.

    Attributes:
        axes: of one row; a number is a fixed size. Of a ragged column, those of one of a row's entries.
        where: how `unknown` is found: `value`, the entry itself; `last`, the last channel of the last axis (a
            visibility); `nan`; `empty`, a row of zeros; `never`, the column is always known.
        moves: the method of `rushlight.augment.view.View` that maps the column into a view; empty where a view leaves
            it as it is.
        label: comes from a person (so it may be hidden, and a test set's is hidden from every stage).
        input: may be what an encoder reads; a data set has at least one such column.
        form: dense, ragged or relation.
        headings: what a table's column of this kind is called.
        option: of `load` and of commands: the folder with a file of it for each image.
        decode: reads one file of it (a mask, a depth map), as an array of the image's height and width.
    """

    name: str
    dtype: torch.dtype
    axes: tuple[str, ...]
    where: Where = "value"
    unknown: int | float = -1
    moves: Move = ""
    label: bool = True
    input: bool = False
    form: Form = "dense"
    headings: tuple[str, ...] = ()
    option: str = ""
    decode: Callable[[Any], Any] | None = None

    @property
    def geometric(self) -> bool:
        """Return whether values move with the pixels when a view is taken."""
        return bool(self.moves)

    def blank(self, shape: tuple[int, ...]) -> Tensor:
        """Return values of this kind in which nothing is known."""
        if self.where == "last":
            values = torch.zeros(shape, dtype=self.dtype)
            values[..., -1] = self.unknown
            return values
        return torch.full(shape, self.unknown, dtype=self.dtype)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths: row i holds `values[offsets[i]:offsets[i + 1]]`."""

    values: Tensor
    offsets: Int[Tensor, "rows_and_one"]

    @classmethod
    def of(cls, rows: list[Tensor]) -> Ragged:
        """Join rows, each with its own number of entries."""
        lengths = torch.tensor([0, *map(len, rows)], dtype=torch.int64)
        return cls(torch.cat(rows), lengths.cumsum(0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tensor:
        return self.values[int(self.offsets[row]) : int(self.offsets[row + 1])]

    @property
    def lengths(self) -> Int[Tensor, "rows"]:
        return self.offsets.diff()

    def take(self, rows: slice | Int[Tensor, "n"]) -> Ragged:
        """Return some rows; a slice shares the values."""
        if isinstance(rows, slice):
            offsets = self.offsets[rows.start : rows.stop + 1]
            return Ragged(self.values[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0])
        lengths = self.lengths[rows]
        ends = lengths.cumsum(0)
        # Entry e of the result lies in row r, at e − start(r) from where that row begins in the source.
        shift = (self.offsets[rows] - (ends - lengths)).repeat_interleave(lengths)
        offsets = torch.cat([ends.new_zeros(1), ends])
        return Ragged(self.values[torch.arange(len(shift)) + shift], offsets)

    def padded(self, fill: int | float = 0) -> Tensor:
        """Return the rows below each other, each filled up to the longest."""
        longest = int(self.lengths.max()) if len(self) else 0
        shape = (len(self), longest, *self.values.shape[1:])
        padded = torch.full(shape, fill, dtype=self.values.dtype)
        padded[torch.arange(longest) < self.lengths[:, None]] = self.values
        return padded


def induced(edges: Int[Tensor, "2 edges"], rows: slice | Int[Tensor, "n"], count: int) -> Int[Tensor, "2 kept"]:
    """Return the edges between the given rows of `count`, numbered by their place among these.

    Raises:
        ValueError: a row is named twice.
    """
    chosen = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
    place = torch.full((count,), -1)
    place[chosen] = torch.arange(len(chosen))
    if int((place >= 0).sum()) < len(chosen):
        raise ValueError("a relation holds between rows, so a selection may name each row once only")
    renumbered = place[edges]
    return renumbered[:, (renumbered >= 0).all(0)]


def neighbours(edges: Int[Tensor, "2 edges"], count: int) -> Int[Tensor, "rows most"]:
    """Return for each row the rows that its edges lead to, in the order of the edges, filled up with −1."""
    source, target = edges[:, edges[0].argsort(stable=True)]
    degree = source.bincount(minlength=count)
    first = degree.cumsum(0) - degree
    table = torch.full((count, int(degree.max()) if count else 0), -1)
    table[source, torch.arange(len(source)) - first[source]] = target
    return table


@dataclass(frozen=True)
class Column:
    """A column's values together with its kind."""

    kind: Kind
    values: Tensor

    @property
    def known(self) -> Bool[Tensor, "..."]:
        """Return where values are known, entry by entry (a box or a keypoint is one entry, a caption too)."""
        match self.kind.where:
            case "value":
                return self.values != self.kind.unknown
            case "last":
                return self.values[..., -1] != self.kind.unknown
            case "nan":
                return ~self.values.isnan()
            case "empty":
                return (self.values != 0).any(-1)
            case _:
                return torch.ones(self.values.shape[:1], dtype=torch.bool, device=self.values.device)

    @property
    def known_rows(self) -> Bool[Tensor, "rows"]:
        """Return which rows have any known value."""
        return self.known.flatten(1).any(1) if self.known.ndim > 1 else self.known

    def hide(self, rows: Bool[Tensor, "rows"]) -> Tensor:
        """Return a copy of the values with the given rows unknown."""
        check_hideable(self.kind)
        values = self.values.clone()
        values[rows] = self.kind.blank((1, *values.shape[1:]))
        return values


def check_hideable(kind: Kind) -> None:
    """Raise a ValueError for a kind that is always known."""
    if kind.where == "never":
        raise ValueError(f"the column '{kind.name}' is always known: it cannot be hidden")
