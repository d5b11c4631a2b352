"""What tests of views and policies share: generators, photos, and a count that is held to its share."""

from __future__ import annotations

import math

import torch
from skimage import data as photos


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photo_bytes(n: int = 8, size: tuple[int, int] = (24, 24)) -> torch.Tensor:
    image = torch.from_numpy(photos.chelsea()).permute(2, 0, 1)
    step = (image.shape[2] - size[1]) // n
    return torch.stack([image[:, 100 : 100 + size[0], k * step : k * step + size[1]] for k in range(n)])


def share(hits: torch.Tensor, expected: float) -> None:
    """A binomial count within 4.5 standard deviations: it fails once in 150,000 fixed seeds."""
    n = hits.numel()
    assert abs(hits.float().mean().item() - expected) < 4.5 * math.sqrt(expected * (1 - expected) / n) + 1e-9
