"""Boxes and keypoints in the pixels of the canvas."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rushlight.data.columns import unknown
from rushlight.data.sources.listing import Shapes


def shape_columns(shapes: list[Shapes | None], to_original: Tensor, canvas: tuple[int, int]) -> dict[str, Tensor]:
    """Return boxes and keypoints of all images in canvas pixels, padded to equal numbers.

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
        if entry.boxes_known:
            columns["boxes"][row] = 0
            columns["boxes"][row, : len(entry.boxes)] = _boxes(entry.boxes, scale, shift, canvas)
        if joints:
            columns["keypoints"][row] = 0
            if entry.keypoints is not None:
                points = _points(entry.keypoints, scale, shift, canvas)
                columns["keypoints"][row, : len(points), : points.shape[1]] = points
    return columns


def unusable(shapes: Shapes, height: int, width: int) -> list[str]:
    """Return what is wrong with each box that shows nothing of its image: of no area, or outside of it."""
    x1, y1, x2, y2 = shapes.boxes[:, :4].T
    flat = (x2 <= x1) | (y2 <= y1)
    away = ~flat & ((x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height))
    said = {True: f"lies outside its {width}×{height} pixels", False: "has no area (a width or height of 0 or less)"}
    return [
        f"the box of annotation {shapes.ids[i] if i < len(shapes.ids) else i} {said[bool(away[i])]} and is left out"
        for i in np.flatnonzero(flat | away).tolist()
    ]


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
