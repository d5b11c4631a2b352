"""Features that nobody trained: what any encoder must beat before it is worth its weight.

`statistics`: of each channel its mean, unbiased standard deviation, maximum and minimum. `Random`: RCF, relu(r + b)
and relu(−(r + b)) of random 3×3 filters' responses r (b = −1), averaged over the image (Rolf et al., 2021). MOSAIKS
draws the filters from patches of the data, whitened: with X the patches, each with its own mean subtracted and of unit
norm, and Σ = XᵀX/n, W = (Σ + 0.001 I)^(−1/2), filters X W Wᵀ: the official code multiplies twice.

Reference: Corley et al., "Revisiting pre-trained remote sensing model benchmarks", arXiv:2305.13456.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

PART = 16
"""Images whose responses are held at once: more do not fit a processor's cache."""


def statistics(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch four_channels"]:
    """Return mean, unbiased standard deviation, maximum and minimum of each channel, in this order."""
    pixels = images.flatten(2)
    return torch.cat([pixels.mean(2), pixels.std(2), pixels.amax(2), pixels.amin(2)], 1)


class Random(nn.Module):
    """Random convolutional features: the positive parts of responses, and their negative parts.

    Args:
        weight: the filters (n×channels×side×side).
        bias: added to the responses before they are split (so that the negative parts have −bias).
    """

    weight: Tensor

    def __init__(self, weight: Float[Tensor, "filters channels side side"], bias: float = -1.0):
        super().__init__()
        self.register_buffer("weight", weight)
        self.bias = bias

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch twice_filters"]:
        """Return spatial means of relu(r + bias) and relu(−(r + bias)), responses r without padding."""
        bias = torch.full((len(self.weight),), self.bias, dtype=images.dtype, device=images.device)
        return torch.cat([self._few(part, bias) for part in images.split(PART)])

    def _few(self, images: Tensor, bias: Tensor) -> Tensor:
        responses = F.conv2d(images, self.weight, bias)
        mean, positive = responses.mean((2, 3)), F.relu(responses).mean((2, 3))
        return torch.cat([positive, positive - mean], 1)  # relu(−x) = relu(x) − x


def rcf(channels: int = 3, filters: int = 256, side: int = 3, bias: float = -1.0, seed: int = 0) -> Random:
    """Return RCF with filters from the standard normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    return Random(torch.randn(filters, channels, side, side, generator=generator), bias)


def mosaiks(
    images: Float[Tensor, "n channels height width"],
    filters: int = 256,
    side: int = 3,
    bias: float = -1.0,
    seed: int = 0,
) -> Random:
    """Return RCF whose filters are whitened patches of the given (training) images, drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    n, channels, height, width = images.shape
    row, y, x = (
        torch.randint(high, (filters,), generator=generator) for high in (n, height - side + 1, width - side + 1)
    )
    offsets = torch.arange(side)
    ys, xs = (y[:, None] + offsets)[:, None, :, None], (x[:, None] + offsets)[:, None, None, :]
    patches = images[row[:, None, None, None], torch.arange(channels)[:, None, None], ys, xs]
    return Random(whiten(patches.flatten(1)).view_as(patches), bias)


def make(bank: Float[Tensor, "m channels height width"], *, seed: int = 0) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return each baseline by name, as a function of images; MOSAIKS draws its patches from the bank."""
    return {
        "image statistics": statistics,
        "RCF": rcf(bank.shape[1], seed=seed),
        "MOSAIKS": mosaiks(bank, seed=seed),
    }


def every(
    bank: Float[Tensor, "m channels height width"], *others: Float[Tensor, "n channels height width"], seed: int = 0
) -> dict[str, tuple[Tensor, ...]]:
    """Return each baseline's features of the bank and of the others, by name."""
    return {
        name: tuple(torch.cat([features(part) for part in images.split(250)]) for images in (bank, *others))
        for name, features in make(bank, seed=seed).items()
    }


def whiten(patches: Float[Tensor, "n dim"], floor: float = 1e-3) -> Float[Tensor, "n dim"]:
    """Return patches with their own mean subtracted, of unit norm, then multiplied twice by (Σ + floor·I)^(−1/2)."""
    values = patches.double()
    values = values - values.mean(1, keepdim=True)
    values = values / values.norm(dim=1, keepdim=True).clamp(min=1e-12)
    size, vectors = torch.linalg.eigh(values.T @ values / len(values))
    inverse_root = vectors @ torch.diag((size.clamp(min=0) + floor).rsqrt()) @ vectors.T
    return (values @ inverse_root @ inverse_root.T).to(patches.dtype)
