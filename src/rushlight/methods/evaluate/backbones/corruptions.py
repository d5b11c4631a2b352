"""Images as a worse camera takes them: blur, noise and loss of contrast, in severities from 1 to 5."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import UInt8
from torch import Tensor

from rushlight.augment.ops import effects

SEVERITIES = 5


def blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Gaussian blur; its standard deviation is 1 % of the side a severity."""
    sigma = 0.012 * severity * min(images.shape[-2:])
    return effects.blur(images, torch.full((len(images),), max(sigma, 0.1)))


def noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Gaussian noise of 0.04 of the range a severity."""
    grain = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    return (images + 0.04 * severity * grain).clamp(0, 1)


def contrast(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Values drawn towards the image's own mean, by 16 % a severity."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (1 - 0.16 * severity) * (images - mean)


CORRUPTIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "contrast": contrast,
}


def corrupt(
    images: UInt8[Tensor, "n 3 height width"], kind: str, *, severity: int = 3, seed: int = 0
) -> UInt8[Tensor, "n 3 height width"]:
    """Bytes corrupted by one of `CORRUPTIONS`, the same way for the same seed.

    Raises:
        KeyError: no such corruption. ValueError: a severity outside 1 … 5.
    """
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"the severity lies between 1 and {SEVERITIES}, not at {severity}")
    generator = torch.Generator().manual_seed(seed)
    parts = [CORRUPTIONS[kind](part.float() / 255, severity, generator) for part in images.split(500)]
    return torch.cat([(255 * part).round().clamp(0, 255).byte() for part in parts])
