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
    """Apply an effect to the drawn images only; changes the images in place.

    On a CPU the other images cost nothing. On a GPU all are computed and the drawn ones kept, since counting
    the drawn ones would make the host wait.
    """
    if images.is_cuda:
        return images.copy_(torch.where(drawn[:, None, None, None], effect(images, *parameters), images))
    rows = drawn.nonzero().squeeze(1)
    if len(rows) == 0:
        return images
    return images.index_copy_(0, rows, effect(images[rows], *(p[rows] for p in parameters)))


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
    radius = min(radius, min(images.shape[-2:]) - 1)
    offsets = torch.arange(radius + 1, device=images.device, dtype=images.dtype)
    # Below e⁻²⁰ nothing is seen; products of smaller weights would be denormal numbers, which are slow.
    weights = (-0.5 * (offsets / sigma[:, None].clamp(min=1e-3)) ** 2).clamp_(min=-20).exp_()
    weights = (weights / (2 * weights.sum(1, keepdim=True) - 1)).to(images.dtype)
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    return _correlate(_correlate(padded, weights, 2), weights, 3).clamp_(0, 1)


def _correlate(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Each image with its own symmetric kernel along one axis, without padding; `weights` is the kernel's
    half, from its middle on. Sums of shifted images: a grouped convolution is faster for one size of batch,
    but its preparation for each new size costs several times the convolution itself."""
    radius = weights.shape[1] - 1
    size = images.shape[axis] - 2 * radius
    weights = weights[:, :, None, None, None]
    result = images.narrow(axis, radius, size) * weights[:, 0]
    for k in range(1, radius + 1):
        pair = images.narrow(axis, radius - k, size) + images.narrow(axis, radius + k, size)
        result.add_(pair.mul_(weights[:, k]))
    return result


def solarize(
    images: Float[Tensor, "batch channels height width"], threshold: Float[Tensor, "batch"]
) -> Float[Tensor, "batch channels height width"]:
    """Invert the values that are not below a threshold."""
    # A product with 0 or 1: `where` is ten times as slow on CPUs.
    inverted = (images >= threshold[:, None, None, None]).to(images.dtype)
    return inverted.mul_(1 - 2 * images).add_(images)


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
    if min(images.shape[-2:]) < 3:
        return images
    inner = images[..., 1:-1, 1:-1]
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / 13
    result = images.clone()
    result[..., 1:-1, 1:-1] = smooth + (inner - smooth) * factor[:, None, None, None]
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
    inside = _indicator(boxes, images.shape[-2], images.shape[-1])[:, None].to(images.dtype)
    return images * (1 - inside) + fill * inside


def inside_boxes(boxes: Float[Tensor, "batch 4"], height: int, width: int) -> Bool[Tensor, "batch height width"]:
    """The pixels whose centres lie in each box (x1, y1, x2, y2; pixels)."""
    return _indicator(boxes, height, width).bool()


def _indicator(boxes: Tensor, height: int, width: int) -> Tensor:
    """1 in each box, 0 elsewhere: a product of floats, several times as fast as a broadcast `and` on CPUs."""
    x = torch.arange(width, device=boxes.device) + 0.5
    y = torch.arange(height, device=boxes.device) + 0.5
    across = ((x >= boxes[:, :1]) & (x < boxes[:, 2:3])).float()
    down = ((y >= boxes[:, 1:2]) & (y < boxes[:, 3:])).float()
    return down[:, :, None] * across[:, None]
