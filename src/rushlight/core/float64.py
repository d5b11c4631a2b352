"""Double precision on devices that lack it: Apple's GPUs compute in float32 at most."""

from __future__ import annotations

import torch
from torch import Tensor

LACKING = ("mps",)
"""Kinds of device without float64."""


def has_float64(device: torch.device | str) -> bool:
    """Return whether a device computes in float64."""
    return torch.device(device).type not in LACKING


def where_float64(values: Tensor) -> Tensor:
    """Return the tensor on a device that has float64: where it is, or as a copy on the CPU."""
    return values if has_float64(values.device) else values.cpu()


def double(values: Tensor) -> Tensor:
    """Return the tensor in float64; on the CPU, where its device has none."""
    return where_float64(values).double()


def drawing(generator: torch.Generator) -> torch.Generator:
    """Return a generator that draws float64: this one, or one on the CPU that is seeded by this one."""
    if has_float64(generator.device):
        return generator
    seed = torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))
