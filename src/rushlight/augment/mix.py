"""Mixing images of a batch with each other: mixup and cutmix, and the same for their targets.

A `Mix` says for each image which partner it gets and how much of itself is left, pixel by pixel or as one
share. It mixes images and class targets by shares, and masks by pixels, so that image and target always
agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rushlight.augment.ops.effects import inside_boxes
from rushlight.core import float64


@dataclass(frozen=True)
class Mix:
    """How the images of a batch are mixed.

    Attributes:
        partner: the row of each image's partner.
        share: how much of the image itself is left, in [0, 1] (cutmix: the exact share of its pixels).
        pasted: cutmix's pixels that come from the partner; None for mixup.
    """

    partner: Int[Tensor, "batch"]
    share: Float[Tensor, "batch"]
    pasted: Bool[Tensor, "batch height width"] | None = None

    def images(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the mixed images."""
        others = images[self.partner]
        if self.pasted is None:
            return torch.lerp(others, images, self.share.to(images.dtype)[:, None, None, None])
        weight = self.pasted[:, None].to(images.dtype)
        return images * (1 - weight) + others * weight

    def targets(self, targets: Float[Tensor, "batch *any"]) -> Float[Tensor, "batch *any"]:
        """Return the probabilities (or one-hot classes) of whole images, mixed by their shares."""
        share = self.share.to(targets.dtype).view(-1, *[1] * (targets.ndim - 1))
        return torch.lerp(targets[self.partner], targets, share)

    def masks(
        self, masks: Shaped[Tensor, "batch *channels height width"]
    ) -> Shaped[Tensor, "batch *channels height width"]:
        """Return values that belong to pixels (masks, weights, pseudo-labels), cut as the images are.

        Raises:
            ValueError: after mixup, where no pixel has one class.
        """
        if self.pasted is None:
            raise ValueError("mixup blends pixels: it has no mask; mix probabilities with `targets`")
        pasted = self.pasted.view(len(self.pasted), *[1] * (masks.ndim - 3), *self.pasted.shape[1:])
        return torch.where(pasted, masks[self.partner], masks)


def mixup(n: int, *, alpha: float = 1.0, generator: torch.Generator, one_share: bool = False) -> Mix:
    """Blend each image with another one; the share is drawn from Beta(alpha, alpha) (mixup,
    arXiv:1710.09412).

    Args:
        one_share: one share for the whole batch, as in the paper's code, instead of one an image.
    """
    share = beta(alpha, 1 if one_share else n, generator)
    return Mix(_partners(n, generator), share.expand(n).clone())


def cutmix(
    n: int,
    size: tuple[int, int],
    *,
    alpha: float = 1.0,
    generator: torch.Generator,
    area: tuple[float, float] | None = None,
    ratio: tuple[float, float] = (1.0, 1.0),
) -> Mix:
    """Paste a box of another image into each image of (height, width) `size` (CutMix, arXiv:1905.04899).

    The box has the image's proportions, times a factor from `ratio` (width by height, on a log scale), and a
    centre anywhere in the image; the share counts the pixels that are really left.

    Args:
        alpha: the pasted area's share is 1 − λ with λ from Beta(alpha, alpha), unless
        area: gives the range it is drawn from evenly (dense tasks use (0.02, 0.4) with ratio (0.3, 1 / 0.3)).
    """
    partner = _partners(n, generator)
    draw = torch.rand(n, 4, generator=generator, device=generator.device)
    pasted_area = 1 - beta(alpha, n, generator) if area is None else area[0] + (area[1] - area[0]) * draw[:, 0]
    stretch = (ratio[0] * (ratio[1] / ratio[0]) ** draw[:, 1]).sqrt()
    height, width = size
    extent = torch.stack([pasted_area.sqrt() * stretch * width, pasted_area.sqrt() / stretch * height], 1)
    centre = draw[:, 2:] * torch.tensor([width, height], device=draw.device)
    corner = (centre - extent / 2).round()
    pasted = inside_boxes(torch.cat([corner, corner + extent.round()], 1), height, width)
    return Mix(partner, 1 - pasted.flatten(1).float().mean(1), pasted)


def beta(alpha: float, n: int, generator: torch.Generator) -> Float[Tensor, "n"]:
    """Draw from Beta(alpha, alpha), alpha > 0, with a generator (`torch.distributions` takes none)."""
    own = float64.drawing(generator)
    concentration = torch.full((2, n), alpha, dtype=torch.float64, device=own.device)
    gamma = torch._standard_gamma(concentration, generator=own)
    # With a tiny alpha both draws may underflow (to the smallest number, not 0); such a Beta is a fair coin.
    coin = torch.rand(n, generator=own, device=own.device, dtype=torch.float64) < 0.5
    drawn = torch.where(gamma.amax(0) > 1e-300, gamma[0] / gamma.sum(0), coin.double())
    return drawn.float().to(generator.device)


def _partners(n: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator, device=generator.device)
