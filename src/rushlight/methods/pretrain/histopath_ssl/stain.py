"""Stains of histology slides: colour spaces in which they are simple, and random changes of them, in whole batches.

A stain varies by laboratory, scanner and day, and means nothing. RandStainNA (Shen et al., MICCAI 2022,
arXiv:2206.12694) gives each image the channel means and deviations of a random, plausible slide of the training set;
augmentation in HED space (Tellez et al., 2019, arXiv:1902.06543) scales and shifts each stain's concentration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rushlight.data.dataset import Reader

Space = Literal["lab", "hed"]
Distribution = Literal["normal", "laplace", "uniform"]

_RGB_FROM_HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=torch.float64)
_XYZ_FROM_RGB = torch.tensor(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
    dtype=torch.float64,
)
_WHITE = torch.tensor([0.95047, 1.0, 1.08883], dtype=torch.float64)
_LAB_ENDS = ((0, 100), (-128, 127), (-128, 127))
_DARKEST = 1e-6
"""Below this a value has no density: HED's unit is the density divided by ln(1/10⁻⁶)."""


def _mixed(images: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", matrix.to(images), images)


def rgb_to_hed(
    images: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Return concentrations of hematoxylin, eosin and DAB of RGB in [0, 1] (Ruifrok's matrix, as in scikit-image's
    `rgb2hed`)."""
    return _unmixed(images).clamp(min=0)


def _unmixed(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Return concentrations without a floor: what Ruifrok's stains do not explain is negative; the inverse is exact."""
    density = images.clamp(min=_DARKEST).log() / torch.tensor(_DARKEST).log()
    return _mixed(density, _RGB_FROM_HED.inverse().T)


def hed_to_rgb(
    stains: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Return RGB in [0, 1] of concentrations, as scikit-image's `hed2rgb`."""
    density = _mixed(stains, _RGB_FROM_HED.T) * torch.tensor(_DARKEST).log()
    return density.exp().clamp(0, 1)


def rgb_to_lab(
    images: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Return CIE Lab (D65; L from 0 to 100) of sRGB in [0, 1]."""
    linear = torch.where(images > 0.04045, ((images.clamp(min=0) + 0.055) / 1.055) ** 2.4, images / 12.92)
    xyz = _mixed(linear, _XYZ_FROM_RGB) / _WHITE.to(images).view(3, 1, 1)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-12) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab_to_rgb(
    lab: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Return sRGB, clipped to [0, 1], of CIE Lab."""
    y = (lab[:, 0] + 16) / 116
    f = torch.stack([lab[:, 1] / 500 + y, y, (y - lab[:, 2] / 200).clamp(min=0)], 1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787) * _WHITE.to(lab).view(3, 1, 1)
    linear = _mixed(xyz, _XYZ_FROM_RGB.inverse())
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=1e-12) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1)


TO = {"lab": rgb_to_lab, "hed": _unmixed}
FROM = {"lab": lab_to_rgb, "hed": hed_to_rgb}


@dataclass(frozen=True)
class Statistics:
    """How the images of a training set are stained: of each channel the mean and deviation, over images, of the images'
    means and of their deviations.

    Attributes:
        space: of the channels. means, deviations: rows mean and deviation, columns channels.
    """

    space: Space
    means: Float[Tensor, "2 3"]
    deviations: Float[Tensor, "2 3"]

    @classmethod
    def of(cls, images: UInt8[Tensor, "n 3 height width"] | Reader, space: Space = "lab") -> Statistics:
        """Measure the statistics on images, block by block."""
        found = [_moments(TO[space](part.float() / 255)) for part in images.split(256)]
        mean, std = (torch.cat(each) for each in zip(*found, strict=True))
        return cls(space, *(torch.stack([each.mean(0), each.std(0, unbiased=False)]) for each in (mean, std)))


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean((2, 3)), values.std((2, 3), unbiased=False)


def restain(
    images: Float[Tensor, "batch 3 height width"],
    statistics: Statistics,
    *,
    probability: float = 1.0,
    spread: float = 0.0,
    distribution: Distribution = "normal",
    generator: torch.Generator,
) -> Float[Tensor, "batch 3 height width"]:
    """Apply RandStainNA: give images a virtual slide's channel means and deviations, x′ = (x − mean)·d/std + a.

    Args:
        probability: of each image.
        spread: the virtual slides' deviations are (1 + spread) times the measured ones (−0.3 in its example).
        distribution: of a and d, as its code draws them: `laplace` takes the deviation for its scale, so it is √2 times
            as wide; `uniform` reaches three deviations to either side and ignores `spread`.

    A deviation d that is drawn below 0 counts as 0: it would mirror the contrast. Lab ends where 8 bits of it end.
    """
    values = TO[statistics.space](images)
    draw = _drawn(distribution, (2, len(images), 3), generator)
    wide = 1.0 if distribution == "uniform" else 1 + spread
    target, contrast = (
        table[0].to(draw) + draw[i] * table[1].to(draw) * wide
        for i, table in enumerate((statistics.means, statistics.deviations))
    )
    mean, std = _moments(values)
    factor = contrast.clamp(min=0) / std.clamp(min=1e-4)
    changed = (values - mean[..., None, None]) * factor[..., None, None] + target[..., None, None]
    if statistics.space == "lab":
        changed = torch.stack([channel.clamp(*ends) for channel, ends in zip(changed.unbind(1), _LAB_ENDS)], 1)
    drawn = torch.rand(len(images), generator=generator, device=images.device) < probability
    return torch.where(drawn[:, None, None, None], FROM[statistics.space](changed), images)


def _drawn(distribution: Distribution, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    device = generator.device
    if distribution == "normal":
        return torch.randn(shape, generator=generator, device=device)
    even = 2 * torch.rand(shape, generator=generator, device=device) - 1
    if distribution == "uniform":
        return 3 * even
    return -even.sign() * (1 - even.abs()).clamp(min=1e-12).log()  # Laplace of scale 1


def jitter_hed(
    images: Float[Tensor, "batch 3 height width"],
    *,
    strength: float = 0.05,
    probability: float = 1.0,
    generator: torch.Generator,
) -> Float[Tensor, "batch 3 height width"]:
    """Scale each stain's concentration by 1 ± strength, and shift it by up to ± strength/10."""
    even = 2 * torch.rand(2, len(images), 3, 1, 1, generator=generator, device=images.device) - 1
    stains = _unmixed(images) * (1 + strength * even[0]) + 0.1 * strength * even[1]
    drawn = torch.rand(len(images), generator=generator, device=images.device) < probability
    return torch.where(drawn[:, None, None, None], hed_to_rgb(stains), images)
