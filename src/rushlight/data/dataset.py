"""A data set: columns of equal length, some of whose values are not known.

A data set is a view: the values lie once, in memory or in mapped files, and it knows which of their rows it shows and
what is hidden of them. Folds, selections and hidden labels share the values. What the columns mean (names of classes,
where the images came from, what was left out) travels with them as `Info`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from tensordict import TensorDict
from torch import Tensor

from rushlight.data import folder as files
from rushlight.data import rows as at
from rushlight.data.columns import INPUTS, KINDS, TEST, TRAIN, Column, Ragged, decode_text
from rushlight.data.rows import Chosen, Rows
from rushlight.data.stored import Stored, Values


@dataclass(frozen=True)
class Quarantined:
    """A file that was left out, and why, in one sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class Info:
    """What the columns mean.

    Attributes:
        source: what the user named: a path, `fashion`, a Hub id.
        class_names: of `class`, and of `mask` and `boxes` where these have none of their own.
        tag_names, mask_names, box_names, keypoint_names, domain_names, group_names: likewise.
        keypoint_skeleton: joints, by number, between which pictures draw lines.
        keypoint_pairs: left and right joints, by number, which change places in a mirrored image; None finds them by
            name (`left_eye`, `right_eye`); empty: images are never mirrored.
        keep: known labels a class that a comparison keeps by default, where a fully labelled set stands for one
            with few labels; None keeps what is known.
        quarantined: files left out.
        licence: of the images, where it is known.
        settings: how the images were packed (size, fit, …), and as `given` the files and folders that were named.
    """

    source: str = "memory"
    class_names: tuple[str, ...] = ()
    tag_names: tuple[str, ...] = ()
    mask_names: tuple[str, ...] = ()
    box_names: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    keypoint_skeleton: tuple[tuple[int, int], ...] = ()
    keypoint_pairs: tuple[tuple[int, int], ...] | None = None
    domain_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    keep: int | None = None
    quarantined: tuple[Quarantined, ...] = ()
    licence: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def meaning(self) -> dict[str, Any]:
        """Return what the columns' values mean: the names of every kind that has any, and which joints are pairs."""
        fields = [each.name for each in dataclasses.fields(self) if each.name.endswith("_names")]
        names = {name: getattr(self, name) for name in fields if getattr(self, name)}
        return names if self.keypoint_pairs is None else {**names, "keypoint_pairs": self.keypoint_pairs}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Info:
        raw = json.loads(text)
        raw["quarantined"] = tuple(Quarantined(**entry) for entry in raw["quarantined"])
        kept: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        for key in ("keypoint_skeleton", "keypoint_pairs"):
            kept |= {key: tuple(map(tuple, kept[key]))} if kept.get(key) else {}
        return cls(**kept)


class Dataset:
    """Columns of equal length, with their meaning.

    `data["image"]` gives all rows of a column: a slice of what is stored where the view's rows follow each other,
    else a copy. What may be large is read some rows at a time: `batch`, `chunks`.

    Args:
        columns: name → values, each of a kind in `rushlight.data.columns.KINDS`, all with the same number of rows.
        info: what they mean.

    Attributes:
        loaded: the source and the settings that `load` was called with, so that it gives the same again; None for data
            that were made or changed in Python.

    Raises:
        ValueError: a column of an unknown kind, dtype or rank, or of another length; no input column.
    """

    def __init__(self, columns: Mapping[str, Any] | TensorDict, info: Info | None = None):
        values: dict[str, Any] = dict(columns.items())
        first = next((name for name in INPUTS if name in values and KINDS[name].form != "relation"), None)
        if first is None:
            raise ValueError(f"a data set needs an input: one of the columns {', '.join(map(repr, INPUTS))}")
        self._hold({name: _stored(name, column, len(values[first]), first) for name, column in values.items()}, info)

    def _hold(self, columns: dict[str, Stored], info: Info | None) -> None:
        self.loaded: Mapping[str, Any] | None = None
        self._columns = columns
        self._input = next(name for name in INPUTS if name in columns)
        self.info = info or Info()

    def _view(self, columns: dict[str, Stored], info: Info | None = None) -> Dataset:
        """Return a data set of stored columns, unchecked."""
        view = Dataset.__new__(Dataset)
        view._hold(columns, info or self.info)
        return view

    def __len__(self) -> int:
        return len(self._columns[self._input])

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Any:
        return self._stored(name).read()

    def __deepcopy__(self, memo: dict[int, Any]) -> Dataset:
        return self  # nothing changes a data set

    def __repr__(self) -> str:
        known = ", ".join(f"{name} {int(self.known(name).sum()):,} known" for name in self.label_names)
        size = f" {self.height}×{self.width}" if "image" in self else ""
        return f"Dataset({self.info.source}: {len(self):,} {self._input}s{size}; {known or 'no labels'})"

    def _stored(self, name: str) -> Stored:
        if name not in self._columns:
            raise KeyError(f"this data set has no column '{name}', only {', '.join(sorted(self._columns))}")
        return self._columns[name]

    @property
    def columns(self) -> Columns:
        """Return the columns by name; each is read when it is accessed."""
        return Columns(self)

    @property
    def stored(self) -> dict[str, Stored]:
        """Return the stored columns, without reading any."""
        return self._columns

    @property
    def input(self) -> str:
        """Return the name of the first input column, which an encoder reads."""
        return self._input

    @property
    def height(self) -> int:
        return self.row_shape("image")[-2]

    @property
    def width(self) -> int:
        return self.row_shape("image")[-1]

    @property
    def label_names(self) -> list[str]:
        """Return the names of the columns that hold labels given by people, which may be unknown."""
        return [name for name in KINDS if name in self and KINDS[name].label]

    @property
    def names(self) -> list[str]:
        """Return each row's file name (or its number, for data in memory)."""
        return decode_text(self["name"]) if "name" in self else [str(row) for row in range(len(self))]

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a column (of one entry, where it is ragged), without reading any."""
        return self._stored(name).row_shape

    def nbytes(self, names: Iterable[str] | None = None) -> int:
        """Return how many bytes some columns (all by default) would take if they were read."""
        return sum(self._stored(name).nbytes for name in names or self._columns)

    def column(self, name: str) -> Column:
        return Column(KINDS[name], self[name])

    def known(self, name: str) -> Bool[Tensor, "rows"]:
        """Return which rows have any known value in this column; none if there is no such column."""
        return self._columns[name].known if name in self else torch.zeros(len(self), dtype=torch.bool)

    def batch(self, rows: Chosen, names: list[str] | tuple[str, ...] | None = None) -> TensorDict:
        """Return some rows of some columns (all by default), gathered; nothing else is read.

        A ragged column is padded, with its lengths beside it as `NAME_length`; a relation becomes a table of each
        row's neighbours among these rows, padded with −1.
        """
        chosen = at.normal(rows, len(self))
        found: dict[str, Tensor] = {}
        for name in self._columns if names is None else names:
            found |= self._stored(name).batch(chosen)
        return TensorDict(found, batch_size=[at.length(chosen)])

    def read(self, name: str, rows: Chosen | int) -> Any:
        """Return some rows of one column, or a single one by its number."""
        if isinstance(rows, int):
            return self._stored(name).read(at.normal([rows], len(self)))[0]
        return self._stored(name).read(at.normal(rows, len(self)))

    def reader(self, name: str) -> Reader:
        """Return a column whose rows are read when they are indexed, as in a tensor: `reader[rows]`."""
        return Reader(self._stored(name))

    def chunks(self, name: str, size: int = 512) -> Iterator[Any]:
        """Yield the rows of a column in order, `size` at a time (one empty part if there are no rows); none is kept."""
        return self._stored(name).chunks(size)

    def select(self, rows: Chosen) -> Dataset:
        """Return the given rows, in the given order, as a view: no values are copied."""
        chosen = at.normal(rows, len(self))
        if chosen == slice(0, len(self)) and isinstance(chosen, slice):
            return self
        composed: dict[int, Rows] = {}
        for stored in self._columns.values():
            if id(stored.rows) not in composed:
                composed[id(stored.rows)] = at.compose(stored.rows, chosen)
        return self._view({n: s.select(chosen, composed[id(s.rows)]) for n, s in self._columns.items()})

    def with_columns(self, **columns: Any) -> Dataset:
        """Return the same rows with these columns added or replaced (`class` is written `**{"class": …}`)."""
        added = {name: _stored(name, values, len(self), self._input) for name, values in columns.items()}
        return self._view({**self._columns, **added})

    def without(self, *names: str) -> Dataset:
        """Return the same rows without these columns.

        Raises:
            ValueError: no input would be left.
        """
        left = {name: stored for name, stored in self._columns.items() if name not in names}
        if not any(name in INPUTS for name in left):
            raise ValueError(f"a data set needs an input: '{self._input}' cannot be left out")
        return self._view(left)

    def loaded_by(self, settings: Mapping[str, Any]) -> Dataset:
        """Return the same data set, with the arguments that `load` was called with."""
        view = self._view(self._columns)
        view.loaded = dict(settings)
        return view

    def with_info(self, **changes: Any) -> Dataset:
        return self._view(self._columns, dataclasses.replace(self.info, **changes))

    def hide(self, rows: Bool[Tensor, "rows"] | None = None, names: list[str] | None = None) -> Dataset:
        """Return the same rows with their labels unknown: the given rows (all by default), the given columns (all
        labels). No values are copied: one bit per row marks what is hidden."""
        rows = torch.ones(len(self), dtype=torch.bool) if rows is None else rows
        hidden = {name: self._stored(name).hide(rows) for name in (self.label_names if names is None else names)}
        return self._view({**self._columns, **hidden})

    def fold(self, which: int) -> Dataset:
        """Return the rows of one fold: `TRAIN` or `TEST`. Rows without a fold count as training rows."""
        if "fold" not in self:
            return self if which == TRAIN else self.select(slice(0, 0))
        return self.select(self["fold"] == TEST if which == TEST else self["fold"] != TEST)

    def changed(self, before: Dataset) -> list[str]:
        """Return the columns that `before` lacks or holds otherwise, without comparing any values: what a stage that
        hands on the same rows has written."""
        return [name for name, stored in self._columns.items() if not stored.shows_as(before._columns.get(name))]

    @cached_property
    def content_hash(self) -> str:
        """Return the SHA-256 of the columns' values and what these mean (`Info.meaning`): equal for equal content, in
        a view, a copy or a saved data set. Long rows are hashed once, where they are stored; a view reads only
        their hashes."""
        digest = hashlib.sha256()
        for name, stored in sorted(self._columns.items()):
            digest.update(f"{name} {stored.digest}".encode())
        digest.update(json.dumps(self.info.meaning).encode())
        return digest.hexdigest()

    def save(self, folder: str | os.PathLike[str], *, reference: bool = False) -> None:
        """Write the rows into a folder that does not exist yet, whole or not at all.

        Args:
            reference: values that lie in a saved or cached data set already are not written again: the folder says
                where they lie, and which rows of them these are. It is good as long as that data set is there.

        Raises:
            FileExistsError: the folder exists.
        """
        path = Path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, self._columns, self.info.to_json(), reference=reference)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Dataset:
        """Return a saved data set, mapped into memory: nothing is read before it is used.

        Raises:
            UserError: it refers to a data set that is gone or has changed.
        """
        columns, info = files.read(Path(folder))
        opened = cls.__new__(cls)
        opened._hold(columns, Info.from_json(info))
        return opened


class Columns(Mapping[str, Values]):
    """A data set's columns by name, each read on access."""

    def __init__(self, data: Dataset):
        self._data = data

    def __getitem__(self, name: str) -> Values:
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data._columns)

    def __len__(self) -> int:
        return len(self._data._columns)


class Reader:
    """A column that is indexed and split like a tensor, and reads the indexed rows alone."""

    def __init__(self, stored: Stored):
        self._stored = stored
        self.shape = (len(stored), *stored.row_shape)

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, rows: Chosen) -> Any:
        return self._stored.read(at.normal(rows, len(self)))

    def split(self, size: int) -> Iterator[Any]:
        """Yield the rows in order, `size` at a time (one empty part if there are no rows); no part is kept."""
        return self._stored.chunks(size)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the content: equal for equal columns."""
        return self._stored.digest


def _stored(name: str, values: Any, rows: int, first: str) -> Stored:
    """Return a column in memory, checked."""
    kind = KINDS.get(name)
    if kind is None:
        raise ValueError(f"'{name}' is no kind of column; known are {', '.join(KINDS)}")
    if isinstance(values, Ragged) != (kind.form == "ragged"):
        raise ValueError(f"the column '{name}' must be {kind.form}, not {type(values).__name__}")
    entries = values.values if isinstance(values, Ragged) else values
    if entries.dtype != kind.dtype:
        raise ValueError(f"the column '{name}' must be {kind.dtype}, not {entries.dtype}")
    if entries.ndim != 1 + len(kind.axes):
        axes = ", ".join(("rows", *kind.axes))
        raise ValueError(f"the column '{name}' must have the axes ({axes}), not {entries.ndim} axes")
    if kind.form == "relation":
        if entries.numel() and not (int(entries.min()) >= 0 and int(entries.max()) < rows):
            raise ValueError(f"the column '{name}' names rows outside of 0 … {rows - 1}")
    elif len(values) != rows:
        raise ValueError(f"the column '{name}' has {len(values)} rows, '{first}' has {rows}")
    return Stored.of(kind, values, rows)
