"""Local-global convolution: a 3×3 convolution that also hears from the whole map (PU-MLC, arXiv:2306.16016).

    conv(x) + G(x)

G gathers and gives back, head by head: from hidden = [local, mean of local] come one map of where to gather
(a softmax over all places) and one of where to give back (a sigmoid); what was gathered from v = V x is added
to x where the second says so. A last batch norm starts at almost nothing, so that a pretrained function is kept.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

SUFFIX = "local-global"
"""`conv16+local-global` is the encoder `conv16` with its convolutions widened."""
HEADS = 8
E = TypeVar("E", bound=nn.Module)


class Branch(nn.Module):
    """G: the global branch beside a convolution of the same channels and stride.

    Args:
        inputs, outputs: channels; stride: of the convolution beside it.
        heads: groups of channels that gather from places of their own.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, heads: int = HEADS):
        super().__init__()
        self.heads, quarter = heads, max(inputs // 4, 1)
        self.local = nn.Sequential(nn.Conv2d(inputs, quarter, 1), nn.ReLU(inplace=True))
        self.gather = nn.Conv2d(2 * quarter, heads, 1)
        self.give = nn.Conv2d(2 * quarter, heads, 1)
        self.values = nn.Conv2d(inputs, inputs, 1)
        self.out = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.normal_(self.norm.weight, 0.0, 1e-4)

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        local = self.local(x)
        hidden = torch.cat([local, local.mean((2, 3), keepdim=True).expand_as(local)], 1)
        weights = self.gather(hidden).flatten(2).softmax(2)
        values = self.values(x).unflatten(1, (self.heads, -1)).flatten(3)
        gathered = torch.einsum("bgcp,bgp->bgc", values, weights.to(values.dtype))
        given = gathered[..., None, None] * self.give(hidden).sigmoid()[:, :, None]
        return self.norm(self.out(x + given.flatten(1, 2)))


class LocalGlobal(nn.Module):
    """A convolution and its global branch, summed."""

    def __init__(self, convolution: nn.Conv2d, heads: int):
        super().__init__()
        self.convolution = convolution
        self.branch = Branch(
            convolution.in_channels, convolution.out_channels, stride=convolution.stride[0], heads=heads
        )

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        return self.convolution(x) + self.branch(x)


def widen(encoder: E) -> E:
    """Put a global branch beside each 3×3 convolution of an encoder, in place; its name gets the suffix.

    Convolutions of fewer than 8 input channels (of pixels) and depth-wise ones stay as they are. An encoder
    that has branches already is left alone.
    """
    if branches(encoder):
        return encoder
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and _fits(child):
                setattr(parent, name, LocalGlobal(child, math.gcd(HEADS, child.in_channels)))
    encoder.name = f"{encoder.name}+{SUFFIX}"  # type: ignore[assignment]
    return encoder


def branches(encoder: nn.Module) -> list[Branch]:
    """Return the global branches of a widened encoder."""
    return [module for module in encoder.modules() if isinstance(module, Branch)]


def _fits(convolution: nn.Conv2d) -> bool:
    same = all(p == 1 for p in convolution.padding) and all(d == 1 for d in convolution.dilation)
    return convolution.kernel_size == (3, 3) and same and convolution.groups == 1 and convolution.in_channels >= HEADS
