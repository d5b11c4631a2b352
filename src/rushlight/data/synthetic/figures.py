"""Stick figures with exact keypoints: a head, two hands and two feet of different colours, in any pose."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset, Info

JOINTS = ("head", "left hand", "right hand", "left foot", "right foot")
REST = ((0.0, -0.5), (-0.45, -0.15), (0.45, -0.15), (-0.25, 0.5), (0.25, 0.5))
"""Where the joints are before a figure moves, in its heights from its middle."""
COLOURS = ((0.95, 0.85, 0.3), (0.95, 0.25, 0.2), (0.25, 0.45, 0.95), (0.9, 0.4, 0.85), (0.25, 0.9, 0.85))


def compose(train: int, test: int, *, size: int = 48, most: int = 1, seed: int = 0) -> Dataset:
    """Return images with figures, and the columns `keypoints`, `boxes` and `fold`.

    Args:
        most: figures of an image; one to so many, each in its own part of it.
    """
    n, generator = train + test, torch.Generator().manual_seed(seed)
    joints, there = _posed(n, size, most, generator)
    visible = there[..., None].expand(-1, -1, len(JOINTS))
    keypoints = torch.cat([joints, 2.0 * torch.ones_like(joints[..., :1])], -1) * visible[..., None]
    boxes = torch.cat([joints.amin(2) - 2, joints.amax(2) + 2, torch.zeros(n, most, 1), torch.ones(n, most, 1)], -1)
    columns = {
        "image": _painted(joints, there, size, generator),
        "keypoints": keypoints,
        "boxes": boxes.clamp(0, size) * there[..., None],
        "fold": torch.tensor([TRAIN] * train + [TEST] * test, dtype=torch.int8),
    }
    info = Info(source="figures", box_names=("figure",), keypoint_names=JOINTS, keypoint_pairs=(), licence="CC0")
    return Dataset(columns, info)  # no pairs: a left hand is red, and would be blue in the mirror


def _posed(
    n: int, size: int, most: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n figures joints 2"], Bool[Tensor, "n figures"]]:
    """Return the joints' places in pixels, and which figures there are."""
    room = size / most
    height = room * (0.6 + 0.3 * torch.rand(n, most, generator=generator))
    moved = torch.tensor(REST) + 0.12 * (2 * torch.rand(n, most, len(JOINTS), 2, generator=generator) - 1)
    angle = 0.5 * (2 * torch.rand(n, most, generator=generator) - 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2))
    x = room * (torch.arange(most) + 0.5) + 0.1 * room * (2 * torch.rand(n, most, generator=generator) - 1)
    y = size / 2 + (size - room) / 2 * (2 * torch.rand(n, most, generator=generator) - 1)
    centre = torch.stack([x, y], -1)
    joints = (moved @ turn.mT) * height[..., None, None] + centre[:, :, None]
    there = torch.arange(most) < 1 + torch.randint(most, (n, 1), generator=generator)
    return joints.clamp(1, size - 1), there


def _painted(joints: Tensor, there: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return noise with a thin grey line from each figure's middle to its joints, which are coloured discs."""
    n, most, k = joints.shape[:3]
    coarse = torch.rand(n, 3, 6, 6, generator=generator) * 0.5
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    at = torch.stack([x, y], -1)
    for figure in range(most):
        shown = there[:, figure, None, None]
        middle = joints[:, figure].mean(1)
        for joint in range(k):
            line = _distance(at, middle, joints[:, figure, joint]) < 0.8
            image = torch.where((line & shown)[:, None], 0.7, image)
        for joint in range(k):
            disc = (at - joints[:, figure, joint, None, None]).norm(dim=-1) < max(1.6, size / 24)
            image = torch.where((disc & shown)[:, None], torch.tensor(COLOURS[joint])[:, None, None], image)
    return (image * 255).round().byte()


def _distance(at: Float[Tensor, "h w 2"], a: Float[Tensor, "n 2"], b: Float[Tensor, "n 2"]) -> Float[Tensor, "n h w"]:
    """Return the distance of each pixel from the line between two points."""
    along = (b - a)[:, None, None]
    share = ((at - a[:, None, None]) * along).sum(-1) / (along**2).sum(-1).clamp(min=1e-6)
    return (at - a[:, None, None] - share.clamp(0, 1)[..., None] * along).norm(dim=-1)
