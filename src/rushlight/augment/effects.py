"""What no matrix can do to a batch of images: blur, solarize, posterize, sharpen, equalize, cut out.

Each effect takes float images in [0, 1] and one parameter an image. `on_rows` limits an effect to the drawn
images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def on_rows(
    effect: Callable[..., Tensor],
    images: Float[Tensor, "batch 3 height width"],
    drawn: Bool[Tensor, "batch"],
    *parameters: Float[Tensor, "batch *any"] | Int[Tensor, "batch *any"],
) -> Float[Tensor, "batch 3 height width"]:
    """Apply an effect to the drawn images only.

    On a CPU the other images cost nothing. On a GPU all are computed and the drawn ones kept, since counting
    the drawn ones would make the host wait.
    """
    if images.is_cuda:
        return torch.where(drawn[:, None, None, None], effect(images, *parameters), images)
    rows = drawn.nonzero().squeeze(1)
    if len(rows) == 0:
        return images
    return images.index_copy(0, rows, effect(images[rows], *(p[rows] for p in parameters)).to(images.dtype))


def blur(
    images: Float[Tensor, "batch channels height width"],
    sigma: Float[Tensor, "batch"],
    *,
    largest: float | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Gaussian blur, with one standard deviation (pixels, > 0) an image; edges are reflected.

    Args:
        largest: the largest possible sigma, if it is known: it sets the width of the kernel (two sigmas to
            each side) without looking at the values.
    """
    radius = max(1, int(2 * (float(sigma.max()) if largest is None else largest) + 0.5))
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / sigma[:, None].clamp(min=1e-3)) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).to(images.dtype)
    return _correlate(_correlate(images, weights, 3), weights, 2).clamp_(0, 1)


def _correlate(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Each image with its own symmetric kernel along one axis."""
    radius, size = weights.shape[1] // 2, images.shape[axis]
    index = torch.arange(-radius, size + radius, device=images.device)
    padded = images.index_select(axis, _reflected(index, size))
    result = images * weights[:, radius, None, None, None]
    for k in range(1, radius + 1):
        pair = padded.narrow(axis, radius - k, size) + padded.narrow(axis, radius + k, size)
        result = torch.addcmul(result, pair, weights[:, radius + k, None, None, None])
    return result


def _reflected(index: Tensor, size: int) -> Tensor:
    """Indices beyond the ends, reflected about the first and the last one."""
    period = max(2 * (size - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, (period - index).clamp(min=0)).clamp(max=size - 1)


def solarize(
    images: Float[Tensor, "batch channels height width"], threshold: Float[Tensor, "batch"]
) -> Float[Tensor, "batch channels height width"]:
    """Invert the values that are not below a threshold."""
    return torch.where(images < threshold[:, None, None, None], images, 1 - images)


def posterize(
    images: Float[Tensor, "batch channels height width"], bits: Int[Tensor, "batch"]
) -> Float[Tensor, "batch channels height width"]:
    """Keep the highest `bits` (1 to 8) bits of each 8-bit value, as PIL does."""
    step = torch.exp2(8 - bits.to(images.dtype))[:, None, None, None]
    return ((images * 255 + 0.5).floor() / step).floor() * step / 255


def sharpness(
    images: Float[Tensor, "batch channels height width"], factor: Float[Tensor, "batch"]
) -> Float[Tensor, "batch channels height width"]:
    """Move away from a smoothed image (PIL's 3×3 kernel, 5 in its middle): 0 is smoothed, 1 leaves the image.
    The outermost pixels stay as they are."""
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=images.dtype, device=images.device) / 13
    height, width = images.shape[-2:]
    if min(height, width) < 3:
        return images
    smooth = F.conv2d(images.reshape(-1, 1, height, width), kernel[None, None])
    inner = images[..., 1:-1, 1:-1]
    result = images.clone()
    result[..., 1:-1, 1:-1] = torch.lerp(smooth.view_as(inner), inner, factor[:, None, None, None])
    return result.clamp_(0, 1)


def equalize(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Flatten the histogram of each channel of each image, by PIL's rule on 8-bit values."""
    values = (images * 255 + 0.5).long().clamp(0, 255).flatten(0, 1).flatten(1)
    counts = torch.zeros(len(values), 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    last = counts.gather(1, values.amax(1, keepdim=True))
    step = (counts.sum(1, keepdim=True) - last) // 255
    before = counts.cumsum(1) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return (table.gather(1, values).to(images.dtype) / 255).view_as(images)


def cutout(
    images: Float[Tensor, "batch channels height width"],
    boxes: Float[Tensor, "batch 4"],
    *,
    fill: float = 0.5,
) -> Float[Tensor, "batch channels height width"]:
    """Fill the pixels whose centres lie in a box (x1, y1, x2, y2; pixels) an image."""
    return images.masked_fill(inside_boxes(boxes, images.shape[-2], images.shape[-1])[:, None], fill)


def inside_boxes(
    boxes: Float[Tensor, "batch 4"], height: int, width: int
) -> Bool[Tensor, "batch height width"]:
    """The pixels whose centres lie in each box (x1, y1, x2, y2; pixels)."""
    x = torch.arange(width, device=boxes.device) + 0.5
    y = torch.arange(height, device=boxes.device) + 0.5
    across = (x >= boxes[:, :1]) & (x < boxes[:, 2:3])
    down = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:])
    return down[:, :, None] & across[:, None]
