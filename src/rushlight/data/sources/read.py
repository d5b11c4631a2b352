"""Images and the labels that exist, from wherever they are: `load`.

| source | what it gives |
|---|---|
| a folder with a sub-folder a class | `class`; unknown in `unlabelled`, in `_` or outside any |
| … with `train` and `test` (or `val`) on top | `fold` too |
| a folder and a CSV or Parquet file | `class` or `tags`, `fold`, … (`rushlight.data.sources.table`) |
| `photo.png` + `photo_mask.png`, or `images/` + `masks/` | `mask` |
| a folder and a COCO JSON file | `boxes`, `mask` and `instance`, `keypoints` (`rushlight.data.sources.coco`) |
| `hf:NAME`, a folder that `datasets` saved | what its features are (`rushlight.data.sources.huggingface`) |
| `fashion`, `cifar10`, … | embedded photos; torchvision's data sets |
| an array, a torch Dataset, (images, labels) | `from_arrays`, `from_torch` |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rushlight.core.errors import UserError, nearest
from rushlight.data.columns import KINDS
from rushlight.data.dataset import Dataset
from rushlight.data.pack.cache import Cache
from rushlight.data.pack.plan import Size
from rushlight.data.pack.write import pack
from rushlight.data.sources import arrays, folder, huggingface, torchvision
from rushlight.data.sources.arrays import from_arrays, from_torch
from rushlight.data.sources.join import NO_GROUP
from rushlight.data.sources.listing import resolve

__all__ = ["Cache", "Size", "from_arrays", "from_torch", "load"]


def load(
    source: Any,
    *,
    labels: Any = None,
    size: Size = None,
    cache: Cache = None,
    masks: str | os.PathLike[str] | None = None,
    depth: str | os.PathLike[str] | None = None,
    group: str | None = None,
    workers: int | None = None,
    fit: str = "squash",
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read images and whatever labels exist, decode them once, and return them as a data set.

    Args:
        source: see the table of this module.
        labels: a CSV, Parquet or COCO JSON file; for arrays, the labels themselves. By default the one beside
            the images, if there is one.
        size: side of the square canvas in pixels, or (height, width); by default chosen from the images
            (`rushlight.data.pack.write`).
        cache: folder for packed data; by default the user's cache folder; False keeps it in memory.
        masks: the folder with a PNG for each image.
        depth: the folder with a depth map for each image: a PNG of 16 bits (0 is unknown), NPY or EXR, of any size.
        group: the column (of the table, or of the data) whose rows stay together in every split: a patient, a slide, a
            video. By default one that is called so; `none` takes none.
        workers: threads that decode; by default one a core.
        fit: `squash` stretches an image over the canvas, `crop` keeps its middle, `pad` leaves black borders.
        progress: called with images done and images in all.

    Raises:
        UserError: something cannot be used; the message names the file, the row or the argument, and the
        remedy.
            Single images that cannot be read are no error: `info.quarantined` names them.
    """
    settings: dict[str, Any] = {
        "size": size,
        "cache": cache,
        "workers": workers,
        "fit": fit,
        "progress": progress,
    }
    data = _whole(source, labels, settings)
    if isinstance(source, Dataset) and group is None:
        return source
    if data is not None:
        if depth is not None:
            raise UserError(f"--depth {depth}: depth maps are read beside a folder of images, and "
                            f"'{data.info.source}' brings its own columns")  # fmt: skip
        data = _grouped(data, group)
    else:
        data = pack(folder.listing(resolve(source, "folder"), labels, masks, depth, group), **settings)
    return _noted(data, source, labels=labels, masks=masks, depth=depth, group=group, size=size, fit=fit)


def _noted(data: Dataset, source: Any, **asked: Any) -> Dataset:
    """Return the data with a note of the request, where a source and settings in words give the same data again.

    Files are noted with the size that was chosen for them: another job may choose another.
    """
    words = [value for value in (source, asked["labels"]) if value is not None]
    if not all(isinstance(value, str | os.PathLike) for value in words):
        return data
    if asked["size"] is None and Path(source).expanduser().exists() and "image" in data:
        asked["size"] = (data.height, data.width)
    told = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in asked.items()}
    return data.loaded_by({"source": os.fspath(source), **told})


def _whole(source: Any, labels: Any, settings: dict[str, Any]) -> Dataset | None:
    """Return a data set whose source brings all labels itself; None for a folder of files."""
    if isinstance(source, Dataset):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return arrays.from_memory(source, labels, settings)
    named = _by_name(str(source), labels, settings)
    if named is not None:
        return named
    path = resolve(source, "folder")
    return _open(path) if (path / "info.json").is_file() and (path / "columns").is_dir() else None


def _grouped(data: Dataset, group: str | None) -> Dataset:
    """Return a data set whose rows stay together by one of its columns."""
    if group is None or group == "group":
        return data
    if group == NO_GROUP:
        return data.without("group")
    if group not in data or KINDS[group].dtype != torch.int64 or KINDS[group].axes:
        raise UserError(f"--group {group}: '{data.info.source}' has no column '{group}' of one number a row")
    return data.with_columns(group=data[group])


def _by_name(name: str, labels: Any, settings: dict[str, Any]) -> Dataset | None:
    """Return a data set that is known by its name, or None. A folder of that name wins, unless it is `fashion`."""
    if name == "fashion":
        from rushlight.data.synthetic import fashion

        _bring_their_own(name, labels)
        return arrays.resized(fashion.load(), settings)
    if name.startswith("hf:") or (Path(name).is_dir() and huggingface.is_saved(Path(name))):
        _bring_their_own(name, labels)
        return pack(huggingface.listing(name), **settings)
    if Path(name).expanduser().exists():
        return None
    if name in torchvision.NAMES:
        _bring_their_own(name, labels)
        return torchvision.load(name, settings)
    close = nearest(name, ["fashion", *torchvision.NAMES])
    if close and os.sep not in name and "." not in name and not nearest(name, _beside(name)):
        raise UserError(f"'{name}' is neither a folder nor a data set known by name.{close}")
    return None


def _bring_their_own(name: str, labels: Any) -> None:
    if labels is not None:
        raise UserError(f"'{name}' brings its own labels: leave out --labels (labels=…)")


def _beside(name: str) -> list[str]:
    parent = Path(name).parent
    return [entry.name for entry in parent.iterdir()] if parent.is_dir() else []


def _open(path: Path) -> Dataset:
    try:
        return Dataset.open(path)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"'{path}' looks like a packed data set, but cannot be opened: {error}") from error
