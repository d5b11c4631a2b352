"""A column as a view sees it: values that lie in memory or in a mapped file, the rows of them, and what is hidden.

Values are never copied by selecting rows or hiding labels; they are gathered on access.

A column's digest depends on the view's content alone, however it came about: rows of more than `SHORT` bytes are
hashed one by one, once (a saved data set keeps these digests), and a view's digest is that of its rows' digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from rushlight.data import rows as at
from rushlight.data.columns.base import Column, Kind, Ragged, check_hideable, induced, neighbours
from rushlight.data.rows import Rows

Values = Tensor | Ragged
SHORT = 64
"""Bytes a row up to which the values themselves are hashed rather than their rows' digests."""
DIGEST = 16
CHUNK = 1024


@dataclass(eq=False)
class Held:
    """Values as they lie in memory or in a file, shared by all views of them.

    Attributes:
        values: dense rows; ragged rows; or, of a relation, its pairs (E×2).
        rows: how many rows there are.
        folder: the saved data set that they lie in, mapped; None in memory.
        kept: the rows' digests, where they have been saved.
    """

    kind: Kind
    values: Values
    rows: int
    folder: Path | None = None
    kept: UInt8[Tensor, "rows 16"] | None = None

    @cached_property
    def digests(self) -> UInt8[Tensor, "rows 16"]:
        """Return BLAKE2b of each row's bytes."""
        if self.kept is not None:
            return self.kept
        if isinstance(self.values, Ragged):
            return _digests(self.values[row] for row in range(self.rows))
        return _digests(self.values)

    @property
    def short(self) -> bool:
        """Return whether a row is so short that its digest is no shorter."""
        values = self.values
        return isinstance(values, Tensor) and values[:1].numel() * values.element_size() <= SHORT


@dataclass(frozen=True, eq=False)
class Stored:
    """A column of a view.

    Attributes:
        rows: of `held` that the view shows.
        hidden: the view's rows that count as unknown; None hides none.
    """

    held: Held
    rows: Rows
    hidden: Bool[Tensor, "rows"] | None = field(default=None)

    @classmethod
    def of(cls, kind: Kind, values: Values, rows: int) -> Stored:
        """Return all rows of values in memory."""
        if kind.form == "relation":
            assert isinstance(values, Tensor)
            values = values.T  # a pair a line
        return cls(Held(kind, values, rows), slice(0, rows))

    def __len__(self) -> int:
        return at.length(self.rows)

    @property
    def kind(self) -> Kind:
        return self.held.kind

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of one row; of a ragged column, that of one entry."""
        values = self.held.values
        return tuple(values.values.shape[1:] if isinstance(values, Ragged) else values.shape[1:])

    @property
    def nbytes(self) -> int:
        """Return the bytes of the view's rows, if all were read (of a ragged column or a relation, of all stored)."""
        values = self.held.values
        stored = values.values if isinstance(values, Ragged) else values
        return stored.nbytes * len(self) // self.held.rows if self.kind.form == "dense" and len(self) else stored.nbytes

    def shows_as(self, other: Stored | None) -> bool:
        """Return whether both show the same rows of the same held values, of which none is compared."""
        if other is None or self.held is not other.held or not at.equal(self.rows, other.rows):
            return False
        if self.hidden is None or other.hidden is None:
            return self.hidden is other.hidden
        return torch.equal(self.hidden, other.hidden)

    def select(self, rows: Rows, composed: Rows) -> Stored:
        """Return some rows of the view; `composed` are their rows in the held values."""
        hidden = self.hidden[rows] if self.hidden is not None else None
        return Stored(self.held, composed, hidden if hidden is not None and bool(hidden.any()) else None)

    def hide(self, rows: Bool[Tensor, "rows"]) -> Stored:
        """Return the column with these rows of the view unknown."""
        check_hideable(self.kind)
        return replace(self, hidden=rows | self.hidden if self.hidden is not None else rows.clone())

    def read(self, rows: Rows | None = None) -> Values:
        """Return the values of some rows of the view (all by default): a slice of them where nothing is gathered."""
        chosen = self.rows if rows is None else at.compose(self.rows, rows)
        if self.kind.form == "relation":
            return induced(self.held.values.T, chosen, self.held.rows)  # type: ignore[union-attr]
        hidden = self.hidden if rows is None or self.hidden is None else self.hidden[rows]
        if isinstance(self.held.values, Ragged):
            return _hidden_entries(self.held.values.take(chosen), self.kind, hidden)
        values = self.held.values[chosen]
        if hidden is None or not bool(hidden.any()):
            return values
        values = values.clone() if isinstance(chosen, slice) else values
        values[hidden] = self.kind.blank((1, *values.shape[1:]))
        return values

    def batch(self, rows: Rows) -> dict[str, Tensor]:
        """Return some rows as entries of a batch, one row each.

        A ragged column is padded with zeros (with its unknown value, if it has one), its lengths beside it; a relation
        is a table of each row's neighbours among the batch, padded with −1.
        """
        name, values = self.kind.name, self.read(rows)
        if isinstance(values, Ragged):
            fill = 0 if self.kind.where == "never" else self.kind.unknown
            return {name: values.padded(fill), f"{name}_length": values.lengths}
        if self.kind.form == "relation":
            return {name: neighbours(values, at.length(rows))}
        return {name: values}

    def chunks(self, size: int = CHUNK) -> Iterator[Values]:
        """Yield the view's rows in order, some at a time; one empty part if there are no rows."""
        for start in range(0, max(len(self), 1), size):
            yield self.read(slice(start, min(start + size, len(self))))

    @cached_property
    def known(self) -> Bool[Tensor, "rows"]:
        """Return which rows have any known value."""
        if self.kind.where == "never":
            return torch.ones(len(self), dtype=torch.bool)
        return torch.cat([_known(self.kind, part) for part in self.chunks()])

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the content of the view's rows: equal columns have equal digests."""
        held = self.held
        digest = hashlib.sha256(f"{self.kind.name}{self.kind.dtype}{self.row_shape}{len(self)}".encode())
        if held.short or self.kind.form == "relation":
            digest.update(_bytes(self.read()))
            return digest.hexdigest()
        digest.update(_bytes(self.row_digests()))
        return digest.hexdigest()

    def row_digests(self) -> UInt8[Tensor, "rows 16"]:
        """Return the digest of each of the view's rows."""
        rows = self.held.digests[self.rows]
        if self.hidden is not None and bool(self.hidden.any()):
            rows = rows.clone()
            rows[self.hidden] = self._hidden_digests()
        return rows

    def _hidden_digests(self) -> UInt8[Tensor, "hidden 16"]:
        rows = self.hidden.nonzero().squeeze(1)  # type: ignore[union-attr]
        if isinstance(self.held.values, Ragged):
            values = self.read(rows)
            return _digests(values[row] for row in range(len(rows)))
        return _digests([self.kind.blank((1, *self.row_shape))[0]]).expand(len(rows), -1)


def _hidden_entries(values: Ragged, kind: Kind, hidden: Tensor | None) -> Ragged:
    if hidden is None or not bool(hidden.any()):
        return values
    entries = values.values.clone()
    entries[hidden.repeat_interleave(values.lengths)] = kind.blank((1, *entries.shape[1:]))
    return Ragged(entries, values.offsets)


def _known(kind: Kind, values: Values) -> Bool[Tensor, "rows"]:
    if isinstance(values, Tensor):
        return Column(kind, values).known_rows
    known = torch.cat([torch.zeros(1, dtype=torch.int64), Column(kind, values.values).known_rows.cumsum(0)])
    return known[values.offsets].diff() > 0


def _digests(rows: Iterator[Tensor] | Tensor | list[Tensor]) -> UInt8[Tensor, "rows 16"]:
    found = b"".join(hashlib.blake2b(_bytes(row), digest_size=DIGEST).digest() for row in rows)
    return torch.frombuffer(bytearray(found), dtype=torch.uint8).view(-1, DIGEST) if found else _none()


def _none() -> UInt8[Tensor, "0 16"]:
    return torch.zeros(0, DIGEST, dtype=torch.uint8)


def _bytes(values: Tensor | Ragged) -> memoryview | bytes:
    assert isinstance(values, Tensor)
    array: np.ndarray = values.contiguous().numpy()
    return array.reshape(-1).view(np.uint8).data if array.size else b""
