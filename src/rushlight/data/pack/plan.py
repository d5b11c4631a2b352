"""What a pack will be, before anything is decoded: the canvas, and that every mask and stated size is its image's.

The size, where none is named: images that are all squares of one size up to 224 keep it; otherwise the largest of
32, 64, 96, 128, 160, 192, 224 that the median shorter side reaches (32 where it reaches none).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from rushlight.core.errors import UserError
from rushlight.data.pack.decode import Header, Source, Unreadable, header
from rushlight.data.sources.listing import Listing

SIDES = (32, 64, 96, 128, 160, 192, 224)

_SAMPLE = 256

Size = int | tuple[int, int] | None


def each(function: Callable, items: list, workers: int) -> list:
    """Map a function over items, in threads."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


def canvas(size: Size, images: list[Source], workers: int) -> tuple[int, int]:
    """Return (height, width) of the canvas: as asked for, or chosen from a sample of the images.

    Raises:
        UserError: a side that is too small or too large.
    """
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        if not (4 <= height <= 4096 and 4 <= width <= 4096):
            raise UserError(f"size {height}×{width}: an image side must be 4 to 4096 pixels")
        return height, width
    sample = [images[row] for row in sorted({i * len(images) // _SAMPLE for i in range(_SAMPLE)})]
    heads = [head for head in each(_header_or_none, sample, workers) if head is not None]
    return _own_size(heads) if heads else (64, 64)


def check(listing: Listing, workers: int) -> None:
    """Check that every mask, and every size in a label file, fits its image.

    Raises:
        UserError: one is not; the first is named.
    """
    pairs = [(row, mask) for row, mask in enumerate(listing.masks or ()) if mask is not None]
    stated = [(row, entry.size) for row, entry in enumerate(listing.shapes or ()) if entry and all(entry.size)]
    messages = each(partial(_size_differs, listing), pairs, workers)
    for message in messages + each(partial(_other_than_stated, listing), stated, workers):
        if message:
            raise UserError(message)


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


def raster_name(source: Source, image: str, listing: Listing, what: str = "mask") -> str:
    """Return what a mask (or another raster) is called in a message: its path in its folder, or in that of images."""
    if not isinstance(source, Path):
        return f"{what} of {image}"
    root = next((each for each in (*listing.folders, Path(listing.source)) if source.is_relative_to(each)), None)
    return source.relative_to(root).as_posix() if root is not None else str(source)


def check_shape(values: np.ndarray, head: Header) -> None:
    """Check that a raster, of whatever size, has its image's proportions, to a pixel.

    Raises:
        Unreadable: it has others, so its pixels would be of other places.
    """
    height, width = values.shape
    if abs(height - head.height * width / head.width) > 1 and abs(width - head.width * height / head.height) > 1:
        raise Unreadable(f"is {width}×{height} pixels, and its image {head.width}×{head.height}: of other proportions")


def _size_differs(listing: Listing, pair: tuple[int, Source]) -> str:
    row, source = pair
    image, mask = _header_or_none(listing.images[row]), _header_or_none(source)
    if image is None or mask is None or (image.height, image.width) == (mask.height, mask.width):
        return ""
    return (
        f"the mask '{raster_name(source, listing.names[row], listing)}' is {mask.width}×{mask.height} pixels, "
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
