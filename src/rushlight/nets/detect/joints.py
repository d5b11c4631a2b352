"""Keypoints of several instances from one map: where instances are centred, where their joints lie, and heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.nets.detect.neck import Neck, tower
from rushlight.nets.heads import Head

PRIOR = -2.19
"""The logit at which every cell starts: a probability of 0.1, as in CenterNet."""


class Joints(Head):
    """Pyramid → at each cell (x, y, centre logit, K joints' x, y, K heat logits).

    The cell's own centre (x, y) and the joints of an instance that is centred there are in pixels; the heat map of a
    joint is high at that joint of any instance (CenterNet; Zhou, Wang, Krähenbühl, 2019).

    Args:
        channels, strides: of the encoder's pyramid, from fine to coarse.
        joints: how many an instance has. width: of the neck.
    """

    reads = "pyramid"

    def __init__(self, *, channels: Sequence[int], strides: Sequence[int], joints: int, width: int = 64):
        super().__init__()
        self.config = {"channels": list(channels), "strides": list(strides), "joints": joints, "width": width}
        self.neck, self.joints = Neck(channels, strides, width), joints
        self.heat, self.offsets = tower(width, 1 + joints, PRIOR), tower(width, 2 * joints)

    def forward(self, levels: list[Tensor]) -> Float[Tensor, "batch channels h w"]:
        fused = self.neck(levels)
        heat, offsets = self.heat(fused).float(), self.offsets(fused).float()
        at = self.neck.centres((fused.shape[-2], fused.shape[-1]), fused.device).expand(fused.shape[0], -1, -1, -1)
        places = at.repeat(1, self.joints, 1, 1) + 4 * self.neck.stride * offsets
        return torch.cat([at, heat[:, :1], places, heat[:, 1:]], 1)
