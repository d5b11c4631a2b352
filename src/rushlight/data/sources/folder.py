"""What a folder of files holds: its images, the classes and folds that its sub-folders name, and its label file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.sources.join import NO_GROUP, join, natural
from rushlight.data.sources.listing import ARCHIVES, IMAGES, Listing, resolve, walk
from rushlight.data.sources.masks import IMAGE_FOLDERS, add_depths, split_off_masks
from rushlight.data.sources.table import is_table, read_table, refuse_binary

TRAIN_FOLDERS = frozenset(["train", "training"])


TEST_FOLDERS = frozenset(["test", "testing"])


VAL_FOLDERS = frozenset(["val", "valid", "validation"])


UNLABELLED = frozenset(["unlabelled", "unlabeled", "_"])


LABEL_FILES = ("labels", "metadata", "annotations", "classes", "tags")


def listing(path: Path, labels: Any, masks: Any = None, depth: Any = None, group: str | None = None) -> Listing:
    """Return the files below a folder as a listing, before any image is decoded.

    Args:
        labels, masks, depth, group: as for `rushlight.data.sources.read.load`.
    """
    if path.is_file():
        if depth is not None:
            raise UserError(f"'{path}' is one image: depth maps need a folder of images")
        return _single(path, labels)
    names, refused, stamps = walk(path)
    if not names and not refused:
        raise UserError(f"the folder '{path}' holds no images: name a folder with JPEG, PNG or other image files")
    images: list[Any] = [path / name for name in names]
    found = Listing(str(path), names, images, quarantined=refused, stamp=stamps)
    file = resolve(labels, "label file") if labels is not None else _label_file(path, names)
    split_off_masks(found, path, masks)
    if depth is not None:
        add_depths(found, path, depth)
    folders = _folds(found)
    if file is None:
        _classes_of_folders(found, folders)
    elif file.suffix.lower() == ".json":
        from rushlight.data.sources.coco import join_coco

        join_coco(found, file)
    else:
        join(found, read_table(file), group)
    if group not in (None, NO_GROUP) and "group" not in found.labels:
        raise UserError(
            f"--group {group}: groups are read from a table; give one with a column '{group}' (--labels FILE)"
        )
    return found


def _single(path: Path, labels: Any) -> Listing:
    """Return a listing of one image, for predictions; any other file is refused with an explanation."""
    if path.suffix.lower() in ARCHIVES:
        raise UserError(f"'{path}' is an archive: extract it, and name the folder")
    if is_table(path) or path.suffix.lower() == ".json":
        raise UserError(f"'{path}' is a label file: name the folder with the images, and this file with --labels")
    if path.suffix.lower() not in IMAGES:
        with path.open("rb") as file:
            refuse_binary(path, file.read(65536))
        raise UserError(f"'{path}' is neither a folder nor an image: name a folder with images")
    if labels is not None:
        raise UserError(f"'{path}' is one image: labels need a folder of images")
    status = path.stat()
    return Listing(str(path), [path.name], [path], stamp=[(status.st_size, status.st_mtime_ns)])


def _label_file(path: Path, names: list[str]) -> Path | None:
    """Return the label file at the top of the folder, if only one comes into question."""
    files = [entry for entry in sorted(path.iterdir()) if entry.is_file() and not entry.name.startswith(".")]
    tables = [file for file in files if is_table(file) or _is_coco(file)]
    named = [file for file in tables if file.stem.lower() in LABEL_FILES]
    if len(named) == 1:
        return named[0]
    flat = sum("/" not in name for name in names) > len(names) / 2
    if len(tables) == 1 and (flat or _is_coco(tables[0])):
        return tables[0]
    if len(tables) > 1 and (flat or named):
        found = ", ".join(f"'{file.name}'" for file in tables[:5])
        raise UserError(f"the folder '{path}' holds several label files, {found}: name one with --labels (labels=…)")
    return None


def _is_coco(file: Path) -> bool:
    if file.suffix.lower() != ".json" or file.stat().st_size < 20:
        return False
    with file.open("rb") as opened:
        return b'"images"' in opened.read(1 << 20)


def _folds(listing: Listing) -> list[list[str]]:
    """Return the folders of each image, without those that only wrap it or name its fold; fill the column `fold`."""
    folders = [name.split("/")[:-1] for name in listing.names]
    folders = _unwrapped(folders)
    tops = {parts[0].lower() for parts in folders if parts}
    test = tops & TEST_FOLDERS
    if not (tops & TRAIN_FOLDERS and (test or tops & VAL_FOLDERS)):
        return folders
    ids = dict.fromkeys(TRAIN_FOLDERS, TRAIN) | dict.fromkeys(TEST_FOLDERS, TEST)
    ids |= dict.fromkeys(VAL_FOLDERS, -1 if test else TEST)
    values = [ids.get(parts[0].lower(), -1) if parts else -1 for parts in folders]
    listing.labels["fold"] = np.array(values, dtype=np.int64)
    return [parts[1:] if parts and parts[0].lower() in ids else parts for parts in folders]


def _unwrapped(folders: list[list[str]]) -> list[list[str]]:
    """Return the folders without one that holds everything, such as `images` or the folder of an archive."""
    while folders and all(folders) and len({parts[0] for parts in folders}) == 1 and any(len(p) > 1 for p in folders):
        folders = [parts[1:] for parts in folders]
    wraps = folders and all(folders) and {parts[0].lower() for parts in folders} <= set(IMAGE_FOLDERS)
    return [parts[1:] for parts in folders] if wraps else folders


def _classes_of_folders(listing: Listing, folders: list[list[str]]) -> None:
    """Set an image's class from its first folder, if there are such folders."""
    tops = [parts[0] if parts and parts[0].lower() not in UNLABELLED else "" for parts in folders]
    names = tuple(sorted(set(tops) - {""}, key=natural))
    if not names:
        return
    if len(names) == 1 and all(tops):
        return  # it only wraps the images
    ids = {name: number for number, name in enumerate(names)} | {"": -1}
    listing.labels["class"] = np.array([ids[top] for top in tops], dtype=np.int64)
    listing.meaning["class_names"] = names
