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

import numpy as np

from rushlight.core.errors import UserError, nearest
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.pack.write import Cache, Size, pack
from rushlight.data.sources import huggingface
from rushlight.data.sources.huggingface import from_arrays, from_torch
from rushlight.data.sources.listing import ARCHIVES, IMAGES, Listing, resolve, walk
from rushlight.data.sources.table import is_table, join, natural, read_table, refuse_binary

__all__ = ["from_arrays", "from_torch", "load"]

TRAIN_FOLDERS = frozenset(["train", "training"])
TEST_FOLDERS = frozenset(["test", "testing"])
VAL_FOLDERS = frozenset(["val", "valid", "validation"])
UNLABELLED = frozenset(["unlabelled", "unlabeled", "_"])
IMAGE_FOLDERS = ("images", "image", "imgs", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "segmentationclass", "annotations", "labels")
MASK_SUFFIX = "_mask"
LABEL_FILES = ("labels", "metadata", "annotations", "classes", "tags")


def load(
    source: Any,
    *,
    labels: Any = None,
    size: Size = None,
    cache: Cache = None,
    masks: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    fit: str = "squash",
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read images and whatever labels exist, decode them once, and give them as a data set.

    Args:
        source: see the table of this module.
        labels: a CSV, Parquet or COCO JSON file; for arrays, the labels themselves. By default the one beside
            the images, if there is one.
        size: side of the square canvas in pixels, or (height, width); by default chosen from the images
            (`rushlight.data.pack.write`).
        cache: folder for packed data; by default the user's cache folder; False keeps it in memory.
        masks: the folder with a PNG for each image.
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
    if isinstance(source, Dataset):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return huggingface.from_memory(source, labels, settings)
    named = _by_name(str(source), labels, settings)
    if named is not None:
        return named
    path = resolve(source, "folder")
    if path.is_dir() and (path / "info.json").is_file() and (path / "columns").is_dir():
        return _open(path)
    return pack(_listing(path, labels, masks), **settings)


def _by_name(name: str, labels: Any, settings: dict[str, Any]) -> Dataset | None:
    """A data set that is known by its name, or None. A folder of that name wins, unless it is `fashion`."""
    if name == "fashion":
        from rushlight.data.synthetic import fashion

        _bring_their_own(name, labels)
        return huggingface.resized(fashion.load(), settings)
    if name.startswith("hf:") or (Path(name).is_dir() and huggingface.is_saved(Path(name))):
        _bring_their_own(name, labels)
        return pack(huggingface.listing(name), **settings)
    if Path(name).expanduser().exists():
        return None
    if name in huggingface.TORCHVISION:
        _bring_their_own(name, labels)
        return huggingface.from_torchvision(name, settings)
    close = nearest(name, ["fashion", *huggingface.TORCHVISION])
    if close and os.sep not in name and "." not in name and not nearest(name, _beside(name)):
        raise UserError(f"'{name}' is neither a folder nor a data set known by name.{close}")
    return None


def _bring_their_own(name: str, labels: Any) -> None:
    if labels is not None:
        raise UserError(f"'{name}' brings its own labels: leave out --labels (labels=…)")


def _beside(name: str) -> list[str]:
    parent = Path(name).parent
    return [entry.name for entry in parent.iterdir()] if parent.is_dir() else []


def _open(folder: Path) -> Dataset:
    try:
        return Dataset.open(folder)
    except Exception as error:
        raise UserError(f"'{folder}' looks like a packed data set, but cannot be opened: {error}") from error


def _listing(path: Path, labels: Any, masks: Any) -> Listing:
    """What there is below a folder, before any image is decoded."""
    if path.is_file():
        return _single(path, labels)
    names, refused, stamps = walk(path)
    if not names and not refused:
        raise UserError(f"the folder '{path}' holds no images: name a folder with JPEG, PNG or other image files")
    images: list[Any] = [path / name for name in names]
    listing = Listing(str(path), names, images, quarantined=refused, stamp=stamps)
    file = resolve(labels, "label file") if labels is not None else _label_file(path, names)
    _split_off_masks(listing, path, masks)
    folders = _folds(listing)
    if file is None:
        _classes_of_folders(listing, folders)
    elif file.suffix.lower() == ".json":
        from rushlight.data.sources.coco import join_coco

        join_coco(listing, file)
    else:
        join(listing, read_table(file))
    return listing


def _single(path: Path, labels: Any) -> Listing:
    """One image, for predictions; any other file is explained."""
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
    """The label file that lies on top of the folder, if there is no doubt which."""
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


def _keep(listing: Listing, rows: list[int]) -> None:
    listing.names = [listing.names[row] for row in rows]
    listing.images = [listing.images[row] for row in rows]


def _split_off_masks(listing: Listing, root: Path, folder: Any) -> None:
    """Masks leave the list of images and go beside the image they belong to."""
    found = _masks_in(listing, root, folder)
    if not found:
        return
    files = {str(mask) for mask in found.values()}
    rows = [row for row, image in enumerate(listing.images) if str(image) not in files]
    rows = [row for row in rows if not _in_mask_folder(listing.images[row], root, folder)]
    _keep(listing, rows)
    listing.masks = [found.get(name) for name in listing.names]
    listing.stamp = [listing.stamp, [str(mask) for mask in listing.masks], [_stamp(m) for m in listing.masks]]


def _stamp(mask: Any) -> Any:
    return (mask.stat().st_size, mask.stat().st_mtime_ns) if mask is not None else None


def _in_mask_folder(image: Any, root: Path, folder: Any) -> bool:
    if folder is not None:
        return image.resolve().is_relative_to(Path(folder).expanduser().resolve())
    top = image.relative_to(root).parts[0].lower()
    return top in MASK_FOLDERS and any(
        (root / name).is_dir() for name in _folders(root) if name.lower() in IMAGE_FOLDERS
    )


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _masks_in(listing: Listing, root: Path, folder: Any) -> dict[str, Path]:
    if folder is not None:
        return _parallel(listing, root, resolve(folder, "folder of masks"), None)
    below = {name.lower(): name for name in _folders(root)}
    images = next((below[name] for name in IMAGE_FOLDERS if name in below), None)
    masks = next((below[name] for name in MASK_FOLDERS if name in below), None)
    if images and masks and walk(root / masks)[0]:
        return _parallel(listing, root, root / masks, images)
    return _beside_images(listing, root)


def _beside_images(listing: Listing, root: Path) -> dict[str, Path]:
    stems = {name.rsplit(".", 1)[0]: name for name in listing.names}
    return {
        stems[stem.removesuffix(MASK_SUFFIX)]: root / name
        for stem, name in stems.items()
        if stem.endswith(MASK_SUFFIX) and name.lower().endswith(".png") and stem.removesuffix(MASK_SUFFIX) in stems
    }


def _parallel(listing: Listing, root: Path, folder: Path, images: str | None) -> dict[str, Path]:
    """Masks of a folder by the path of their image below its own, else by a stem that occurs once."""
    names, refused, _ = walk(folder)
    listing.quarantined += [entry for entry in refused if entry not in listing.quarantined]
    by_stem = {_mask_stem(name): folder / name for name in names}
    bare: dict[str, Path | None] = {}
    for stem, path in by_stem.items():
        key = stem.rsplit("/", 1)[-1]
        bare[key] = None if key in bare else path
    found = {}
    for name in listing.names:
        if (root / name).resolve().is_relative_to(folder.resolve()):
            continue
        stem = name.rsplit(".", 1)[0]
        stem = stem.removeprefix(f"{images}/") if images else stem
        mask = by_stem.get(stem) or bare.get(stem.rsplit("/", 1)[-1])
        if mask is not None:
            found[name] = mask
    if not found:
        raise UserError(
            f"no mask in '{folder}' has the name of an image in '{root}': call the mask of 'photo.jpg' 'photo.png'"
        )
    return found


def _mask_stem(name: str) -> str:
    return name.rsplit(".", 1)[0].removesuffix(MASK_SUFFIX)


def _folds(listing: Listing) -> list[list[str]]:
    """The folders of each image, without those that only wrap it or name its fold; fills `fold`."""
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
    """Folders without one that holds everything, such as `images` or what an archive was packed in."""
    while folders and all(folders) and len({parts[0] for parts in folders}) == 1 and any(len(p) > 1 for p in folders):
        folders = [parts[1:] for parts in folders]
    wraps = folders and all(folders) and {parts[0].lower() for parts in folders} <= set(IMAGE_FOLDERS)
    return [parts[1:] for parts in folders] if wraps else folders


def _classes_of_folders(listing: Listing, folders: list[list[str]]) -> None:
    """The first folder of an image is its class, if there are such folders."""
    tops = [parts[0] if parts and parts[0].lower() not in UNLABELLED else "" for parts in folders]
    names = tuple(sorted(set(tops) - {""}, key=natural))
    if not names:
        return
    if len(names) == 1 and all(tops):
        return  # it only wraps the images
    ids = {name: number for number, name in enumerate(names)} | {"": -1}
    listing.labels["class"] = np.array([ids[top] for top in tops], dtype=np.int64)
    listing.meaning["class_names"] = names
