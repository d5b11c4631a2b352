"""Styles in the Fourier domain: low frequencies' amplitudes are how an image looks, phases are what it shows.

Batch styles standardization (arXiv:2303.06088) gives all images of a batch the low-frequency amplitudes of one of them,
so that nothing can be told from style within the batch; Fourier augmentation gives each image those of another.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.core.distributed import all_sum, rank, world_size


def window(area: float, height: int, width: int) -> tuple[int, int]:
    """Return the half-widths (rows, columns) of a window about the mean with this share (0 … 1) of all frequencies."""
    rows, columns = (min(int(math.sqrt(area) * side / 2), (side - 1) // 2) for side in (height, width))
    return rows, columns


def restyle(
    images: Float[Tensor, "batch channels height width"],
    reference: Float[Tensor, "others channels height width"],
    half: tuple[int, int],
) -> Float[Tensor, "batch channels height width"]:
    """Return the images with the reference's amplitudes in the window [−half, half] of frequencies, phases unchanged.

    Args:
        reference: one image for all, or one for each.
        half: half-widths of the window (rows, columns), so that it has an odd number of frequencies and is symmetric
            about the mean, as a real image's spectrum is; (0, 0) exchanges the channels' means alone.

    Values may leave [0, 1]. Computed in float32 at least.
    """
    size, (rows, columns) = images.shape[-2:], half
    with torch.autocast(images.device.type, enabled=False):
        images, reference = (x.float() if x.dtype.itemsize < 4 else x for x in (images, reference))
        spectrum, style = torch.fft.rfft2(images), torch.fft.rfft2(reference)
        kept = [slice(0, rows + 1), slice(size[0] - rows, size[0])] if rows else [slice(0, 1)]
        for part in kept:
            place = (..., part, slice(0, columns + 1))
            spectrum[place] = torch.polar(style[place].abs().expand_as(spectrum[place]), spectrum[place].angle())
        return torch.fft.irfft2(spectrum, s=size)


def standardise(
    images: Float[Tensor, "batch channels height width"],
    *,
    area: tuple[float, float],
    generator: torch.Generator,
) -> Float[Tensor, "batch channels height width"]:
    """Return all images in the style of one image, drawn from those of all processes; clipped to [0, 1].

    Args:
        area: range of the window's share of all frequencies.
        generator: the same one on every process.
    """
    draw = torch.rand(2, generator=generator, device=generator.device).tolist()
    half = window(area[0] + (area[1] - area[0]) * draw[0], images.shape[-2], images.shape[-1])
    row = int(draw[1] * len(images) * world_size())
    return restyle(images, joined_row(images, row)[None], half).clamp_(0, 1)


def exchange(
    images: Float[Tensor, "batch channels height width"],
    *,
    area: tuple[float, float],
    generator: torch.Generator,
) -> Float[Tensor, "batch channels height width"]:
    """Apply Fourier augmentation: give each image the style of a random one of this process's; clip to [0, 1]."""
    draw = torch.rand((), generator=generator, device=generator.device).item()
    half = window(area[0] + (area[1] - area[0]) * draw, images.shape[-2], images.shape[-1])
    others = torch.randint(len(images), (len(images),), generator=generator, device=generator.device)
    return restyle(images, images[others], half).clamp_(0, 1)


def joined_row(images: Float[Tensor, "batch *shape"], row: int) -> Float[Tensor, "*shape"]:
    """Return one row of the joined batch, on every process; row j belongs to process j modulo their number."""
    if world_size() == 1:
        return images[row]
    own = images[row // world_size()] if row % world_size() == rank() else torch.zeros_like(images[0])
    return all_sum(own.detach())
