"""Rows of a view: a slice where they follow each other (which reads without copying), else an index."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Rows = slice | Tensor
Chosen = slice | Sequence[int] | Int[Tensor, "n"] | Bool[Tensor, "rows"]


def normal(chosen: Chosen, count: int) -> Rows:
    """Return which of `count` rows are chosen: as a slice (start, stop) where they are contiguous.

    Raises:
        IndexError: a row outside of 0 … count − 1, or booleans of another number.
    """
    if isinstance(chosen, slice):
        start, stop, step = chosen.indices(count)
        return slice(start, max(start, stop)) if step == 1 else normal(torch.arange(count)[chosen], count)
    rows = torch.as_tensor(chosen, device="cpu")
    if rows.dtype == torch.bool:
        if len(rows) != count:
            raise IndexError(f"{len(rows)} booleans cannot choose among {count} rows")
        rows = rows.nonzero().squeeze(1)
    rows = rows.to(torch.int64)
    if rows.ndim != 1 or (len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < count)):
        raise IndexError(f"rows are numbers from 0 to {count - 1}")
    if not len(rows):
        return slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1) if bool((rows.diff() == 1).all()) else rows


def compose(outer: Rows, inner: Rows) -> Rows:
    """Return the rows that `inner` chooses among the rows `outer`."""
    if isinstance(outer, Tensor):
        return outer[inner]
    if isinstance(inner, slice):
        return slice(outer.start + inner.start, outer.start + inner.stop)
    return inner + outer.start if outer.start else inner


def length(rows: Rows) -> int:
    """Return the number of rows."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def equal(one: Rows, other: Rows) -> bool:
    """Return whether both name the same rows in the same order; a slice and numbers of it are told apart."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one == other if isinstance(one, slice) and isinstance(other, slice) else False
