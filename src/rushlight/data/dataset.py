"""A data set: columns of equal length, some of whose values are not known.

The columns live in one TensorDict, in memory or memory-mapped; what they mean (names of classes, where the images
came from, what was left out) travels with them as `Info`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from tensordict import TensorDict
from torch import Tensor

from rushlight.data.columns import KINDS, TEST, TRAIN, Column, decode_text


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
        tag_names, mask_names, box_names, keypoint_names, domain_names: likewise.
        keep: known labels a class that a comparison keeps by default, where a fully labelled set stands for one
            with few labels; None keeps what is known.
        quarantined: files left out.
        licence: of the images, where it is known.
        settings: how the images were packed (size, fit, …).
    """

    source: str = "memory"
    class_names: tuple[str, ...] = ()
    tag_names: tuple[str, ...] = ()
    mask_names: tuple[str, ...] = ()
    box_names: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    domain_names: tuple[str, ...] = ()
    keep: int | None = None
    quarantined: tuple[Quarantined, ...] = ()
    licence: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Info:
        raw = json.loads(text)
        raw["quarantined"] = tuple(Quarantined(**entry) for entry in raw["quarantined"])
        kept: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return cls(**kept)


class Dataset:
    """Columns of equal length, with their meaning.

    Args:
        columns: name → values, each of a kind in `rushlight.data.columns.KINDS`, all with the same number of rows.
        info: what they mean.

    Raises:
        ValueError: a column of an unknown kind, dtype or rank, or of another length.
    """

    def __init__(self, columns: dict[str, Tensor] | TensorDict, info: Info | None = None):
        values: dict[str, Any] = dict(columns.items())
        if "image" not in values:
            raise ValueError("a data set needs the column 'image'")
        rows = len(values["image"])
        for name, column in values.items():
            _check(name, column, rows)
        self.columns = TensorDict(values, batch_size=[rows])
        self.info = info or Info()

    def __len__(self) -> int:
        return self.columns.batch_size[0]

    def __contains__(self, name: str) -> bool:
        return name in self.columns.keys()  # noqa: SIM118  (a TensorDict contains values, not names)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise KeyError(f"this data set has no column '{name}', only {', '.join(sorted(self._columns()))}")
        return self.columns[name]

    def __repr__(self) -> str:
        known = ", ".join(f"{name} {int(self.known(name).sum()):,} known" for name in self.label_names)
        return f"Dataset({self.info.source}: {len(self):,} images {self.height}×{self.width}; {known or 'no labels'})"

    def _columns(self) -> dict[str, Tensor]:
        return {str(name): values for name, values in self.columns.items() if isinstance(values, Tensor)}

    @property
    def height(self) -> int:
        return self["image"].shape[-2]

    @property
    def width(self) -> int:
        return self["image"].shape[-1]

    @property
    def label_names(self) -> list[str]:
        """The columns that a person tells, and that may be unknown."""
        return [name for name in KINDS if name in self and KINDS[name].label]

    @property
    def names(self) -> list[str]:
        """Each row's file name (or its number, for data from memory)."""
        return decode_text(self["name"]) if "name" in self else [str(row) for row in range(len(self))]

    def column(self, name: str) -> Column:
        return Column(KINDS[name], self[name])

    def known(self, name: str) -> Bool[Tensor, "rows"]:
        """The rows of which anything is known in this column; none if there is no such column."""
        return self.column(name).known_rows if name in self else torch.zeros(len(self), dtype=torch.bool)

    def select(self, rows: Int[Tensor, "n"] | Bool[Tensor, "rows"]) -> Dataset:
        """The given rows, as a data set of their own (in memory)."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero().squeeze(1)
        return Dataset({name: values[rows] for name, values in self._columns().items()}, self.info)

    def with_columns(self, **columns: Tensor) -> Dataset:
        """The same rows with these columns added or replaced (`class` is written `**{"class": …}`)."""
        return Dataset({**self._columns(), **columns}, self.info)

    def without(self, *names: str) -> Dataset:
        return Dataset({name: v for name, v in self._columns().items() if name not in names}, self.info)

    def with_info(self, **changes: Any) -> Dataset:
        return Dataset(self.columns, dataclasses.replace(self.info, **changes))

    def hide(self, rows: Bool[Tensor, "rows"] | None = None, names: list[str] | None = None) -> Dataset:
        """The same rows with their labels unknown: the given rows (all by default), the given columns (all labels)."""
        rows = torch.ones(len(self), dtype=torch.bool) if rows is None else rows
        return self.with_columns(**{name: self.column(name).hide(rows) for name in names or self.label_names})

    def fold(self, which: int) -> Dataset:
        """The rows of one fold: `TRAIN` or `TEST`. Rows without a fold count as training rows."""
        if "fold" not in self:
            return self if which == TRAIN else self.select(torch.zeros(len(self), dtype=torch.bool))
        return self.select(self["fold"] == TEST if which == TEST else self["fold"] != TEST)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the columns' bytes and the names of their classes: two data sets with equal hashes are equal."""
        digest = hashlib.sha256()
        for name, values in sorted(self._columns().items()):
            values = values.contiguous()
            digest.update(f"{name}{values.dtype}{tuple(values.shape)}".encode())
            if values.numel():
                digest.update(values.view(-1).view(torch.uint8).numpy().data)
        names = [self.info.class_names, self.info.tag_names, self.info.mask_names, self.info.box_names]
        digest.update(json.dumps(names).encode())
        return digest.hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write memory-mapped columns and `info.json` into a folder that does not exist yet."""
        folder = Path(folder)
        folder.mkdir(parents=True)
        self.columns.memmap(str(folder / "columns"), copy_existing=True)
        (folder / "info.json").write_text(self.info.to_json())

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Dataset:
        """A saved data set, memory-mapped: nothing is read before it is used."""
        folder = Path(folder)
        columns = TensorDict.load_memmap(str(folder / "columns"))
        return cls(columns, Info.from_json((folder / "info.json").read_text()))


def _check(name: str, values: Tensor, rows: int) -> None:
    kind = KINDS.get(name)
    if kind is None:
        raise ValueError(f"'{name}' is no kind of column; known are {', '.join(KINDS)}")
    if values.dtype != kind.dtype:
        raise ValueError(f"the column '{name}' must be {kind.dtype}, not {values.dtype}")
    if values.ndim != 1 + len(kind.axes):
        axes = ", ".join(("rows", *kind.axes))
        raise ValueError(f"the column '{name}' must have the axes ({axes}), not {values.ndim} axes")
    if len(values) != rows:
        raise ValueError(f"the column '{name}' has {len(values)} rows, 'image' has {rows}")
