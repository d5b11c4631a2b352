"""Clouds of points on the surfaces of solids, each with its own number of points, turned at random: ragged data."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN, Ragged
from rushlight.data.dataset import Dataset, Info

SOLIDS = ("sphere", "cube", "cylinder", "cone")


def clouds(
    n: int, *, points: tuple[int, int] = (64, 256), noise: float | int = 0.02, seed: int = 0, test_share: float = 0.25
) -> Dataset:
    """Return n clouds, `class` the solid, in turn; `points` (ragged) x, y, z within about [−1, 1]³.

    Args:
        points: fewest and most of a cloud; the number is drawn uniformly.
        noise: standard deviation that is added to each coordinate.

    Raises:
        UserError: fewer than one point.
    """
    few, most = points
    if not 1 <= few <= most:
        raise UserError(f"points must be (fewest, most), from 1, not {points}")
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % len(SOLIDS)
    lengths = torch.randint(few, most + 1, (n,), generator=generator).tolist()
    rows = [
        _turned(_surface(SOLIDS[kind], length, generator), generator)
        + noise * torch.randn(length, 3, generator=generator)
        for kind, length in zip(label.tolist(), lengths, strict=True)
    ]
    test = torch.rand(n, generator=generator) < test_share
    fold = torch.where(test, TEST, TRAIN).to(torch.int8)
    cloud = Ragged.of(rows) if rows else Ragged(torch.zeros(0, 3), torch.zeros(1, dtype=torch.int64))
    info = Info(source="solids", class_names=SOLIDS, settings={"seed": seed})
    return Dataset({"points": cloud, "class": label, "fold": fold}, info)


def _surface(solid: str, count: int, generator: torch.Generator) -> Float[Tensor, "count 3"]:
    """Draw points on a solid's surface."""
    if solid == "sphere":
        directions = torch.randn(count, 3, generator=generator)
        return directions / directions.norm(dim=1, keepdim=True)
    if solid == "cube":
        inside = 1.6 * torch.rand(count, 3, generator=generator) - 0.8
        side = torch.randint(6, (count,), generator=generator)
        inside[torch.arange(count), side // 2] = 0.8 * (2.0 * (side % 2) - 1)
        return inside
    angle = 2 * torch.pi * torch.rand(count, generator=generator)
    height = torch.rand(count, generator=generator)
    if solid == "cone":
        height = height.sqrt()  # so that the points lie evenly
    radius = 0.7 * (height if solid == "cone" else torch.ones(count))
    return torch.stack([radius * angle.cos(), radius * angle.sin(), 1.6 * height - 0.8], 1)


def _turned(points: Float[Tensor, "count 3"], generator: torch.Generator) -> Float[Tensor, "count 3"]:
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    return points @ rotation.T
