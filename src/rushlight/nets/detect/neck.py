"""One fine map from an encoder's pyramid, on which heads that look for objects stand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

FINE, COARSE = 4, 8
"""The stride of the finest level that is read, and the coarsest stride of the map."""


class Neck(nn.Module):
    """Feature pyramid → one map: from coarse to fine, enlarge, add the finer level, convolve (Lin et al., 2017).

    Levels finer than a stride of 4 are not read. A map that would be coarser than a stride of 8 (a vision
    transformer's, whose levels have one size) is enlarged.

    Attributes:
        stride: of the map, in pixels of the image. width: its channels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int):
        super().__init__()
        self.first = next((i for i, stride in enumerate(strides) if stride >= FINE), len(strides) - 1)
        self.lateral = nn.ModuleList(nn.Conv2d(size, width, 1) for size in channels[self.first :])
        self.smooth = nn.ModuleList(_smooth(width) for _ in channels[self.first :])
        doublings = max(0, math.ceil(math.log2(strides[self.first] / COARSE)))
        self.enlarge = nn.ModuleList(_smooth(width) for _ in range(doublings))
        self.stride, self.width = strides[self.first] / 2**doublings, width

    def forward(self, levels: list[Tensor]) -> Float[Tensor, "batch width h w"]:
        read = [lateral(level) for lateral, level in zip(self.lateral, levels[self.first :], strict=True)]
        fused = self.smooth[-1](read[-1])
        for level, smooth in zip(reversed(read[:-1]), reversed(self.smooth[:-1]), strict=True):
            fused = smooth(level + F.interpolate(fused, size=level.shape[-2:], mode="nearest"))
        for block in self.enlarge:
            fused = block(F.interpolate(fused, scale_factor=2, mode="bilinear"))
        return fused

    def centres(self, size: tuple[int, int], device: torch.device) -> Float[Tensor, "2 h w"]:
        """Return where each cell's centre lies in the image: x, y in pixels."""
        height, width = size
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        return (torch.stack([x, y]).float() + 0.5) * self.stride


def tower(width: int, outputs: int, bias: float = 0.0) -> nn.Sequential:
    """Return a 3×3 convolution with ReLU, then a 1×1 convolution whose biases start at `bias`."""
    last = nn.Conv2d(width, outputs, 1)
    nn.init.normal_(last.weight, std=0.01)
    last.bias = nn.Parameter(torch.full((outputs,), bias))
    return nn.Sequential(_smooth(width), last)


def _smooth(width: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(16, width), width), nn.ReLU(inplace=True))
