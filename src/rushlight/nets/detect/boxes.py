"""Boxes from one map: what is centred at each cell, and how far it reaches to each side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.nets.detect.neck import Neck, tower
from rushlight.nets.heads import Head

PRIOR = -2.19
"""The logit at which every class starts at every cell: a probability of 0.1, as in CenterNet."""
REACH = 2.0
"""How far a box reaches to each side at the start, in cells."""


class Boxes(Head):
    """Pyramid → at each cell (x1, y1, x2, y2, x, y, class logits …): a box and the cell's centre, in pixels.

    Args:
        channels, strides: of the encoder's pyramid, from fine to coarse.
        outputs: number of classes. width: of the neck.
    """

    reads = "pyramid"

    def __init__(self, *, channels: Sequence[int], strides: Sequence[int], outputs: int, width: int = 64):
        super().__init__()
        self.config = {"channels": list(channels), "strides": list(strides), "outputs": outputs, "width": width}
        self.neck = Neck(channels, strides, width)
        self.classes, self.sides = tower(width, outputs, PRIOR), tower(width, 4)

    def forward(self, levels: list[Tensor]) -> Float[Tensor, "batch six_and_classes h w"]:
        fused = self.neck(levels)
        logits, sides = self.classes(fused).float(), self.sides(fused).float()
        at = self.neck.centres((fused.shape[-2], fused.shape[-1]), fused.device).expand(fused.shape[0], -1, -1, -1)
        reach = REACH * self.neck.stride * sides.clamp(max=6).exp()  # left, up, right, down
        return torch.cat([at - reach[:, :2], at + reach[:, 2:], at, logits], 1)
