"""Data sets from memory: arrays, and torch Datasets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data.columns import KINDS, encode_text, unknown
from rushlight.data.dataset import Dataset, Info
from rushlight.data.pack.decode import to_uint8
from rushlight.data.pack.write import pack
from rushlight.data.sources.join import natural
from rushlight.data.sources.listing import Listing


def from_arrays(
    images: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] = (),
    names: Sequence[str] | None = None,
    fold: Any = None,
    source: str = "memory",
    **columns: Any,
) -> Dataset:
    """Build a data set in memory.

    Args:
        images: N×H×W, N×H×W×3, N×3×H×W or with one channel; uint8, 16-bit integers, or floats in [0, 1].
        labels: class ids (−1 unknown), class names (blank or None unknown), or N×T tags of 1, 0, −1.
        names: a name for each image; by default its number.
        fold: 0 training, 1 test, −1 neither.
        columns: further columns by kind (`mask`, `boxes`, `domain`, …), boxes and keypoints in image pixels.

    Raises:
        UserError: images of another form, or a column of another length.
    """
    pixels = _pixels(images)
    rows = len(pixels)
    values: dict[str, Tensor] = {"image": pixels}
    meaning: dict[str, Any] = {}
    if labels is not None:
        _add_labels(values, meaning, labels, class_names, rows)
    for name, column in columns.items():
        if name not in KINDS:
            raise UserError(f"'{name}' is no kind of column; known are {', '.join(KINDS)}")
        values[name] = torch.as_tensor(np.asarray(column)).to(KINDS[name].dtype)
    values["fold"] = unknown("fold", rows) if fold is None else torch.as_tensor(np.asarray(fold)).to(torch.int8)
    values["name"] = encode_text([str(name) for name in (names if names is not None else range(rows))])
    values["size"] = torch.tensor(pixels.shape[-2:], dtype=torch.int32).repeat(rows, 1)
    values["to_original"] = torch.eye(2, 3).repeat(rows, 1, 1)
    for name, column in values.items():
        if len(column) != rows:
            raise UserError(f"there are {rows} images, but {len(column)} values in '{name}'")
    return Dataset(values, Info(source=source, **meaning))


def _pixels(images: Any) -> Tensor:
    array = images.numpy(force=True) if isinstance(images, Tensor) else np.asarray(images)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or array.dtype.kind not in "uifb" or not len(array):
        raise UserError(
            f"images of shape {tuple(array.shape)} and type {array.dtype} cannot be used: give N×H×W, "
            "N×H×W×3 or N×3×H×W, uint8 or floats in [0, 1]"
        )
    array = np.ascontiguousarray(to_uint8(array))
    return torch.from_numpy(array).expand(-1, 3, -1, -1).contiguous()


def _add_labels(values: dict, meaning: dict, labels: Any, class_names: Sequence[str], rows: int) -> None:
    array = labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim == 2:
        values["tags"] = torch.from_numpy(array.astype(np.int8))
        meaning["tag_names"] = tuple(class_names) or tuple(str(i) for i in range(array.shape[1]))
        return
    if array.dtype.kind in "iub":
        ids = array.astype(np.int64)
        names = tuple(class_names) or tuple(str(i) for i in range(int(ids.max(initial=-1)) + 1))
    else:
        texts = ["" if label is None or label != label else str(label) for label in array.tolist()]
        names = tuple(class_names) or tuple(sorted(set(texts) - {""}, key=natural))
        unlisted = sorted(set(texts) - {"", *names})
        if unlisted:
            raise UserError(f"the label '{unlisted[0]}' is not in class_names")
        ids = np.array([names.index(text) if text else -1 for text in texts], dtype=np.int64)
    if ids.min(initial=0) < -1 or ids.max(initial=-1) >= len(names):
        row = int(((ids < -1) | (ids >= len(names))).argmax())
        raise UserError(f"label {ids[row]} of image {row} is none of {len(names)} classes: use 0 … and −1 for unknown")
    values["class"], meaning["class_names"] = torch.from_numpy(ids), names


def from_torch(dataset: Any, *, class_names: Sequence[str] = (), source: str = "memory", **settings: Any) -> Dataset:
    """Build a data set from any object with a length whose items are an image or (image, label).

    Images may be Pillow images, arrays H×W or H×W×3, or tensors 3×H×W, of any sizes. Labels may be numbers,
    or None or −1 where unknown. Settings are those of `rushlight.data.pack.write.pack`; nothing is cached unless
    they say where.
    """
    items = [dataset[row] for row in range(len(dataset))]
    if not items:
        raise UserError("the data set has no images")
    pairs = [item if isinstance(item, (tuple, list)) else (item, None) for item in items]
    images = [_image_of(row, pair[0]) for row, pair in enumerate(pairs)]
    width = len(str(len(images)))
    listing = Listing(source, [f"{row:0{width}}" for row in range(len(images))], [partial(_same, i) for i in images])
    labels = [pair[1] for pair in pairs]
    if any(label is not None for label in labels):
        values: dict[str, Tensor] = {}
        plain = [_plain(label) for label in labels]
        names = class_names or getattr(dataset, "classes", ())
        _add_labels(values, listing.meaning, _filled(plain), names, len(plain))
        listing.labels |= {name: column.numpy() for name, column in values.items()}
    settings["cache"] = False
    return pack(listing, **settings)


def _same(image: Any) -> Any:
    return image


def _plain(label: Any) -> Any:
    return label.tolist() if isinstance(label, (Tensor, np.ndarray)) else label


def _filled(labels: list) -> list:
    if any(isinstance(label, str) for label in labels):
        return labels
    return [-1 if label is None else label for label in labels]


def _image_of(row: int, image: Any) -> Any:
    if isinstance(image, Image.Image):
        return image
    array = image.numpy(force=True) if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uifb":
        raise UserError(f"item {row} of the data set is no image, but {type(image).__name__} of shape {array.shape}")
    return np.ascontiguousarray(array)


def from_memory(source: Any, labels: Any, settings: dict[str, Any]) -> Dataset:
    """Return what `load` makes of an object: arrays, a pair (images, labels), or a torch Dataset.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(source, tuple) and len(source) == 2:
        source, labels = source
    if isinstance(source, (np.ndarray, Tensor)):
        return resized(from_arrays(source, labels), settings)
    if hasattr(source, "features") and hasattr(source, "cast_column"):
        from rushlight.data.sources.huggingface import listing_of

        return pack(listing_of({"": source}, "memory"), **settings)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return from_torch(source, **settings)
    raise UserError(
        f"a {type(source).__name__} cannot be loaded: give a folder, an array, (images, labels) or a torch Dataset"
    )


KEPT = ("class", "tags", "domain", "study", "magnification", "group", "fold", "name")
"""Columns that do not change with an image's size."""


def resized(data: Dataset, settings: dict[str, Any]) -> Dataset:
    """Return a data set from memory at the size of the settings, if they have one; its columns are not geometric."""
    if settings.get("size") is None:
        return data
    packed = from_torch(_Rows(data["image"].permute(0, 2, 3, 1).numpy()), **settings)
    kept = {name: data[name] for name in KEPT if name in data}
    names = {"class_names": data.info.class_names, "tag_names": data.info.tag_names, "source": data.info.source}
    return packed.with_columns(**kept).with_info(**names, keep=data.info.keep, licence=data.info.licence)


class _Rows:
    def __init__(self, images: np.ndarray):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.images[row]
