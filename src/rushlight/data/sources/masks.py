"""Masks that lie beside the images: in a parallel folder, or as `photo_mask.png` beside `photo.png`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rushlight.core.errors import UserError
from rushlight.data.sources.listing import IMAGES, Listing, resolve, walk

IMAGE_FOLDERS = ("images", "image", "imgs", "jpegimages")


MASK_FOLDERS = ("masks", "mask", "segmentationclass", "annotations", "labels")


MASK_SUFFIX = "_mask"
DEPTHS = frozenset([".png", ".tif", ".tiff", ".npy", ".exr"])


def split_off_masks(listing: Listing, root: Path, folder: Any) -> None:
    """Move masks from the list of images to the image that each belongs to."""
    found = _masks_in(listing, root, folder)
    if not found:
        return
    files = {str(mask) for mask in found.values()}
    rows = [row for row, image in enumerate(listing.images) if str(image) not in files]
    rows = [row for row in rows if not _in_mask_folder(listing.images[row], root, folder)]
    _keep(listing, rows)
    listing.masks = [found.get(name) for name in listing.names]
    listing.stamp = [listing.stamp, [str(mask) for mask in listing.masks], [_stamp(m) for m in listing.masks]]


def add_depths(listing: Listing, root: Path, folder: Any) -> None:
    """Put the depth maps of a folder beside the images of their names.

    Raises:
        UserError: the folder does not exist, or none of its files has an image's name.
    """
    place = resolve(folder, "folder of depth maps")
    found = _parallel(listing, root, place, None, what="depth map", endings=DEPTHS)
    inside = place.resolve()
    _keep(listing, [row for row, image in enumerate(listing.images) if not _inside(image, inside)])
    listing.depths = [found.get(name) for name in listing.names]
    listing.stamp = [listing.stamp, [str(depth) for depth in listing.depths], [_stamp(d) for d in listing.depths]]


def _inside(image: Any, folder: Path) -> bool:
    return image.resolve().is_relative_to(folder)


def _keep(listing: Listing, rows: list[int]) -> None:
    listing.names = [listing.names[row] for row in rows]
    listing.images = [listing.images[row] for row in rows]
    listing.masks = [listing.masks[row] for row in rows] if listing.masks is not None else None


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


def _parallel(
    listing: Listing,
    root: Path,
    folder: Path,
    images: str | None,
    what: str = "mask",
    endings: frozenset[str] = IMAGES,
) -> dict[str, Path]:
    """Return masks of a folder by the path of their image below its own folder, else by a stem that occurs once."""
    names, refused, _ = walk(folder, endings)
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
    listing.folders.append(folder)
    used = set(found.values())
    spare = [name for name in names if folder / name not in used]
    if spare and found:
        told = ", ".join(spare[:5]) + (f" and {len(spare) - 5:,} more" if len(spare) > 5 else "")
        listing.notes[f"spare {what}s"] = f"{told} in '{folder}': of no image"
        listing.stamp = [listing.stamp, spare]
    if not found:
        raise UserError(
            f"no {what} in '{folder}' has the name of an image in '{root}': call the {what} of 'photo.jpg' 'photo.png'"
        )
    return found


def _mask_stem(name: str) -> str:
    return name.rsplit(".", 1)[0].removesuffix(MASK_SUFFIX)
