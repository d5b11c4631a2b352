"""Images as a worse camera takes them: blur, noise and loss of contrast, in severities from 1 to 5."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from rushlight.augment.ops import effects
from rushlight.measure.preprocessing import Unread, fingerprint

SEVERITIES, PART = 5, 500


def blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Blur with a Gaussian whose standard deviation is 1 % of the side per step of severity."""
    sigma = 0.012 * severity * min(images.shape[-2:])
    return effects.blur(images, torch.full((len(images),), max(sigma, 0.1)))


def noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of 0.04 of the range per step of severity."""
    grain = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    return (images + 0.04 * severity * grain).clamp(0, 1)


def contrast(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move values towards the image's own mean, by 16 % per step of severity."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (1 - 0.16 * severity) * (images - mean)


CORRUPTIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "contrast": contrast,
}


@dataclass(frozen=True)
class Corrupted:
    """Images corrupted part by part, at each reading, and the same way for the same seed.

    Attributes:
        kind: of `CORRUPTIONS`.

    Raises:
        KeyError: no such corruption. ValueError: a severity outside 1 … 5.
    """

    images: Tensor | Unread
    kind: str
    severity: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in CORRUPTIONS:
            raise KeyError(self.kind)
        if not 1 <= self.severity <= SEVERITIES:
            raise ValueError(f"the severity lies between 1 and {SEVERITIES}, not at {self.severity}")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape)

    @property
    def digest(self) -> str:
        told = f"{self.kind} {self.severity} {self.seed} {fingerprint(self.images)}"
        return hashlib.sha256(told.encode()).hexdigest()

    def split(self, size: int, /) -> Iterator[UInt8[Tensor, "part 3 height width"]]:
        """Yield at most `size` corrupted images at a time; the noise does not depend on how they are divided."""
        generator = torch.Generator().manual_seed(self.seed)
        for part in self.images.split(PART):
            values = CORRUPTIONS[self.kind](part.float() / 255, self.severity, generator)
            yield from (255 * values).round().clamp(0, 255).byte().split(size)
