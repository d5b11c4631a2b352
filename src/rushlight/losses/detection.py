"""Losses and targets of what is found at places: heat maps of centres, and boxes around them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gaussians(
    at: Float[Tensor, "2 h w"],
    centre: Float[Tensor, "batch slots 2"],
    sigma: Float[Tensor, "batch slots 2"],
    there: Bool[Tensor, "batch slots"],
) -> Float[Tensor, "batch slots h w"]:
    """Return a Gaussian bump at each centre, 1 at the cell nearest to it; 0 for slots that hold nothing.

    Args:
        at: the cells' centres (x, y), in pixels.
    """
    offset = at - centre[..., None, None]  # batch × slots × 2 × h × w
    bump = (-(offset**2 / (2 * sigma[..., None, None] ** 2)).sum(2)).exp()
    nearest = (offset**2).sum(2).flatten(2).argmin(2, keepdim=True)
    bump = bump.flatten(2).scatter(2, nearest, 1.0).view_as(bump)
    return bump * there[..., None, None]


def centre_focal(
    logits: Float[Tensor, "batch *rest"], heat: Float[Tensor, "batch *rest"], *, alpha: float = 2.0, beta: float = 4.0
) -> Float[Tensor, "batch"]:
    """Return each image's focal loss of a heat map, whose peaks are 1 (CornerNet; Law and Deng, 2018).

    With p the probability: −(1 − p)^α log p where heat = 1, −(1 − heat)^β p^α log(1 − p) elsewhere, summed.
    """
    p = logits.sigmoid()
    log_p, log_not = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    found = -((1 - p) ** alpha) * log_p
    empty = -((1 - heat) ** beta) * p**alpha * log_not
    return torch.where(heat == 1, found, empty).flatten(1).sum(1)


def area(boxes: Float[Tensor, "*any 4"]) -> Float[Tensor, "*any"]:
    """Return the areas of boxes (x1, y1, x2, y2)."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def iou(a: Float[Tensor, "*#any 4"], b: Float[Tensor, "*#any 4"]) -> Float[Tensor, "..."]:
    """Return intersection over union, box by box (broadcast); 0 where both are empty."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    return both / (area(a) + area(b) - both).clamp(min=1e-9)


def giou(a: Float[Tensor, "*#any 4"], b: Float[Tensor, "*#any 4"]) -> Float[Tensor, "..."]:
    """Return generalised IoU, box by box (Rezatofighi et al., 2019): IoU − share of the hull that neither covers."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    union = (area(a) + area(b) - both).clamp(min=1e-9)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return both / union - (hull - union) / hull.clamp(min=1e-9)
