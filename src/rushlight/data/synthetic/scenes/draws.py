"""Random numbers of a scene, each from a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor

Number = float | int


def seeded(*numbers: int) -> torch.Generator:
    """Return a generator for this combination of numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63)
    return torch.Generator().manual_seed(mixed)


def uniform(generator: torch.Generator, low: Number, high: Number, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def integers(shape: int | tuple[int, ...], high: int, generator: torch.Generator) -> Tensor:
    return torch.randint(high, (shape,) if isinstance(shape, int) else shape, generator=generator)
