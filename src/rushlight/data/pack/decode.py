"""One image file, decoded and placed on a canvas of the wanted size; whatever is wrong with it becomes a
sentence.

An image is read upright (its EXIF orientation applied), its first frame if it is animated, as 8-bit RGB:
16-bit grey is divided by 257 and repeated, CMYK and palettes are converted, transparency is laid on white. It
is resampled once, with antialiasing. JPEGs much larger than wanted are decoded at a half, a quarter or an
eighth of their size, which libjpeg does while decoding, but never below twice the wanted size. (torchvision's
decoders are quicker on whole JPEGs; since 0.29 they are deprecated, to be removed.)

Files are not trusted. Only decoders of plain raster formats are tried (PostScript is never interpreted), the
header is judged before anything is decoded, and images of more than 16 million pixels are decoded one at a
time, so that memory stays bounded whatever the headers claim.
"""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rushlight.data.pack.place import Placement, place

Source = Path | Callable[[], "bytes | Image.Image | np.ndarray"]
"""Where an image comes from: a file, or a function that gives its bytes, or the image itself."""

FORMATS = [
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "DIB",
    "WEBP",
    "TIFF",
    "PPM",
    "TGA",
    "JPEG2000",
    "AVIF",
    "ICO",
    "PCX",
]
LARGEST = 100_000_000
"""Pixels above which an image is taken for a decompression bomb."""
SMALLEST = 4
"""Pixels a side below which there is nothing to see."""

_ALONE = 16_000_000
_DENSEST = 8 * 1032
"""Pixels a byte can hold at most: deflate's 1032 bytes a byte, at one bit a pixel."""
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_one_at_a_time = threading.Lock()


class Unreadable(Exception):
    """Why a file cannot be used, in one sentence."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself: upright height and width, and how it must be turned to be upright."""

    height: int
    width: int
    orientation: int = 1

    @property
    def turned(self) -> bool:
        return self.orientation in (5, 6, 7, 8)


def header(source: Source) -> Header:
    """Read the size of an image, without decoding it.

    Raises:
        Unreadable: it is no image, too small, or too large.
    """
    with blamed_on_the_file(), opened(source) as image:
        return read_header(image)


def decode(source: Source, canvas: tuple[int, int], fit: str) -> tuple[np.ndarray, Header]:
    """Decode an image onto its canvas, uint8 H×W×3 (borders black); return it and its header.

    Raises:
        Unreadable: it is no image, too small, too large, broken, or cut short.
    """
    with blamed_on_the_file(), opened(source) as image:
        head = read_header(image)
        where = place(head.height, head.width, canvas, fit)
        if head.height * head.width > _ALONE:
            with _one_at_a_time:
                part = np.asarray(_resampled(image, head, where))
        else:
            part = np.asarray(_resampled(image, head, where))
    if part.shape[:2] == canvas:
        return part, head
    whole = np.zeros((*canvas, 3), dtype=np.uint8)
    whole[where.top : where.top + where.height, where.left : where.left + where.width] = part
    return whole, head


class blamed_on_the_file:
    """Turns whatever a decoder raises into one sentence about the file: it may fail in any way."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, Exception) and not isinstance(error, Unreadable):
            raise Unreadable(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        claimed = re.search(r"\d+", text)
        return _too_large(int(claimed.group()) if claimed else LARGEST)
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    if "truncated" in text or isinstance(error, EOFError):
        return "truncated: the file ends before the image does"
    return f"broken: {text or type(error).__name__}"[:200]


def _too_large(pixels: int) -> str:
    return f"claims {pixels / 1e6:,.0f} million pixels, more than the {LARGEST // 1_000_000} million allowed"


def opened(source: Source) -> Image.Image:
    if isinstance(source, Path):
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("not a regular file")
        _check_length(status.st_size)
        image = Image.open(source, formats=FORMATS)
        _check_claim(image, status.st_size)
        return image
    given = source()
    if isinstance(given, bytes):
        _check_length(len(given))
        image = Image.open(io.BytesIO(given), formats=FORMATS)
        _check_claim(image, len(given))
        return image
    return given.copy() if isinstance(given, Image.Image) else from_array(given)


def _check_length(length: int) -> None:
    if length == 0:
        raise Unreadable("empty file")


def _check_claim(image: Image.Image, length: int) -> None:
    pixels = image.width * image.height
    if pixels > LARGEST:
        raise Unreadable(f"{image.width}×{image.height}: {_too_large(pixels)}")
    if pixels > 1_000_000 and pixels > length * _DENSEST:
        raise Unreadable(f"claims {image.width}×{image.height} pixels, which its {length} bytes cannot hold")


def read_header(image: Image.Image) -> Header:
    orientation = image.getexif().get(_ORIENTATION, 1) if image.format else 1
    orientation = orientation if orientation in _UPRIGHT else 1
    width, height = image.size
    if min(width, height) < SMALLEST:
        raise Unreadable(f"{width}×{height}: smaller than {SMALLEST} pixels a side")
    return Header(width, height, orientation) if orientation >= 5 else Header(height, width, orientation)


def _resampled(image: Image.Image, head: Header, where: Placement) -> Image.Image:
    """Return the kept part of an image at its size on the canvas: resampled as stored, then turned upright."""
    box, (width, height) = _as_stored(where, head)
    stored = image.size
    image = _eight_bit(_decoded(image, (width, height), box))
    across, down = image.width / stored[0], image.height / stored[1]
    scaled = (
        box[0] * across,
        box[1] * down,
        min(box[2] * across, image.width),
        min(box[3] * down, image.height),
    )
    if (width, height) != image.size or scaled != (0, 0, *image.size):
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=scaled)
    image = image if image.mode == "RGB" else image.convert("RGB")
    return image.transpose(_UPRIGHT[head.orientation]) if head.orientation != 1 else image


def _as_stored(where: Placement, head: Header) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """Return the kept part before turning. It lies in the middle, so mirroring leaves it where it is."""
    if not head.turned:
        return where.box, (where.width, where.height)
    x1, y1, x2, y2 = where.box
    return (y1, x1, y2, x2), (where.height, where.width)


def _decoded(image: Image.Image, size: tuple[int, int], box: tuple) -> Image.Image:
    """Decode all pixels, of a JPEG at no more than the resolution that the target size needs."""
    if image.format in ("JPEG", "MPO"):
        across, down = image.width / (box[2] - box[0]), image.height / (box[3] - box[1])
        before = image.size
        image.draft(None, (int(2 * size[0] * across), int(2 * size[1] * down)))
        if image.size != before:
            return image
    image.load()
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert to eight bits per channel, grey or RGB, on white where the image is transparent."""
    if image.mode.startswith("I") or image.mode == "F":
        return from_array(np.asarray(image))
    if image.mode in ("RGB", "L"):
        return image if "transparency" not in image.info else _on_white(image.convert("RGBA"))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image.convert("L" if image.mode == "1" else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def from_array(values: np.ndarray) -> Image.Image:
    """Convert an array H×W, H×W×1 or H×W×3 to an 8-bit image.

    uint8 stays. Integers above 255 are 16-bit: divided by 257. Floats in [0, 1] are multiplied by 255, other
    floats are cut to 0 … 255.
    """
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return Image.fromarray(to_uint8(values))


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Convert pixel values to uint8, by the rule of `from_array`, for one image or a stack of them."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(values.dtype, np.floating):
        values = np.nan_to_num(values.astype(np.float32))
        scale = 255.0 if values.size and values.max() <= 1 else 1.0
        return (values * scale).round().clip(0, 255).astype(np.uint8)
    deep = values.dtype == np.uint16 or (values.size and values.max() > 255)
    return (values.clip(0, 65535) // 257 if deep else values.clip(0, 255)).astype(np.uint8)


def workers_by_default() -> int:
    """Return the number of cores that this process may use, as the number of threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
