"""What every encoder offers: the values of one input column become features."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rushlight.core.errors import UserError

Size = int | tuple[int, int] | None


class Encoder(nn.Module):
    """Values of an input column, or of several → features.

    An encoder of several columns takes and gives a mapping of them where others take and give a tensor.

    Attributes:
        name: what `create` was given.
        reads: the input column, such as `image` or `caption`, or several.
        width: size of the pooled features.
        channels, strides: of the maps of the pyramid, from fine to coarse; empty for an encoder without maps.
    """

    name: str
    reads: str | tuple[str, ...] = ""
    width: int
    channels: list[int]
    strides: list[int]

    def __init__(self, name: str):
        super().__init__()
        self.name, self.channels, self.strides = name, [], []

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that the encoder reads."""
        return (self.reads,) if isinstance(self.reads, str) else self.reads

    def example(
        self, n: int, size: Size = None, generator: torch.Generator | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Return n random inputs, on the encoder's device.

        Args:
            size: of one input (an image's side or (height, width), a text's bytes); None takes the encoder's own.
        """
        raise NotImplementedError

    def prepare(self, values: Any) -> Any:
        """Return the values of the encoder's column (of several: by column) as `forward` takes them."""
        return values

    def forward(self, inputs: Any) -> Float[Tensor, "batch dim"]:
        """Return pooled features."""
        raise NotImplementedError

    def maps(self, inputs: Any) -> Tensor:
        """Return the last feature map."""
        raise UserError(
            f"'{self.name}' reads the column '{self.columns[0]}' and has no feature maps: take an image encoder"
        )

    def pyramid(self, inputs: Any) -> list[Tensor]:
        """Return feature maps from fine to coarse."""
        raise UserError(
            f"'{self.name}' reads the column '{self.columns[0]}' and has no feature maps: take an image encoder"
        )

    def takes(self, size: int) -> bool:
        """Return whether the encoder reads inputs of this size (square images of this side)."""
        return size > 0


class ImageEncoder(Encoder):
    """Images in [0, 1] → features.

    It normalises images itself, so that everything outside it (views, attacks, models) speaks of the same images.

    Attributes:
        image_size: side of the images in pixels that it was made for.
        mean, std: of each channel, subtracted and divided by.
    """

    reads = "image"
    image_size: int = 32
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__(name)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def example(
        self, n: int, size: Size = None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n 3 height width"]:
        """Return n images of uniform noise."""
        height, width = size if isinstance(size, tuple) else (size or self.image_size,) * 2
        return torch.rand(n, 3, height, width, device=self.mean.device, generator=generator)

    def prepare(self, values: UInt8[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
        """Return images in [0, 1], channels last in memory."""
        return to_unit(values)

    def normalise(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        return (images - self.mean) / self.std

    def maps(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim h w"]:
        """Return the last feature map; where an encoder pools by the mean, its mean is what `forward` gives."""
        return self.pyramid(images)[-1]

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        return self.maps(images).mean((2, 3))


def to_unit(images: UInt8[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
    """Return images in [0, 1], channels last in memory."""
    return images.float().div(255).contiguous(memory_format=torch.channels_last)


def arrange(module: nn.Module) -> nn.Module:
    """Lay the weights of 2-D convolutions out channels last, in place; weights of any other rank stay as they are."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
