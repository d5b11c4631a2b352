"""Pseudo-labels: a target, where it counts, and how much.

Target makers (a weak view, a teacher, a mixture) fill the triple; losses read it. The unit is a sample, a pixel, a
box or a pair: whatever shape the target has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PseudoLabels:
    """Attributes:
    target: class ids, or class probabilities with a last axis of classes.
    mask: where the target counts.
    weight: how much; None is one everywhere.
    """

    target: Int[Tensor, "..."] | Float[Tensor, "..."]
    mask: Bool[Tensor, "..."]
    weight: Float[Tensor, "..."] | None = None

    @property
    def kept(self) -> Float[Tensor, ""]:
        """Return the share of entries that count."""
        return self.mask.float().mean()


@torch.no_grad()
def confident(probabilities: Float[Tensor, "batch classes"], threshold: float) -> PseudoLabels:
    """Return hard targets where the largest probability reaches a fixed threshold (FixMatch, eq. 4)."""
    confidence, target = probabilities.max(-1)
    return PseudoLabels(target, confidence >= threshold)


def forward_views(
    network: Callable[[Tensor], Tensor], x: Tensor, u_weak: Tensor, u_strong: Tensor, *, joint: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a network's outputs for labelled views, and for weak and strong views of unlabelled images.

    Args:
        joint: one forward over all three, with common batch statistics. Otherwise the weak views, which only give
            targets, have a forward of their own without gradient: a third less work.
    """
    if joint:
        out_x, out_weak, out_strong = network(torch.cat([x, u_weak, u_strong])).split(
            [len(x), len(u_weak), len(u_strong)]
        )
        return out_x, out_weak, out_strong
    with torch.no_grad():
        out_weak = network(u_weak)
    out_x, out_strong = network(torch.cat([x, u_strong])).split([len(x), len(u_strong)])
    return out_x, out_weak, out_strong
