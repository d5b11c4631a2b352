"""COCO's form of labels and predictions, and its scores by faster-coco-eval."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.data.dataset import Dataset

FILE = "predictions.json"


def image(data: Dataset, row: int, name: str) -> dict[str, Any]:
    """Return an image's entry, with the size of the user's own file."""
    height, width = data.read("size", row).tolist() if "size" in data else (data.height, data.width)
    return {"id": row + 1, "file_name": name, "width": width, "height": height}


def boxes(data: Dataset, row: int, found: Float[Tensor, "n 6"]) -> list[dict[str, Any]]:
    """Return the annotations of an image's boxes (x1, y1, x2, y2, class, score), in the pixels of the user's file."""
    corners = inside(data, row, own_pixels(data, row, found[:, :4].reshape(-1, 2, 2)))
    entries = []
    for (low, high), (label, score) in zip(corners.tolist(), found[:, 4:6].tolist(), strict=True):
        sides = [high[0] - low[0], high[1] - low[1]]
        if min(sides) > 0:
            entries.append({"image_id": row + 1, "category_id": int(label) + 1, "bbox": rounded([*low, *sides]),
                            "area": sides[0] * sides[1], "iscrowd": 0, "score": score})  # fmt: skip
    return entries


def own_pixels(data: Dataset, row: int, points: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any 2"]:
    """Return points of a packed image in the pixels of the user's own."""
    if "to_original" not in data:
        return points
    affine = data.read("to_original", row).to(points.dtype)
    return points @ affine[:, :2].T + affine[:, 2]


def inside(data: Dataset, row: int, points: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any 2"]:
    """Return points moved into the user's own image."""
    height, width = data.read("size", row).tolist() if "size" in data else (data.height, data.width)
    return torch.minimum(points.clamp(min=0), torch.tensor([width, height], dtype=points.dtype))


def rounded(values: list[float]) -> list[float]:
    """Return coordinates to a hundredth of a pixel."""
    return [round(value, 2) for value in values]


def dataset(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], categories: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a COCO data set, its annotations numbered from 1."""
    numbered = [{"id": number, **entry} for number, entry in enumerate(annotations, 1)]
    return {"images": images, "annotations": numbered, "categories": categories}


def evaluated(
    images: list[dict[str, Any]],
    truth: list[dict[str, Any]],
    guesses: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    kind: str,
    **settings: Any,
) -> Any:
    """Return faster-coco-eval's evaluation, accumulated and summarised."""
    from faster_coco_eval import COCO, COCOeval_faster

    labels = COCO(dataset(images, [{"iscrowd": 0, **entry} for entry in truth], categories))
    found = labels.loadRes(guesses) if guesses else COCO(dataset(images, [], categories))
    done = COCOeval_faster(labels, found, kind, print_function=lambda *_: None, **settings)
    done.evaluate()
    done.accumulate()
    done.summarize()
    return done
