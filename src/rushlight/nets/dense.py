"""Dense heads: a class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence

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
