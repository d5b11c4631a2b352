"""Decode once: a listing becomes a data set of memory-mapped columns, which every later run reuses.

Threads decode (Pillow releases the interpreter while they do) straight into the memory-mapped
column, so memory stays small however many images there are. Files that cannot be used are left out and named.
The result is a folder in the cache, named by a hash of the listing (names, sizes, times), the labels and the
settings. It is written beside its place and renamed into it when it is whole; a lock lets a second run wait
for the first; a folder that is not whole is built anew.

The size, where none is asked for: images that are all squares of one size up to 224 keep it; otherwise the
largest of 32, 64, 96, 128, 160, 192, 224 that the median shorter side reaches (32 where it reaches none).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from platformdirs import user_cache_path
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data import folder as files
from rushlight.data.columns import KINDS, encode_text, unknown
from rushlight.data.dataset import Dataset, Info, Quarantined
from rushlight.data.pack.decode import (
    FITS,
    Header,
    Source,
    Unreadable,
    decode,
    decode_mask,
    header,
    place,
    resample_mask,
    workers_by_default,
)
from rushlight.data.sources.listing import Listing, Shapes

VERSION = 2
"""Counts changes of what a pack holds: part of the cache's key."""

SIDES = (32, 64, 96, 128, 160, 192, 224)
_SAMPLE = 256
_CHUNK = 16
_DTYPES: dict[str, type[np.generic]] = {"image": np.uint8, "mask": np.uint8, "instance": np.int16}

Size = int | tuple[int, int] | None
Cache = str | os.PathLike[str] | Literal[False] | None


def pack(
    listing: Listing,
    *,
    size: Size = None,
    fit: str = "squash",
    workers: int | None = None,
    cache: Cache = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The listing's images and labels as a data set, from the cache if they are there.

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
    job = _Job(listing, (1, 1), fit, workers or workers_by_default(), progress)
    with _quiet_decoders():
        job.canvas = _canvas(size, job)
        if cache is False:
            return job.run(None)
        root = Path(cache).expanduser() if cache is not None else user_cache_path("rushlight") / "packs"
        with _nameable(root):
            return _cached(job, root)


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Pillow's warnings about odd files are not the user's concern; all formats are loaded up front."""
    Image.init()
    with catch_warnings():
        simplefilter("ignore")
        yield


@contextmanager
def _nameable(root: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one sentence."""
    try:
        yield
    except OSError as error:
        what = {errno.ENOSPC: "its disk is full", errno.EDQUOT: "its quota is used up"}.get(error.errno or 0)
        what = what or (error.strerror or str(error))
        raise UserError(
            f"the cache folder '{root}' cannot be written: {what}; name another with --cache (cache=…)"
        ) from error


def _cached(job: _Job, root: Path) -> Dataset:
    root.mkdir(parents=True, exist_ok=True)
    key = job.listing.digest(version=VERSION, canvas=job.canvas, fit=job.fit)
    folder = root / key
    found = _whole(folder)
    if found is not None:
        return found
    with FileLock(root / f"{key}.lock"):
        return _whole(folder) or _build(job, root, key)


def _build(job: _Job, root: Path, key: str) -> Dataset:
    """Pack beside the folder's place, then rename. The lock is held: other parts are of the dead."""
    for dead in root.glob(f"{key}.part-*"):
        shutil.rmtree(dead, ignore_errors=True)
    shutil.rmtree(root / key, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"{key}.part-", dir=root))
    try:
        job.run(part)
        _seal(part)
        part.rename(root / key)
        _sync(root)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Dataset.open(root / key)


def _seal(folder: Path) -> None:
    """Note every file's length, and see all of it on the disk."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lengths = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / "whole.json").write_text(json.dumps(lengths))
    for path in [*files, folder / "whole.json", folder / "columns", folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole(folder: Path) -> Dataset | None:
    """The data set of a pack in which nothing is missing, or None."""
    try:
        lengths = json.loads((folder / "whole.json").read_text())
        if any((folder / name).stat().st_size != length for name, length in lengths.items()):
            return None
        return Dataset.open(folder)
    except Exception:  # whatever is wrong with it, it will be built anew
        return None


def _canvas(size: Size, job: _Job) -> tuple[int, int]:
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        if not (4 <= height <= 4096 and 4 <= width <= 4096):
            raise UserError(f"size {height}×{width}: an image side must be 4 to 4096 pixels")
        return height, width
    images = job.listing.images
    sample = [images[row] for row in sorted({i * len(images) // _SAMPLE for i in range(_SAMPLE)})]
    heads = [head for head in job.each(_header_or_none, sample) if head is not None]
    return _own_size(heads) if heads else (64, 64)


def _own_size(heads: list[Header]) -> tuple[int, int]:
    height, width = heads[0].height, heads[0].width
    if height == width <= SIDES[-1] and all((head.height, head.width) == (height, width) for head in heads):
        return height, width
    median = float(np.median([min(head.height, head.width) for head in heads]))
    side = max((side for side in SIDES if side <= median), default=SIDES[0])
    return side, side


def _header_or_none(source: Source) -> Header | None:
    try:
        return header(source)
    except Unreadable:
        return None


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

    def each(self, function: Callable, items: list) -> list:
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(function, items))

    def run(self, folder: Path | None) -> Dataset:
        """Decode all images into columns, in memory or in a folder, and put the labels beside them."""
        self._check_masks()
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
        if listing.masks is not None or _have_regions(listing.shapes):
            shapes["mask"] = (len(listing.images), height, width)
        if _have_regions(listing.shapes):
            shapes["instance"] = shapes["mask"]
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
        if self.listing.masks is not None:
            return self._mask_of_file(row, head)
        if "instance" in self.arrays:
            return self._masks_of_regions(row, head)
        return []

    def _mask_of_file(self, row: int, head: Header) -> list[Quarantined]:
        source = self.listing.masks[row]
        self.arrays["mask"][row] = 255
        if source is None:
            return []
        try:
            mask = decode_mask(source)
        except Unreadable as error:
            return [Quarantined(_mask_name(source, self.listing.names[row]), f"as a mask: {error}")]
        self._lay("mask", row, head, mask)
        return []

    def _masks_of_regions(self, row: int, head: Header) -> list[Quarantined]:
        from rushlight.data.sources.coco import paint

        shapes = self.listing.shapes[row]
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
        part = resample_mask(values, where)
        if name == "mask":
            self.seen[part] = True
        down, across = slice(where.top, where.top + where.height), slice(where.left, where.left + where.width)
        self.arrays[name][row, down, across] = part

    def _check_masks(self) -> None:
        """Every mask, and every size that a label file states, is its image's; the first other is named."""
        listing = self.listing
        pairs = [(row, mask) for row, mask in enumerate(listing.masks or ()) if mask is not None]
        stated = [(row, entry.size) for row, entry in enumerate(listing.shapes or ()) if entry and all(entry.size)]
        messages = self.each(partial(_size_differs, listing), pairs)
        for message in messages + self.each(partial(_other_than_stated, listing), stated):
            if message:
                raise UserError(message)

    def _finish_masks(self, rows: np.ndarray) -> None:
        """Masks of nothing but 0 and 255 mean background and foreground: 255 becomes class 1."""
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
        """The column without the rows of files that failed, in the same place."""
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
        os.truncate(path, int(np.prod(shape)) * np.dtype(_DTYPES[name]).itemsize)
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


def _array(name: str, shape: tuple[int, ...], folder: Path | None) -> np.ndarray:
    """An array to fill; in a folder its whole length is claimed first, as a full disk would kill us later."""
    if folder is None:
        return np.empty(shape, dtype=_DTYPES[name])
    path = folder / "columns" / f"{name}.memmap"
    path.parent.mkdir(exist_ok=True)
    length = max(1, int(np.prod(shape)) * np.dtype(_DTYPES[name]).itemsize)
    if shutil.disk_usage(folder).free < length:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with path.open("wb") as file:
        file.truncate(length)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, length)
    return np.memmap(path, dtype=_DTYPES[name], mode="r+", shape=shape)


def _have_regions(shapes: list[Shapes | None] | None) -> bool:
    return any(entry is not None and entry.regions for entry in shapes or ())


def _mask_name(source: Source, image: str) -> str:
    return source.name if isinstance(source, Path) else f"mask of {image}"


def _size_differs(listing: Listing, pair: tuple[int, Source]) -> str:
    row, source = pair
    image, mask = _header_or_none(listing.images[row]), _header_or_none(source)
    if image is None or mask is None or (image.height, image.width) == (mask.height, mask.width):
        return ""
    return (
        f"the mask '{_mask_name(source, listing.names[row])}' is {mask.width}×{mask.height} pixels, "
        f"its image '{listing.names[row]}' is {image.width}×{image.height}: a mask must have its image's size"
    )


def _other_than_stated(listing: Listing, pair: tuple[int, tuple[int, int]]) -> str:
    row, (height, width) = pair
    image = _header_or_none(listing.images[row])
    if image is None or (image.height, image.width) == (height, width):
        return ""
    return (
        f"the label file '{listing.label_file}' says that '{listing.names[row]}' is {width}×{height} pixels, "
        f"but it is {image.width}×{image.height} (upright): its labels would be misplaced; correct the file"
    )


def _label(name: str, values: Any, rows: np.ndarray) -> Tensor:
    if isinstance(values, list):
        return encode_text([values[row] for row in rows])
    return torch.from_numpy(np.ascontiguousarray(values[rows])).to(KINDS[name].dtype)


def shape_columns(shapes: list[Shapes | None], to_original: Tensor, canvas: tuple[int, int]) -> dict[str, Tensor]:
    """Boxes and keypoints of all images in canvas pixels, padded to equal numbers.

    What lies outside the canvas (cropped away) gets visibility 0; boxes are cut at its edge.
    """
    most = max([1, *(len(entry.boxes) for entry in shapes if entry)])
    columns = {"boxes": unknown("boxes", len(shapes), most, 6)}
    joints = max([0, *(e.keypoints.shape[1] for e in shapes if e and e.keypoints is not None)])
    if joints:
        columns["keypoints"] = unknown("keypoints", len(shapes), most, joints, 3)
    for row, entry in enumerate(shapes):
        if entry is None:
            continue
        scale, shift = to_original[row, [0, 1], [0, 1]].numpy(), to_original[row, :, 2].numpy()
        columns["boxes"][row] = 0
        columns["boxes"][row, : len(entry.boxes)] = _boxes(entry.boxes, scale, shift, canvas)
        if joints:
            columns["keypoints"][row] = 0
            if entry.keypoints is not None:
                points = _points(entry.keypoints, scale, shift, canvas)
                columns["keypoints"][row, : len(points), : points.shape[1]] = points
    return columns


def _boxes(boxes: np.ndarray, scale: np.ndarray, shift: np.ndarray, canvas: tuple[int, int]) -> Tensor:
    height, width = canvas
    corners = (boxes[:, :4].reshape(-1, 2, 2) - shift) / scale
    corners = corners.clip(0, (width, height)).reshape(-1, 4)
    inside = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    rows = np.concatenate([corners, boxes[:, 4:5], np.ones((len(boxes), 1))], axis=1) * inside[:, None]
    return torch.from_numpy(rows.astype(np.float32))


def _points(points: np.ndarray, scale: np.ndarray, shift: np.ndarray, canvas: tuple[int, int]) -> Tensor:
    height, width = canvas
    where = (points[..., :2] - shift) / scale
    inside = (where >= 0).all(-1) & (where <= (width, height)).all(-1) & (points[..., 2] > 0)
    rows = np.concatenate([where, points[..., 2:]], axis=-1) * inside[..., None]
    return torch.from_numpy(rows.astype(np.float32))
