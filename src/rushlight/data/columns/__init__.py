"""The kinds of column a data set can have, and what stands in each of them for *not known*.

| column      | values                                                              | unknown            |
|-------------|---------------------------------------------------------------------|--------------------|
| `image`     | uint8, N×3×H×W, RGB                                                 | —                  |
| `class`     | int64, N                                                            | −1                 |
| `tags`      | int8, N×T: 1 present, 0 absent                                      | −1                 |
| `mask`      | uint8, N×H×W: class of each pixel                                   | 255                |
| `boxes`     | float32, N×M×6: x1, y1, x2, y2 (pixels), class, visibility          | visibility −1      |
| `keypoints` | float32, N×M×K×3: x, y (pixels), visibility (COCO's 0, 1, 2)        | visibility −1      |
| `caption`   | uint8, N×L: UTF-8, zero-padded                                      | empty              |
| `licence`, `creator` | uint8, N×L: UTF-8: the image's licence, and whom it names  | empty              |
| `domain`    | int64, N                                                            | −1                 |
| `study`, `magnification` | int64, N: of a patch of a slide (`domain`); see `data.balance`  | −1                 |
| `depth`     | float32, N×H×W                                                      | NaN                |
| `instance`  | int16, N×H×W: which object a pixel belongs to, 0 background         | −1                 |
| `label_map_values`, `label_map_ids` | float32 / int64, N×k×h×w: a sparse map of class scores | id −1   |
| `name`, `fold`, `size`, `to_original` | where a row comes from                              | see `PROVENANCE`   |

Volumes, points and graphs are further kinds of the same form: a dtype, a per-row shape, an unknown value.
A box slot that holds no box has visibility 0, so an image known to be empty differs from an unknown one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

Where = Literal["value", "last", "nan", "empty", "never"]


@dataclass(frozen=True)
class Kind:
    """One kind of column: its dtype, the axes of one row, and how an unknown entry is written.

    Attributes:
        where: how `unknown` is found: `value`, the entry itself; `last`, the last channel of the last axis (a
            visibility); `nan`; `empty`, a row of zeros; `never`, the column is always known.
        geometric: moves with the pixels when a view is taken.
        label: is told by a person (so it may be hidden, and a test set's is hidden from every stage).
    """

    name: str
    dtype: torch.dtype
    axes: tuple[str, ...]
    where: Where = "value"
    unknown: int | float = -1
    geometric: bool = False
    label: bool = True


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("image", torch.uint8, ("3", "H", "W"), "never", geometric=True, label=False),
        Kind("class", torch.int64, ()),
        Kind("tags", torch.int8, ("T",)),
        Kind("mask", torch.uint8, ("H", "W"), unknown=255, geometric=True),
        Kind("boxes", torch.float32, ("M", "6"), "last", geometric=True),
        Kind("keypoints", torch.float32, ("M", "K", "3"), "last", geometric=True),
        Kind("caption", torch.uint8, ("L",), "empty", unknown=0),
        Kind("licence", torch.uint8, ("L",), "empty", unknown=0, label=False),
        Kind("creator", torch.uint8, ("L",), "empty", unknown=0, label=False),
        Kind("domain", torch.int64, ()),
        Kind("study", torch.int64, (), label=False),
        Kind("magnification", torch.int64, (), label=False),
        Kind("depth", torch.float32, ("H", "W"), "nan", unknown=float("nan"), geometric=True),
        Kind("instance", torch.int16, ("H", "W"), geometric=True),
        Kind("label_map_values", torch.float32, ("k", "h", "w"), "never", label=False),
        Kind("label_map_ids", torch.int64, ("k", "h", "w"), label=False),
        Kind("name", torch.uint8, ("L",), "never", label=False),
        Kind("fold", torch.int8, (), label=False),
        Kind("size", torch.int32, ("2",), "never", label=False),
        Kind("to_original", torch.float32, ("2", "3"), "never", label=False),
    )
}

PROVENANCE = ("name", "fold", "size", "to_original")
"""Columns about a row's origin: its file name; train 0, test 1, neither −1; original (height, width) in pixels; and
the affine matrix from packed pixel coordinates (x, y, 1) to those of the user's own image."""

TRAIN, TEST = 0, 1


@dataclass(frozen=True)
class Column:
    """A column's values together with its kind."""

    kind: Kind
    values: Tensor

    @property
    def known(self) -> Bool[Tensor, "..."]:
        """Where it is known, entry by entry (a box or a keypoint is one entry, a caption too)."""
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
        """The rows of which anything is known."""
        return self.known.flatten(1).any(1) if self.known.ndim > 1 else self.known

    def hide(self, rows: Bool[Tensor, "rows"]) -> Tensor:
        """A copy of the values with the given rows unknown."""
        if self.kind.where == "never":
            raise ValueError(f"the column '{self.kind.name}' is always known: it cannot be hidden")
        values = self.values.clone()
        if self.kind.where == "last":
            values[rows] = 0
            values[..., -1][rows] = self.kind.unknown
        else:
            values[rows] = self.kind.unknown
        return values


def unknown(name: str, *shape: int) -> Tensor:
    """A column of the kind `name` in which nothing is known; `shape` is (rows, …)."""
    kind = KINDS[name]
    if kind.where == "last":
        values = torch.zeros(shape, dtype=kind.dtype)
        values[..., -1] = kind.unknown
        return values
    return torch.full(shape, kind.unknown, dtype=kind.dtype)


def encode_text(texts: list[str]) -> Tensor:
    """Texts as a column of zero-padded UTF-8 bytes."""
    rows = [
        torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8)
        for text in texts
    ]
    if not rows:
        return torch.zeros(0, 1, dtype=torch.uint8)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded if padded.shape[1] else torch.zeros(len(rows), 1, dtype=torch.uint8)


def decode_text(values: Tensor) -> list[str]:
    """The texts of a column of zero-padded UTF-8 bytes."""
    return [bytes(row).rstrip(b"\0").decode() for row in values.cpu().numpy()]
