"""The matrices of views: affine maps of pixels and of colours, and how they are chained.

Coordinates are continuous pixel coordinates (x, y): an image spans [0, W]×[0, H], the centre of its first pixel is
(0.5, 0.5). A geometry maps *output* coordinates to *input* coordinates, which is what resampling needs; a colour matrix
maps input (r, g, b, 1) to output (r, g, b).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Size = tuple[int, int]
"""(height, width), in pixels."""
LUMA = (0.299, 0.587, 0.114)


def compose(outer: Float[Tensor, "batch k l"], inner: Float[Tensor, "batch k l"]) -> Float[Tensor, "batch k l"]:
    """Return the affine map x → outer(inner(x))."""
    linear = outer[..., :-1]
    product = linear @ inner
    product[..., -1] += outer[..., -1]
    return product


def chain(*maps: Float[Tensor, "batch k l"]) -> Float[Tensor, "batch k l"]:
    """Return the affine map that applies the last of the given maps first."""
    result = maps[0]
    for inner in maps[1:]:
        result = compose(result, inner)
    return result


def apply(geometry: Float[Tensor, "batch 2 3"], points: Float[Tensor, "batch *any 2"]) -> Float[Tensor, "batch *any 2"]:
    """Return points (x, y) moved by one map per image."""
    flat = points.reshape(len(points), -1, 2)
    return (flat @ geometry[:, :, :2].mT + geometry[:, None, :, 2]).view_as(points)


def determinant(geometry: Float[Tensor, "batch 2 3"]) -> Float[Tensor, "batch"]:
    (a, b), (c, d) = (row.unbind(-1)[:2] for row in geometry.unbind(-2))
    return a * d - b * c


def invert(geometry: Float[Tensor, "batch 2 3"]) -> Float[Tensor, "batch 2 3"]:
    """Return the inverse affine maps (by Cramer's rule: exact for flips and shifts, without a call of LAPACK)."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in geometry.unbind(-2))
    scale = 1 / (a * d - b * c)
    entries = [d, -b, b * y - d * x, -c, a, c * x - a * y]
    return (torch.stack(entries, -1) * scale[..., None]).unflatten(-1, (2, 3))


# Geometry: matrices that map output to input coordinates. "By" an angle or a factor is meant as one sees it:
# the content of the image is turned, enlarged or shifted by that much.


def _affine(n: int, device: torch.device | str = "cpu") -> Tensor:
    return torch.eye(2, 3, device=device).repeat(n, 1, 1)


def identity(n: int, device: torch.device | str = "cpu") -> Float[Tensor, "batch 2 3"]:
    return _affine(n, device)


def flip(flipped: Bool[Tensor, "batch"], width: int) -> Float[Tensor, "batch 2 3"]:
    """Mirror left and right, where `flipped`."""
    matrix = _affine(len(flipped), flipped.device)
    matrix[:, 0, 0] -= 2.0 * flipped
    matrix[:, 0, 2] = width * flipped
    return matrix


def translate(shift: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 2 3"]:
    """Shift the content by (x, y) pixels."""
    matrix = _affine(len(shift), shift.device)
    matrix[:, :, 2] = -shift
    return matrix


def scale(factor: Float[Tensor, "batch"], size: Size) -> Float[Tensor, "batch 2 3"]:
    """Enlarge the content by a factor about the centre."""
    matrix = _affine(len(factor), factor.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / factor
    return about_centre(matrix, size)


def rotate(degrees: Float[Tensor, "batch"], size: Size) -> Float[Tensor, "batch 2 3"]:
    """Turn the content counter-clockwise about the centre."""
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return about_centre(torch.stack([cos, -sin, zero, sin, cos, zero], -1).unflatten(-1, (2, 3)), size)


def shear(tangent: Float[Tensor, "batch 2"], size: Size) -> Float[Tensor, "batch 2 3"]:
    """Shear about the centre: x_in = x + tangent[0]·y, y_in = y + tangent[1]·x."""
    matrix = _affine(len(tangent), tangent.device)
    matrix[:, 0, 1], matrix[:, 1, 0] = tangent.unbind(1)
    return about_centre(matrix, size)


def crop(boxes: Float[Tensor, "batch 4"], size: Size) -> Float[Tensor, "batch 2 3"]:
    """Show the box (x1, y1, x2, y2), in input pixels, at the given output size."""
    matrix = torch.zeros(len(boxes), 2, 3, device=boxes.device)
    matrix[:, 0, 0] = (boxes[:, 2] - boxes[:, 0]) / size[1]
    matrix[:, 1, 1] = (boxes[:, 3] - boxes[:, 1]) / size[0]
    matrix[:, :, 2] = boxes[:, :2]
    return matrix


def resize(source: Size, size: Size, n: int, device: torch.device | str = "cpu") -> Float[Tensor, "batch 2 3"]:
    """Show the whole input at the given output size."""
    matrix = _affine(n, device)
    matrix[:, 0, 0], matrix[:, 1, 1] = source[1] / size[1], source[0] / size[0]
    return matrix


def about_centre(matrix: Float[Tensor, "batch 2 3"], size: Size) -> Float[Tensor, "batch 2 3"]:
    """Return the same map with its origin in the centre of an image of the given size."""
    centre = torch.tensor([size[1] / 2, size[0] / 2], device=matrix.device)
    offset = matrix[:, :, 2] + centre - matrix[:, :, :2] @ centre
    return torch.cat([matrix[:, :, :2], offset[..., None]], -1)


# Colour: matrices that map input (r, g, b, 1) to output (r, g, b).


def identity_colour(n: int, device: torch.device | str = "cpu") -> Float[Tensor, "batch 3 4"]:
    return torch.eye(3, 4, device=device).repeat(n, 1, 1)


def _with_offset(linear: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    column = torch.zeros_like(linear[..., :1]) + offset
    return torch.cat([linear, column], -1)


def brightness(factor: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Return the map that multiplies values by a factor: 0 is black, 1 leaves the image."""
    return torch.eye(3, 4, device=factor.device) * factor[:, None, None]


def contrast(factor: Float[Tensor, "batch"], grey: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Return the map away from the image's mean grey level: 0 is flat grey, 1 leaves the image."""
    return _with_offset(brightness(factor)[..., :3], ((1 - factor) * grey)[:, None, None])


def chroma(factor: Float[Tensor, "batch"], turn: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Return the map that stretches YIQ's chroma plane by a factor and turns it by a share of the circle; luma
    stays."""
    angle = 2 * math.pi * turn
    luma, in_phase, quadrature = _yiq(turn.device)
    cos, sin = (factor * angle.cos())[:, None, None], (factor * angle.sin())[:, None, None]
    return _with_offset(luma + cos * in_phase + sin * quadrature)


def saturation(factor: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Return the map away from each pixel's own grey: 0 is greyscale, 1 leaves the image."""
    return chroma(factor, torch.zeros_like(factor))


def hue(turn: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Return the map that turns the hues by a share of the colour circle, as a rotation of YIQ's chroma plane (affine,
    and the luma stays; torchvision turns HSV's hexagon, where the luma changes)."""
    return chroma(torch.ones_like(turn), turn)


def grayscale(grey: Bool[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Return the map to grey, where `grey`."""
    return saturation((~grey).float())


def invert_colour(inverted: Bool[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Return the map to 1 − value, where `inverted`."""
    linear = brightness(1 - 2 * inverted.float())[..., :3]
    return _with_offset(linear, inverted.float()[:, None, None])


def grey_level(rgb: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
    """Return the luma (ITU-R 601) of colours."""
    return rgb @ torch.tensor(LUMA, device=rgb.device)


@functools.cache
def _yiq(device: torch.device) -> Tensor:
    """Return the three matrices of a rotation of hue in RGB: the constant part, the cosine's and the sine's."""
    rows = [LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)]
    to_yiq = np.array(rows)
    parts = np.zeros((3, 3, 3))
    parts[0, 0, 0] = parts[1, 1, 1] = parts[1, 2, 2] = parts[2, 1, 2] = 1
    parts[2, 2, 1] = -1
    # by NumPy, as a count of FLOPs must not depend on whether a process did this before
    return torch.from_numpy(np.linalg.inv(to_yiq) @ parts @ to_yiq).float().to(device)
