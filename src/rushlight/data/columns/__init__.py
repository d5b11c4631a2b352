"""The kinds of column a data set can have, and what stands in each of them for *not known*.

| column      | values                                                              | unknown            |
|-------------|---------------------------------------------------------------------|--------------------|
| `image`     | uint8, N×3×H×W, RGB                                                 | —                  |
| `volume`    | float32, N×C×D×H×W                                                  | —                  |
| `features`  | float32, N×D                                                        | —                  |
| `points`    | float32, ragged: any number of points a row, each of C values       | —                  |
| `edges`     | int64, 2×E: pairs of rows                                           | —                  |
| `class`     | int64, N                                                            | −1                 |
| `tags`      | int8, N×T: 1 present, 0 absent                                      | −1                 |
| `mask`      | uint8, N×H×W: class of each pixel                                   | 255                |
| `boxes`     | float32, N×M×6: x1, y1, x2, y2 (pixels), class, visibility          | visibility −1      |
| `keypoints` | float32, N×M×K×3: x, y (pixels), visibility (COCO's 0, 1, 2)        | visibility −1      |
| `point_class` | int64, ragged: a class a point                                    | −1                 |
| `caption`   | uint8, N×L: UTF-8, zero-padded                                      | empty              |
| `licence`, `creator` | uint8, N×L: UTF-8: the image's licence, and whom it names  | empty              |
| `domain`    | int64, N                                                            | −1                 |
| `group`     | int64, N: rows that stay together in every split                    | −1 (by itself)     |
| `study`, `magnification` | int64, N: of a patch of a slide (`domain`); see `data.edit.balance` | −1                 |
| `depth`     | float32, N×H×W                                                      | NaN                |
| `instance`  | int16, N×H×W: which object a pixel belongs to, 0 background         | −1                 |
| `label_map_values`, `label_map_ids` | float32 / int64, N×k×h×w: a sparse map of class scores | id −1   |
| `name`, `fold`, `size`, `to_original` | where a row comes from                              | see `provenance`   |

A kind is one file. Installed packages add their own by the entry point group `rushlight.columns`, each a `Kind` or
several.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from itertools import chain

from torch import Tensor

from rushlight.data.columns import (
    boxes,
    class_,
    depth,
    domain,
    features,
    graph,
    group,
    image,
    instance,
    keypoints,
    label_map,
    mask,
    points,
    provenance,
    tags,
    text,
    volume,
)
from rushlight.data.columns.base import Column, Form, Kind, Ragged
from rushlight.data.columns.provenance import PROVENANCE, TEST, TRAIN
from rushlight.data.columns.text import decode_text, encode_text

__all__ = [
    "INPUTS", "KINDS", "PROVENANCE", "TEST", "TRAIN", "Column", "Form", "Kind", "Ragged", "decode_text", "encode_text",
    "installed", "unknown",
]  # fmt: skip

GROUP = "rushlight.columns"
OWN = (image, volume, features, points, graph, class_, tags, mask, boxes, keypoints, text, domain, group, depth,
       instance, label_map, provenance)  # fmt: skip


def installed() -> list[Kind]:
    """Return the kinds that installed packages add."""
    loaded = [entry.load() for entry in entry_points(group=GROUP)]
    return list(chain.from_iterable([one] if isinstance(one, Kind) else one for one in loaded))


KINDS: dict[str, Kind] = {kind.name: kind for kind in chain(*(module.KINDS for module in OWN), installed())}
INPUTS = tuple(name for name, kind in KINDS.items() if kind.input)
"""The columns of which a data set needs one."""


def unknown(name: str, *shape: int) -> Tensor:
    """Return a column of the kind `name` in which nothing is known; `shape` is (rows, …)."""
    return KINDS[name].blank(shape)
