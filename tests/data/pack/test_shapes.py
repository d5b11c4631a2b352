"""Boxes and keypoints of users' images in the pixels of the canvas."""

from __future__ import annotations

import numpy as np
import torch

from rushlight.data.columns import unknown
from rushlight.data.pack.place import place
from rushlight.data.pack.shapes import shape_columns
from rushlight.data.sources.listing import Shapes


def columns(shapes: list[Shapes | None], fit: str = "squash") -> dict[str, torch.Tensor]:
    """On a canvas of 20×20, for images of 50×100."""
    to_original = torch.from_numpy(place(50, 100, (20, 20), fit).to_original)
    return shape_columns(shapes, to_original.expand(len(shapes), 2, 3), (20, 20))


def boxed(*boxes: tuple[float, ...], keypoints: np.ndarray | None = None) -> Shapes:
    return Shapes((50, 100), np.array(boxes, dtype=float).reshape(-1, 5), keypoints, [])


def test_boxes_move_with_the_image_and_are_padded() -> None:
    found = columns([boxed((10, 5, 50, 25, 3), (0, 0, 100, 50, 1)), boxed()])["boxes"]
    assert found.shape == (2, 2, 6)
    assert found[0].tolist() == [[2, 2, 10, 10, 3, 1], [0, 0, 20, 20, 1, 1]]
    assert not found[1].any()


def test_a_box_is_cut_at_the_edge_and_gone_beyond_it() -> None:
    """A crop keeps x from 25 to 75."""
    found = columns([boxed((10, 0, 50, 50, 0), (76, 0, 90, 50, 0))], "crop")["boxes"]
    assert found[0].tolist() == [[0, 0, 10, 20, 0, 1], [0] * 6]


def test_an_image_without_an_entry_is_unknown_and_one_with_none_is_empty() -> None:
    found = columns([None, boxed((0, 0, 10, 10, 0))])
    assert torch.equal(found["boxes"][:1], unknown("boxes", 1, 1, 6))
    assert "keypoints" not in found


def test_keypoints_outside_or_invisible_are_nothing() -> None:
    joints = np.array([[[50, 25, 2], [10, 25, 2], [50, 25, 0]]], dtype=float)
    found = columns([boxed((0, 0, 100, 50, 0), keypoints=joints), boxed((0, 0, 9, 9, 0)), None], "crop")["keypoints"]
    assert found[0, 0].tolist() == [[10, 10, 2], [0, 0, 0], [0, 0, 0]]
    assert not found[1].any()
    assert torch.equal(found[2:], unknown("keypoints", 1, 1, 3, 3))
