"""Dense heads: a class for each pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rushlight.nets.heads import Head


class Decoder(Head):
    """Feature pyramid → logits of each pixel: from coarse to fine, enlarge, add the finer level, convolve.

    A feature-pyramid decoder with 3×3 convolutions, for encoders of any strides (Lin et al., 2017). Its output has
    the size of the finest level times that level's stride.

    Args:
        channels, strides: of the encoder's pyramid, from fine to coarse.
        outputs: number of classes.
        width: of the decoder; None takes the finest level's, at least 16 and at most 128.
    """

    reads = "pyramid"

    def __init__(self, *, channels: Sequence[int], strides: Sequence[int], outputs: int, width: int | None = None):
        super().__init__()
        width = width or min(max(channels[0], 16), 128)
        self.config = {
            "channels": list(channels),
            "strides": list(strides),
            "outputs": outputs,
            "width": width,
        }
        self.stride = strides[0]
        self.lateral = nn.ModuleList(nn.Conv2d(size, width, 1) for size in channels)
        self.smooth = nn.ModuleList(_smooth(width) for _ in channels[:-1])
        self.logits = nn.Conv2d(width, outputs, 1)

    def forward(self, levels: list[Tensor]) -> Float[Tensor, "batch outputs height width"]:
        *finer, coarse = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for level, smooth in zip(reversed(finer), reversed(self.smooth), strict=True):
            coarse = smooth(level + F.interpolate(coarse, size=level.shape[-2:], mode="bilinear"))
        logits = self.logits(coarse)
        return logits if self.stride == 1 else F.interpolate(logits, scale_factor=self.stride, mode="bilinear")


def _smooth(width: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class FPN(Head):
    """A panoptic feature pyramid: each level is enlarged by steps of its own, and all are read side by side.

    Lateral 1×1 convolutions to `pyramid` channels are summed from coarse to fine (nearest neighbour). The level that
    is i-th from the finest then passes max(i, 1) blocks of 3×3 convolution, group norm and ReLU to `segment` channels,
    enlarged (bilinearly, corners aligned) after each of i. A 3×3 convolution reads all levels joined; its logits are
    enlarged to the image (Kirillov et al., 2019; with 256 and 128 channels and four levels, SurgeNet's decoder).

    Args:
        channels, strides: of the encoder's pyramid, from fine to coarse; each level half as large as the one before.
        outputs: number of classes.
        pyramid, segment: channels.
    """

    reads = "pyramid"

    def __init__(
        self, *, channels: Sequence[int], strides: Sequence[int], outputs: int, pyramid: int = 256, segment: int = 128
    ):
        super().__init__()
        self.config = {
            "channels": list(channels),
            "strides": list(strides),
            "outputs": outputs,
            "pyramid": pyramid,
            "segment": segment,
        }
        self.stride = strides[0]
        self.lateral = nn.ModuleList(nn.Conv2d(size, pyramid, 1) for size in channels)
        self.blocks = nn.ModuleList(
            nn.ModuleList(_grouped(pyramid if step == 0 else segment, segment) for step in range(max(level, 1)))
            for level in range(len(channels))
        )
        self.logits = nn.Conv2d(segment * len(channels), outputs, 3, padding=1)

    def forward(self, levels: list[Tensor]) -> Float[Tensor, "batch outputs height width"]:
        summed = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        sizes = [level.shape[-2:] for level in levels]
        for i in reversed(range(len(summed) - 1)):
            summed[i] = summed[i] + F.interpolate(summed[i + 1], size=sizes[i], mode="nearest")
        enlarged = [self._enlarged(summed[i], i, sizes) for i in reversed(range(len(summed)))]
        logits = self.logits(torch.cat(enlarged, 1))
        if self.stride == 1:
            return logits
        return F.interpolate(logits, scale_factor=self.stride, mode="bilinear", align_corners=True)

    def _enlarged(self, level: Tensor, i: int, sizes: list[torch.Size]) -> Tensor:
        blocks: Any = self.blocks[i]
        for step, block in enumerate(blocks):
            level = block(level)
            if i > 0:
                level = F.interpolate(level, size=sizes[i - 1 - step], mode="bilinear", align_corners=True)
        return level


def _grouped(inputs: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(32, width), width), nn.ReLU(inplace=True))
