"""Small encoders for small machines: convolutions, and vision transformers of up to 0.7 million parameters."""

from __future__ import annotations

from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.nets.encoders.base import ImageEncoder
from rushlight.nets.encoders.timm import Timm

SMALL = ("conv16", "conv32", "vit64", "vit96")
VITS = {"vit64": (64, 4, 4), "vit96": (96, 6, 3)}
"""Of the small vision transformers: width, blocks and attention heads."""


class Conv(ImageEncoder):
    """Six 3×3 convolutions with batch norm, of width w, w, 2w, 2w, 4w, 4w; every second one halves the image. 72k
    parameters at w = 16.

    Only the first convolution works at full resolution: on a CPU the step is bound by memory traffic there.
    """

    def __init__(self, name: str, width: int = 16, image_size: int = 32):
        super().__init__(name, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.image_size = image_size
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        blocks = [_block(i, o, stride) for i, o, stride in zip([3, *widths], widths, (1, 2, 1, 2, 1, 2), strict=False)]
        parts = [blocks[:1], blocks[1:3], blocks[3:5], blocks[5:]]
        self.stages = nn.ModuleList(nn.Sequential(*part) for part in parts)
        self.channels, self.strides = [width, 2 * width, 4 * width, 4 * width], [1, 2, 4, 8]
        self.width = 4 * width

    def pyramid(self, images: Tensor) -> list[Tensor]:
        levels = [self.normalise(images)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels[1:]


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def small_transformer(name: str) -> bool:
    """Return whether a small vision transformer has this name, with patches of any size and any addition."""
    return name.partition("+")[0].partition("-p")[0] in VITS


def small_vit(name: str, image_size: int) -> Timm:
    """Return a small ViT: `vit96` has 0.7 million parameters, `vit64` 0.2.

    Patches have 4 pixels (8 above 64 pixels, 16 above 128), or as many as the name says.

    Raises:
        UserError: the image does not divide into patches of the named size.
    """
    kind, _, named = name.partition("-p")
    patch = 4 if image_size <= 64 else 8 if image_size <= 128 else 16
    if named:
        patch = int(named) if named.isdecimal() and int(named) else 0
        if not patch or image_size % patch:
            raise UserError(f"'{name}': images of {image_size} pixels do not divide into patches of '{named}' pixels")
    width, depth, heads = VITS[kind]
    encoder = Timm(
        "vit_tiny_patch16_224",
        image_size,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        dynamic_img_size=True,
    )
    encoder.name = name
    return encoder
