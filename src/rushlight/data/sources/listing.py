"""What a reader found: the images by name, and the labels that came with them, before any image is decoded.

A folder is walked without following symbolic links out of it. Files that are no images by their ending are
not listed; files that cannot be used are named with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rushlight.core.errors import UserError, nearest
from rushlight.data.dataset import Quarantined
from rushlight.data.pack.decode import Source

IMAGES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".jp2",
        ".j2k",
        ".avif",
        ".ico",
        ".pcx",
        ".heic",
        ".heif",
    ]
)
TABLES = frozenset([".csv", ".tsv", ".txt", ".parquet", ".pq"])
ARCHIVES = frozenset([".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"])


@dataclass
class Shapes:
    """What COCO files hold for one image, in the image's own pixels; a None image is unknown.

    Attributes:
        size: height and width as the label file states them.
        boxes: M×5: x1, y1, x2, y2, class.
        keypoints: M×K×3.
        regions: (class, polygons or run lengths) of each object, for its mask.
        ids: of the boxes' annotations. boxes_known: False where not one of the boxes can be used.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    keypoints: np.ndarray | None
    regions: list[tuple[int, Any]]
    ids: list[str] = field(default_factory=list)
    boxes_known: bool = True


@dataclass
class Listing:
    """Images by name, in order, each with what is known of it.

    Attributes:
        labels: `class`, `tags`, `fold`, `domain`, `study`, `magnification`, `group` as arrays and `caption`, `licence`,
            `creator` as lists of texts, a value an image.
        masks, depths: a mask's (a depth map's) source for each image, or None.
        folders: of the masks and depth maps, where these have one.
        shapes: boxes, keypoints and regions of each image, or None.
        stamp: what the cache's key is made of, beside the names.
        meaning: fields of `Info` (class names, …).
        notes: what the reader decided by itself, for `Info.settings`.
    """

    source: str
    names: list[str]
    images: list[Source]
    labels: dict[str, Any] = field(default_factory=dict)
    masks: list[Source | None] | None = None
    shapes: list[Shapes | None] | None = None
    depths: list[Source | None] | None = None
    folders: list[Path] = field(default_factory=list)
    label_file: str = ""
    stamp: list[Any] = field(default_factory=list)
    meaning: dict[str, Any] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def digest(self, **settings: Any) -> str:
        """Return a key for the packed result: the listing's content, the labels' content, and the settings."""
        digest = hashlib.sha256(json.dumps([self.names, self.stamp, self.meaning, settings], default=str).encode())
        for name, values in sorted(self.labels.items()):
            digest.update(name.encode())
            digest.update(json.dumps(values).encode() if isinstance(values, list) else values.tobytes())
        return digest.hexdigest()[:32]


def resolve(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path that exists.

    Raises:
        UserError: there is nothing there; the nearest name beside it is suggested.
    """
    found = Path(path).expanduser()
    try:
        if found.exists():
            return found
        parent = found.parent
        beside = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    except (OSError, ValueError) as error:
        raise UserError(f"the {what} '{path}' cannot be read: {error}") from error
    if not parent.is_dir():
        raise UserError(f"the {what} '{path}' does not exist, and neither does the folder '{parent}'")
    raise UserError(f"the {what} '{path}' does not exist.{nearest(found.name, beside)}")


def walk(root: Path, endings: frozenset[str] = IMAGES) -> tuple[list[str], list[Quarantined], list[Any]]:
    """Return the files with some endings below a folder: sorted relative names, those refused, sizes and times."""
    found: list[tuple[str, int, int]] = []
    refused: list[Quarantined] = []
    inside = root.resolve()
    for folder, below, files in os.walk(root):
        here = Path(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in list(below):
            if (here / name).is_symlink() and not (here / name).resolve().is_relative_to(inside):
                refused.append(_refused(here / name, root, "a symbolic link that leads out of the folder"))
        for name in files:
            path = here / name
            if name.startswith(".") or path.suffix.lower() not in endings:
                continue
            reason, status = _judge(path, inside)
            if status is None:
                refused.append(_refused(path, root, reason))
            else:
                found.append((path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
    found.sort()
    return [name for name, *_ in found], refused, [entry[1:] for entry in found]


def _refused(path: Path, root: Path, reason: str) -> Quarantined:
    return Quarantined(printable(path.relative_to(root).as_posix()), reason)


def printable(name: str) -> str:
    """Return a file's name that can be encoded, whatever bytes it is made of."""
    return name.encode("utf-8", "backslashreplace").decode()


def _judge(path: Path, inside: Path) -> tuple[str, os.stat_result | None]:
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            return "a symbolic link that leads out of the folder", None
        status = path.stat()
    except (OSError, RuntimeError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}", None
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file", None
    if path.suffix.lower() in (".heic", ".heif"):
        return "HEIC is not read: convert it to JPEG", None
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8: rename it", None
    return "", status
