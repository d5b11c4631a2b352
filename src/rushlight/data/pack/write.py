"""Decode once: a listing becomes a data set of memory-mapped columns, which every later run reuses.

Threads decode (Pillow releases the interpreter while they do) straight into the memory-mapped
column, so memory stays small however many images there are. Files that cannot be used are left out and named.
The result is kept (`rushlight.data.pack.cache`).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from PIL import Image
from platformdirs import user_cache_path
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data import folder as files
from rushlight.data.columns import KINDS, encode_text, unknown
from rushlight.data.dataset import Dataset, Info, Quarantined
from rushlight.data.pack.cache import VERSION, Cache, cached, nameable
from rushlight.data.pack.decode import Header, Source, Unreadable, decode, workers_by_default
from rushlight.data.pack.place import FITS, place, resample
from rushlight.data.pack.plan import Size, canvas, check, check_shape, raster_name
from rushlight.data.pack.shapes import shape_columns, unusable
from rushlight.data.sources.listing import Listing, Shapes

_CHUNK = 16


_WORDS = {"mask": "mask", "depth": "depth map"}


def pack(
    listing: Listing,
    *,
    size: Size = None,
    fit: str = "squash",
    workers: int | None = None,
    cache: Cache = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Return the listing's images and labels as a data set, from the cache if they are there.

    Args:
        size: side of the square canvas in pixels, or (height, width); by default chosen from the images.
        fit: `squash` stretches an image over the canvas, `crop` keeps its middle, `pad` leaves black borders.
        workers: threads; by default one a core.
        cache: folder for packed data; by default the user's cache folder; False packs into memory.
        progress: called with images done and images in all.

    Raises:
        UserError: no image can be used, a mask differs in size from its image, or the cache cannot be
        written.
    """
    if fit not in FITS:
        raise UserError(f"fit is '{fit}': it must be one of {', '.join(FITS)}")
    workers = workers or workers_by_default()
    with _quiet_decoders():
        job = _Job(listing, canvas(size, listing.images, workers), fit, workers, progress)
        if cache is False:
            return job.run(None)
        root = Path(cache).expanduser() if cache is not None else user_cache_path("rushlight") / "packs"
        with nameable(root):
            return cached(job.key(), job.run, root)


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Silence Pillow's warnings about odd files, which do not concern the user, and load all image formats up front."""
    Image.init()
    with catch_warnings():
        simplefilter("ignore")
        yield


@dataclass
class _Job:
    """One packing: what, onto which canvas, how, and the arrays it fills."""

    listing: Listing
    canvas: tuple[int, int]
    fit: str
    workers: int
    progress: Callable[[int, int], None] | None = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    heads: list[Header | None] = field(default_factory=list)
    failed: list[Quarantined] = field(default_factory=list)
    seen: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=bool))

    def key(self) -> str:
        """Return the name of the pack in the cache."""
        return self.listing.digest(version=VERSION, canvas=self.canvas, fit=self.fit)

    def run(self, folder: Path | None) -> Dataset:
        """Decode all images into columns, in memory or in a folder, and put the labels beside them."""
        check(self.listing, self.workers)
        self._allocate(folder)
        self._decode_all()
        rows = np.array([row for row, head in enumerate(self.heads) if head is not None], dtype=np.int64)
        if not len(rows):
            raise UserError(self._none_left())
        self._finish_masks(rows)
        rasters = list(self.arrays)
        columns = {name: self._compacted(name, rows, folder) for name in rasters}
        columns |= self._labels(rows)
        data = Dataset(columns, self._info(columns))
        if folder is not None:
            files.complete(folder, data, mapped=rasters)
        return data

    def _none_left(self) -> str:
        listing, failed = self.listing, self.listing.quarantined + self.failed
        if not failed:
            return f"'{listing.source}' holds no images: name a folder with JPEG, PNG or other image files"
        return (
            f"none of the {len(failed)} images in '{listing.source}' can be used; "
            f"the first: '{failed[0].name}' is {failed[0].reason}"
        )

    def _allocate(self, folder: Path | None) -> None:
        listing, (height, width) = self.listing, self.canvas
        shapes: dict[str, tuple[int, ...]] = {"image": (len(listing.images), 3, height, width)}
        if listing.depths is not None:
            shapes["depth"] = (len(listing.images), height, width)
        if listing.masks is not None or _have_regions(listing.shapes):
            shapes["mask"] = (len(listing.images), height, width)
        if _have_regions(listing.shapes):
            shapes["instance"] = (len(listing.images), height, width)
        for name, shape in shapes.items():
            self.arrays[name] = _array(name, shape, folder)
        self.heads = [None] * len(listing.images)

    def _decode_all(self) -> None:
        rows = len(self.listing.images)
        chunks = [range(start, min(start + _CHUNK, rows)) for start in range(0, rows, _CHUNK)]
        with ThreadPoolExecutor(self.workers) as pool:
            for chunk, failures in zip(chunks, pool.map(self._decode_chunk, chunks)):
                self.failed += failures
                if self.progress:
                    self.progress(chunk.stop, rows)

    def _decode_chunk(self, rows: range) -> list[Quarantined]:
        return [failure for row in rows for failure in self._decode_row(row)]

    def _decode_row(self, row: int) -> list[Quarantined]:
        try:
            pixels, head = decode(self.listing.images[row], self.canvas, self.fit)
        except Unreadable as error:
            return [Quarantined(self.listing.names[row], str(error))]
        self.arrays["image"][row] = pixels.transpose(2, 0, 1)
        self.heads[row] = head
        failures = self._unusable_boxes(row, head)
        for name, rasters in (("depth", self.listing.depths), ("mask", self.listing.masks)):
            if rasters is not None:
                failures += self._raster(name, rasters[row], row, head)
        if "instance" in self.arrays:
            failures += self._masks_of_regions(row, head)
        return failures

    def _raster(self, name: str, source: Source | None, row: int, head: Header) -> list[Quarantined]:
        """Place a file of one value per pixel on its canvas; unknown where the file is missing or cannot be read."""
        kind = KINDS[name]
        self.arrays[name][row] = kind.unknown
        if source is None or kind.decode is None:
            return []
        try:
            values = kind.decode(source)
            check_shape(values, head)
        except Unreadable as error:
            image = self.listing.names[row]
            place = raster_name(source, image, self.listing, name)
            return [Quarantined(place, f"as a {_WORDS[name]}: {error}; the {name} of '{image}' is unknown")]
        self._lay(name, row, head, values)
        return []

    def _unusable_boxes(self, row: int, head: Header) -> list[Quarantined]:
        """Name the boxes that show nothing of their image; where all do, the image's boxes are unknown, not none."""
        shapes = self.listing.shapes[row] if self.listing.shapes is not None else None
        found = unusable(shapes, head.height, head.width) if shapes is not None else []
        if shapes is None or not found:
            return []
        shapes.boxes_known = len(found) < len(shapes.boxes)
        end = "" if shapes.boxes_known else "; its boxes are unknown"
        return [Quarantined(self.listing.names[row], each + end) for each in found]

    def _masks_of_regions(self, row: int, head: Header) -> list[Quarantined]:
        from rushlight.data.sources.coco import paint

        shapes = self.listing.shapes[row] if self.listing.shapes is not None else None
        self.arrays["mask"][row], self.arrays["instance"][row] = 255, -1
        if shapes is None:
            return []
        try:
            mask, instance = paint(shapes, head.height, head.width)
        except (ValueError, TypeError) as error:
            name = self.listing.names[row]
            return [Quarantined(name, f"its regions cannot be read: {error}; its mask is unknown")]
        self._lay("mask", row, head, mask)
        self._lay("instance", row, head, instance)
        return []

    def _lay(self, name: str, row: int, head: Header, values: np.ndarray) -> None:
        where = place(head.height, head.width, self.canvas, self.fit)
        part = resample(values, where, (head.height, head.width))
        if name == "mask":
            self.seen[part] = True
        down, across = slice(where.top, where.top + where.height), slice(where.left, where.left + where.width)
        self.arrays[name][row, down, across] = part

    def _finish_masks(self, rows: np.ndarray) -> None:
        """Turn 255 into class 1 in masks that hold only 0 and 255 (background and foreground)."""
        if self.listing.masks is None or not self.seen[255] or self.seen[1:255].any():
            return
        for row in rows:
            head = self.heads[row]
            if head is not None and self.listing.masks[row] is not None:
                where = place(head.height, head.width, self.canvas, self.fit)
                inside = self.arrays["mask"][
                    row, where.top : where.top + where.height, where.left : where.left + where.width
                ]
                inside[inside == 255] = 1
        self.seen[1], self.seen[255] = True, False
        self.listing.notes["masks"] = "only 0 and 255 occur: 255 is read as class 1"

    def _compacted(self, name: str, rows: np.ndarray, folder: Path | None) -> Tensor:
        """Return the column without the rows of files that failed, compacted in place."""
        array = self.arrays[name]
        if len(rows) < len(array):
            for start in range(0, len(rows), 256):  # rows[i] >= i: what is overwritten has moved already
                take = rows[start : start + 256]
                array[start : start + len(take)] = array[take]
        if folder is None:
            return torch.from_numpy(array[: len(rows)])
        shape = (len(rows), *array.shape[1:])
        array.flush()  # type: ignore[attr-defined]
        del self.arrays[name], array  # unmapped before its file is cut
        path = folder / "columns" / f"{name}.memmap"
        os.truncate(path, int(np.prod(shape)) * _dtype(name).itemsize)
        return files.mapped(path, KINDS[name].dtype, list(shape))

    def _labels(self, rows: np.ndarray) -> dict[str, Tensor]:
        listing = self.listing
        columns = {"fold": unknown("fold", len(rows))} | {
            name: _label(name, values, rows) for name, values in listing.labels.items()
        }
        columns["name"] = encode_text([listing.names[row] for row in rows])
        heads = [self.heads[row] for row in rows]
        columns["size"] = torch.tensor([(h.height, h.width) for h in heads if h], dtype=torch.int32)
        places = [place(h.height, h.width, self.canvas, self.fit) for h in heads if h]
        columns["to_original"] = torch.from_numpy(np.stack([where.to_original for where in places]))
        if listing.shapes is not None:
            chosen = [listing.shapes[row] for row in rows]
            columns |= shape_columns(chosen, columns["to_original"], self.canvas)
        return columns

    def _info(self, columns: dict[str, Tensor]) -> Info:
        listing = self.listing
        settings = {"size": list(self.canvas), "fit": self.fit, **listing.notes}
        meaning = dict(listing.meaning)
        if "mask" in columns and not meaning.get("mask_names"):
            classes = np.flatnonzero(self.seen[:255])
            names = meaning.get("class_names") or ()
            top = int(classes.max(initial=0)) + 1
            meaning["mask_names"] = names if len(names) == top else tuple(str(i) for i in range(top))
        left_out = tuple(sorted(listing.quarantined + self.failed, key=lambda entry: entry.name))
        return Info(source=listing.source, quarantined=left_out, settings=settings, **meaning)


def _dtype(name: str) -> np.dtype[Any]:
    """Return the dtype of a kind, as NumPy's."""
    return torch.empty(0, dtype=KINDS[name].dtype).numpy().dtype


def _array(name: str, shape: tuple[int, ...], folder: Path | None) -> np.ndarray:
    """Return an array to fill; in a folder its disk space is reserved first, as a full disk would kill us later."""
    if folder is None:
        return np.empty(shape, dtype=_dtype(name))
    path = folder / "columns" / f"{name}.memmap"
    path.parent.mkdir(exist_ok=True)
    length = max(1, int(np.prod(shape)) * _dtype(name).itemsize)
    if shutil.disk_usage(folder).free < length:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with path.open("wb") as file:
        file.truncate(length)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, length)
    return np.memmap(path, dtype=_dtype(name), mode="r+", shape=shape)


def _have_regions(shapes: list[Shapes | None] | None) -> bool:
    return any(entry is not None and entry.regions for entry in shapes or ())


def _label(name: str, values: Any, rows: np.ndarray) -> Tensor:
    if isinstance(values, list):
        return encode_text([values[row] for row in rows])
    return torch.from_numpy(np.ascontiguousarray(values[rows])).to(KINDS[name].dtype)
