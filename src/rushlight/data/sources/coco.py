"""Labels from a COCO JSON file: boxes, masks with instances, keypoints.

An image that the file lists without annotations is known to be empty; an image of the folder that it does not
list is unknown. In masks, 0 is background and category k, in the order of the ids, is k + 1; larger objects
are painted first, and crowd regions are unknown (255). Polygons are rasterised by faster-coco-eval, as COCO's
own code does it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rushlight.core.errors import UserError, nearest
from rushlight.data.sources.join import lookup
from rushlight.data.sources.listing import Listing, Shapes

_CROWD = 254
"""The class, one below the mask's unknown value, under which a crowd region travels until it is painted."""


def join_coco(listing: Listing, file: Path) -> Listing:
    """Return the listing with the boxes, masks and keypoints of a COCO file.

    Raises:
        UserError: it is no COCO file, names missing files or unknown ids, or an annotation cannot be used.
    """
    content = _read(file)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    classes = {category["id"]: index for index, category in enumerate(categories)}
    names = tuple(str(category.get("name", category["id"])) for category in categories)
    joints_of = {category["id"]: len(category.get("keypoints") or ()) for category in categories}
    rows = _rows(listing, file, content["images"])
    grouped: dict[Any, list[tuple[int, dict]]] = {key: [] for key in rows}
    for index, annotation in enumerate(content["annotations"]):
        _check(file, index, annotation, rows, classes)
        grouped[annotation["image_id"]].append((index, annotation))
    listing.shapes = [None] * len(listing.names)
    for image in content["images"]:
        if rows[image["id"]] >= 0:
            size = (int(image.get("height") or 0), int(image.get("width") or 0))
            listing.shapes[rows[image["id"]]] = _shapes(file, grouped[image["id"]], classes, size, joints_of)
    person = next((category for category in categories if category.get("keypoints")), {})
    joints = tuple(map(str, person.get("keypoints", ())))
    painted = any(shapes and shapes.regions for shapes in listing.shapes)
    listing.meaning |= {"box_names": names, "keypoint_names": joints}
    listing.meaning |= {"keypoint_skeleton": _skeleton(file, person, len(joints))}
    listing.meaning |= {"mask_names": ("background", *names)} if painted else {}
    listing.label_file = str(file)
    listing.stamp = [listing.stamp, file.stat().st_size, file.stat().st_mtime_ns]
    return listing


def _read(file: Path) -> dict[str, list[dict]]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"the label file '{file}' is not JSON that can be read: {error}") from error
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"the label file '{file}' is no COCO file: it has no list '{key}'")
        if key != "annotations" and not all("id" in entry for entry in entries):
            raise UserError(f"the label file '{file}' has an entry without 'id' in its list '{key}'")
    return content


def _skeleton(file: Path, category: dict, joints: int) -> tuple[tuple[int, int], ...]:
    """Return the pairs of joints, from 0, that a category's lines connect (COCO counts from 1)."""
    lines = category.get("skeleton") or ()
    numbers = range(1, joints + 1)
    for line in lines:
        if not (isinstance(line, list) and len(line) == 2 and all(end in numbers for end in line)):
            raise UserError(f"the label file '{file}', category '{category.get('name')}': the skeleton has the line "
                            f"{line!r}, and a line is two joints, numbered 1 to {joints}")  # fmt: skip
    return tuple((one - 1, other - 1) for one, other in lines)


def _rows(listing: Listing, file: Path, images: list[dict]) -> dict[Any, int]:
    find, refused = lookup(listing), {entry.name for entry in listing.quarantined}
    rows, missing = {}, []
    for image in images:
        name = str(image.get("file_name", ""))
        row = find(name)
        if row is None and name not in refused:
            missing.append(name)
        rows[image["id"]] = -1 if row is None else row
    if missing:
        raise UserError(
            f"the label file '{file}' names {len(missing):,} files that are not in '{listing.source}', "
            f"the first: '{missing[0]}'.{nearest(missing[0], listing.names[:5000])} "
            "Add the files, or remove the entries"
        )
    return rows


def _check(file: Path, index: int, annotation: dict, rows: dict, classes: dict) -> None:
    where = _where(file, index, annotation)
    if annotation.get("image_id") not in rows:
        raise UserError(f"{where}: image_id {annotation.get('image_id')!r} is none of its images")
    if annotation.get("category_id") not in classes:
        raise UserError(f"{where}: category_id {annotation.get('category_id')!r} is none of its categories")
    box = annotation.get("bbox")
    finite = isinstance(box, list) and all(isinstance(v, (int, float)) and np.isfinite(v) for v in box)
    if not finite or len(box or ()) != 4:
        raise UserError(f"{where}: bbox must be four numbers x, y, width, height, not {str(box)[:60]}")


def _shapes(
    file: Path, annotations: list[tuple[int, dict]], classes: dict, size: tuple[int, int], joints: dict[Any, int]
) -> Shapes:
    boxes, points, regions, ids = [], [], [], []
    for index, annotation in annotations:
        label = classes[annotation["category_id"]]
        region, crowd = annotation.get("segmentation"), bool(annotation.get("iscrowd"))
        if region:
            regions.append((_CROWD if crowd else label, region))
        if not crowd:
            x, y, width, height = map(float, annotation["bbox"])
            boxes.append((x, y, x + width, y + height, label))
            points.append(_keypoints(_where(file, index, annotation), annotation, joints, size))
            ids.append(str(annotation.get("id", index)))
    return Shapes(size, np.array(boxes, dtype=np.float64).reshape(-1, 5), _stacked(points), regions, ids)


def _where(file: Path, index: int, annotation: dict) -> str:
    return f"the label file '{file}', annotation {index} (id {annotation.get('id', '?')})"


def _keypoints(where: str, annotation: dict, joints: dict[Any, int], size: tuple[int, int]) -> np.ndarray | None:
    """Return K×3, checked: as many joints as the category names, visibilities of 0, 1 or 2, inside the image."""
    values, wanted = annotation.get("keypoints"), joints[annotation["category_id"]]
    if not values:
        return None
    try:
        points = np.array(values, dtype=np.float64).reshape(-1, 3)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: keypoints must be x, y, visibility of each joint") from error
    if wanted and len(points) != wanted:
        raise UserError(f"{where}: it has {len(points)} keypoints, and its category names {wanted}: give 0, 0, 0 for "
                        "a joint that is not there")  # fmt: skip
    (height, width), seen = size, points[:, 2] > 0
    strange = next((v for v in points[:, 2].tolist() if v not in (0, 1, 2)), None)
    if strange is not None:
        raise UserError(f"{where}: a keypoint has the visibility {strange:g}, and 0 (not labelled), 1 (hidden) or "
                        "2 (seen) is expected")  # fmt: skip
    limits = (width, height) if width and height else (np.inf, np.inf)
    outside = points[seen & ~((points[:, :2] >= 0) & (points[:, :2] <= limits)).all(1)]
    if len(outside):
        x, y = outside[0, :2]
        raise UserError(f"{where}: a keypoint lies at ({x:g}, {y:g}), outside its image of {width}×{height} pixels "
                        "(width×height): move it, or give it the visibility 0")  # fmt: skip
    return points


def _stacked(points: list[np.ndarray | None]) -> np.ndarray | None:
    """Return keypoints as M×K×3, with objects without keypoints as invisible ones."""
    joints = max((len(entry) for entry in points if entry is not None), default=0)
    if not joints:
        return None
    stacked = np.zeros((len(points), joints, 3))
    for row, entry in enumerate(points):
        if entry is not None:
            stacked[row, : len(entry)] = entry
    return stacked


def paint(shapes: Shapes, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each pixel (uint8; 0 background, 255 crowd) and the object it belongs to (int16; from 1).

    Raises:
        ValueError: a region is not of the image's size, or cannot be read.
    """
    mask, instance = np.zeros((height, width), np.uint8), np.zeros((height, width), np.int16)
    regions = [(label, region_mask(region, height, width)) for label, region in shapes.regions]
    order = sorted(range(len(regions)), key=lambda i: (regions[i][0] != _CROWD, -int(regions[i][1].sum())))
    for number in order:
        label, inside = regions[number]
        if label > _CROWD:
            raise ValueError(f"a mask holds at most {_CROWD} categories")
        mask[inside] = 255 if label == _CROWD else label + 1
        instance[inside] = -1 if label == _CROWD else number + 1
    return mask, instance


def region_mask(region: Any, height: int, width: int) -> np.ndarray:
    """Return a COCO region as booleans H×W: polygons, or run lengths, plain or packed.

    Raises:
        ValueError: run lengths that do not fill exactly the image, or polygons of no numbers.
    """
    if isinstance(region, dict):
        counts = region.get("counts")
        lengths = _unpacked(counts) if isinstance(counts, (str, bytes)) else np.array(counts, dtype=np.int64)
        if list(region.get("size", ())) != [height, width] or (lengths < 0).any() or lengths.sum() != height * width:
            raise ValueError(f"a run-length mask does not fill its image of {width}×{height} pixels")
        values = np.arange(len(lengths)) % 2 == 1
        return np.repeat(values, lengths).reshape(width, height).T
    from faster_coco_eval.core import mask as rle

    polygons = [np.array(polygon, dtype=np.float64) for polygon in region]
    if any(p.ndim != 1 or len(p) < 6 or len(p) % 2 or not np.isfinite(p).all() for p in polygons):
        raise ValueError("a polygon must be a list of at least three points x, y")
    limit = np.array([width, height] * (max(map(len, polygons)) // 2))
    polygons = [p.clip(0, limit[: len(p)]) for p in polygons]  # what leaves the image would be painted outside of it
    return rle.decode(rle.merge(rle.frPyObjects([p.tolist() for p in polygons], height, width))).astype(bool)


def _unpacked(counts: str | bytes) -> np.ndarray:
    """Decode COCO's packed run lengths: five bits per character, lowest first; from the fourth on, each is stored as
    its difference from the length two before."""
    data = counts.encode() if isinstance(counts, str) else counts
    lengths: list[int] = []
    value = shift = 0
    for byte in data:
        bits = byte - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
        if shift > 40:
            raise ValueError("a run length is larger than any image")
    return np.array(lengths, dtype=np.int64)
