"""A view is two matrices.

All geometric augmentation of a batch is one affine matrix an image, and all colour augmentation is one colour
matrix an image, because brightness, contrast, saturation, hue and grey are all affine in RGB. Transforms in a
row are products of matrices; the pixels are touched once. Since a view carries its geometry, masks, boxes and
keypoints follow it exactly, forwards and backwards.

Coordinates are continuous pixel coordinates (x, y): an image spans [0, W]×[0, H], the centre of its first
pixel is (0.5, 0.5). A geometry maps *output* coordinates to *input* coordinates, which is what resampling
needs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Num, Shaped
from torch import Tensor
from torch.nn import functional as F

Padding = Literal["reflect", "border", "zeros"]
Sampling = Literal["bilinear", "nearest", "none"]
Size = tuple[int, int]

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class View:
    """How each image of a batch is seen: one affine map of its pixels, one of its colours.

    Attributes:
        geometry: output pixel coordinates (x, y, 1) → input pixel coordinates (x, y).
        colour: input (r, g, b, 1) → output (r, g, b), in [0, 1].
        size: (height, width) of the output.
        source: (height, width) of the input.
        padding: what is seen outside of the input: its mirror image (about the outermost pixel centres, as
            NumPy's `reflect`), its outermost pixels, or black.
        sampling: how pixels are found. `nearest` where every output pixel centre falls on an input pixel
            centre (flips, shifts by whole pixels) and loses nothing; `none` where the geometry is the
            identity. Set by who builds the geometry, since looking at its values would stall a GPU.
    """

    geometry: Float[Tensor, "batch 2 3"]
    colour: Float[Tensor, "batch 3 4"]
    size: Size
    source: Size
    padding: Padding = "reflect"
    sampling: Sampling = "bilinear"

    @classmethod
    def identity(cls, n: int, source: Size, size: Size | None = None, device: torch.device | str = "cpu") -> View:
        """The whole image, resized to `size` where that differs."""
        size = size or source
        geometry = resize(source, size, n, device)
        sampling: Sampling = "none" if size == source else "bilinear"
        return cls(geometry, identity_colour(n, device), size, source, "border", sampling)

    def __len__(self) -> int:
        return len(self.geometry)

    def __getitem__(self, rows: slice | Tensor) -> View:
        return replace(self, geometry=self.geometry[rows], colour=self.colour[rows])

    def images(
        self,
        images: Num[Tensor, "batch 3 height width"],
        *,
        reduce: int = 1,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Float[Tensor, "batch 3 h w"]:
        """The view's pixels, in [0, 1].

        Bilinear, without antialiasing of its own: where a view shrinks its input, `reduce` averages blocks of
        reduce×reduce input pixels first.

        Args:
            images: uint8, or float in [0, 1].
            reduce: side of the blocks that are averaged before sampling; 1 leaves the input as it is.
            dtype, memory_format: of the result.
        """
        self._check(images)
        colour, pixels = self._to_unit(images)
        if self.sampling == "none":
            seen = paint(pixels, colour)
        else:
            seen = paint(self._sample(pixels, reduce), colour)
            if self.padding == "zeros":  # after the colours, whose offset must not tint what lies outside
                seen = seen.mul_(self.inside()[:, None])
        return seen.to(dtype=dtype, memory_format=memory_format)

    def _to_unit(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The colour matrix and float pixels: bytes are scaled to [0, 1] in the matrix, not in the pixels."""
        if images.is_floating_point():
            return self.colour, images.float()
        rescale = torch.tensor([1 / 255, 1 / 255, 1 / 255, 1.0], device=images.device)
        return self.colour * rescale, images.float()

    def _sample(self, pixels: Tensor, reduce: int) -> Tensor:
        if reduce > 1:
            pixels = F.avg_pool2d(pixels, reduce, ceil_mode=True, count_include_pad=False)
        height, width = pixels.shape[-2:]
        # align_corners=True makes grid_sample reflect about pixel centres; (−1, 1) are the outermost centres.
        spread = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], device=pixels.device)[:, None]
        geometry = self.geometry * spread / reduce
        geometry[:, :, 2:] -= 0.5 * spread + 1
        grid = _coordinates(geometry, self.size)
        return F.grid_sample(
            pixels,
            grid.permute(0, 2, 3, 1),
            mode="nearest" if self.sampling == "nearest" and reduce == 1 else "bilinear",
            padding_mode="reflection" if self.padding == "reflect" else "border",
            align_corners=True,
        )

    def _check(self, values: Tensor) -> None:
        if len(values) != len(self):
            raise ValueError(f"this view is of {len(self)} images, not of {len(values)}")
        if tuple(values.shape[-2:]) != self.source:
            raise ValueError(f"this view is of images of {self.source}, not of {tuple(values.shape[-2:])}")

    def coordinates(self) -> Float[Tensor, "batch 2 h w"]:
        """For each output pixel's centre, where it lies in the input."""
        return _coordinates(self.geometry, self.size)

    def inside(self) -> Bool[Tensor, "batch h w"]:
        """The output pixels whose centres lie in the input."""
        height, width = self.source
        x, y = self.coordinates().unbind(1)
        return (x >= 0) & (x < width) & (y >= 0) & (y < height)

    def nearest(
        self, values: Shaped[Tensor, "batch *channels height width"], fill: int | float
    ) -> Shaped[Tensor, "batch *channels h w"]:
        """Values of any type at the nearest input pixel; `fill` outside of the input, whatever the
        padding."""
        self._check(values)
        height, width = self.source
        x, y = self.coordinates().floor_().long().unbind(1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(1)
        channels = values.shape[1:-2]
        flat = values.reshape(len(values), -1, height * width)
        taken = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
        taken = taken.masked_fill(~inside.flatten(1)[:, None], fill)
        return taken.reshape(len(values), *channels, *self.size)

    def masks(
        self, masks: Shaped[Tensor, "batch *channels height width"], fill: int | float = 255
    ) -> Shaped[Tensor, "batch *channels h w"]:
        """Class masks in the view: the nearest pixel's class, `fill` (unknown) outside."""
        return self.nearest(masks, fill)

    def depth(self, depth: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch h w"]:
        """Depth in the view: the nearest pixel's (a mean over an edge is no depth of anything), NaN
        outside."""
        return self.nearest(depth, math.nan)

    def instance(self, instance: Shaped[Tensor, "batch height width"]) -> Shaped[Tensor, "batch h w"]:
        """Instance numbers in the view, −1 (unknown) outside."""
        return self.nearest(instance, -1)

    def points(self, points: Float[Tensor, "batch *any 2"]) -> Float[Tensor, "batch *any 2"]:
        """Points (x, y) of the input, in the view's coordinates."""
        return apply(invert(self.geometry), points)

    def inverse_points(self, points: Float[Tensor, "batch *any 2"]) -> Float[Tensor, "batch *any 2"]:
        """Points (x, y) of the view, in the input's coordinates."""
        return apply(self.geometry, points)

    def boxes(self, boxes: Float[Tensor, "batch slots 6"], *, visible: float = 0.3) -> Float[Tensor, "batch slots 6"]:
        """Boxes (x1, y1, x2, y2, class, visibility) in the view, each the upright box around the moved one.

        A box is clipped to the view; with less than the share `visible` of its area left, its visibility is
        0. A visibility of −1 (unknown) stays.
        """
        corners = boxes[..., [0, 1, 2, 1, 0, 3, 2, 3]].unflatten(-1, (4, 2))
        moved = self.points(corners)
        around = torch.cat([moved.amin(-2), moved.amax(-2)], -1)
        height, width = self.size
        limit = torch.tensor([width, height, width, height], device=boxes.device)
        clipped = torch.minimum(around.clamp(min=0), limit)
        left = _area(clipped) >= visible * _area(around)
        here = (left & (_area(clipped) > 0)) | (boxes[..., 5] < 0)
        clipped = torch.where(here[..., None], clipped, 0)
        visibility = torch.where(here, boxes[..., 5], 0)
        return torch.cat([clipped, boxes[..., 4:5], visibility[..., None]], -1)

    def keypoints(self, keypoints: Float[Tensor, "batch slots points 3"]) -> Float[Tensor, "batch slots points 3"]:
        """Keypoints (x, y, visibility) in the view. Outside of it they get visibility 0 and lie at (0, 0), as
        COCO writes them; −1 (unknown) stays. A flip does not swap left and right: see `flipped`."""
        moved = self.points(keypoints[..., :2])
        height, width = self.size
        x, y = moved.unbind(-1)
        here = (x >= 0) & (x <= width) & (y >= 0) & (y <= height) & (keypoints[..., 2] > 0)
        visibility = torch.where(here | (keypoints[..., 2] < 0), keypoints[..., 2], 0)
        return torch.cat([torch.where(here[..., None], moved, 0), visibility[..., None]], -1)

    def inverse_images(self, images: Num[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 height width"]:
        """The view's images back in the input's frame (black where the view did not look)."""
        return self.inverse().images(images)

    def inverse_masks(
        self, masks: Shaped[Tensor, "batch *channels h w"], fill: int | float = 255
    ) -> Shaped[Tensor, "batch *channels height width"]:
        """The view's masks back in the input's frame, `fill` where the view did not look."""
        return self.inverse().masks(masks, fill)

    def inverse_depth(self, depth: Float[Tensor, "batch h w"]) -> Float[Tensor, "batch height width"]:
        return self.inverse().depth(depth)

    def inverse_instance(self, instance: Shaped[Tensor, "batch h w"]) -> Shaped[Tensor, "batch height width"]:
        return self.inverse().instance(instance)

    def inverse_boxes(
        self, boxes: Float[Tensor, "batch slots 6"], *, visible: float = 0.3
    ) -> Float[Tensor, "batch slots 6"]:
        return self.inverse().boxes(boxes, visible=visible)

    def inverse_keypoints(
        self, keypoints: Float[Tensor, "batch slots points 3"]
    ) -> Float[Tensor, "batch slots points 3"]:
        return self.inverse().keypoints(keypoints)

    @property
    def flipped(self) -> Bool[Tensor, "batch"]:
        """The images that are seen mirrored (left and right keypoints must change their names there)."""
        return determinant(self.geometry) < 0

    def crop_boxes(self) -> Float[Tensor, "batch 4"]:
        """The upright box of the input that the view looks at: (x1, y1, x2, y2) as shares of its width and
        height, clipped to [0, 1]."""
        height, width = self.size
        corners = torch.tensor([[0, 0], [width, 0], [0, height], [width, height]], device=self.geometry.device)
        seen = apply(self.geometry, corners.to(self.geometry.dtype).expand(len(self), 4, 2))
        seen = seen / torch.tensor([self.source[1], self.source[0]], device=seen.device)
        return torch.cat([seen.amin(1), seen.amax(1)], 1).clamp(0, 1)

    def inverse(self) -> View:
        """The map back to the input's frame. Colours stay as seen: grey has no way back."""
        return View(
            invert(self.geometry),
            identity_colour(len(self), self.geometry.device),
            self.source,
            self.size,
            "zeros",
            self.sampling,
        )

    def compose(self, other: View) -> View:
        """First this view of the input, then `other` of what is seen: one view, resampled once."""
        if other.source != self.size:
            raise ValueError(f"the second view is of {other.source}, but the first one gives {self.size}")
        return View(
            compose(self.geometry, other.geometry),
            compose(other.colour, self.colour),
            other.size,
            self.source,
            self.padding,
            _coarser(self.sampling, other.sampling),
        )

    def between(self, other: View) -> View:
        """From this view to another view of the same images: what is here, seen there (colours stay)."""
        if other.source != self.source:
            raise ValueError(f"these are views of different inputs, of {self.source} and of {other.source}")
        still = identity_colour(len(other), other.colour.device)
        return self.inverse().compose(replace(other, colour=still))

    def to(self, device: torch.device | str) -> View:
        return replace(self, geometry=self.geometry.to(device), colour=self.colour.to(device))


def _coarser(one: Sampling, other: Sampling) -> Sampling:
    """The sampling that serves both."""
    order: tuple[Sampling, ...] = ("bilinear", "nearest", "none")
    return min(one, other, key=order.index)


def _coordinates(geometry: Tensor, size: Size) -> Tensor:
    height, width = size
    x = torch.arange(width, device=geometry.device) + 0.5
    y = torch.arange(height, device=geometry.device)[:, None] + 0.5
    matrix = geometry[..., None, None]
    # Planes of x and of y, not pairs: grid_sample reads both equally fast, and planes are made faster.
    return matrix[:, :, 0] * x + (matrix[:, :, 1] * y + matrix[:, :, 2])


def concatenate(views: Sequence[View]) -> View:
    """One view of all the images of several views of one size."""
    first = views[0]
    if any((v.size, v.source, v.padding) != (first.size, first.source, first.padding) for v in views):
        raise ValueError("only views of one size, source and padding can be concatenated")
    return replace(
        first,
        geometry=torch.cat([v.geometry for v in views]),
        colour=torch.cat([v.colour for v in views]),
        sampling=functools.reduce(_coarser, (v.sampling for v in views)),
    )


def paint(pixels: Float[Tensor, "batch 3 h w"], colour: Float[Tensor, "batch 3 4"]) -> Float[Tensor, "batch 3 h w"]:
    """Apply a colour matrix to each image, and clip to [0, 1]."""
    # Not baddbmm: it would first write the offset out to the size of the result.
    flat = torch.bmm(colour[:, :, :3], pixels.flatten(2)).add_(colour[:, :, 3:])
    return flat.clamp_(0, 1).view_as(pixels)


def compose(outer: Float[Tensor, "batch k l"], inner: Float[Tensor, "batch k l"]) -> Float[Tensor, "batch k l"]:
    """The affine map x → outer(inner(x))."""
    linear = outer[..., :-1]
    product = linear @ inner
    product[..., -1] += outer[..., -1]
    return product


def chain(*maps: Float[Tensor, "batch k l"]) -> Float[Tensor, "batch k l"]:
    """The affine map that applies the last of the given maps first."""
    result = maps[0]
    for inner in maps[1:]:
        result = compose(result, inner)
    return result


def apply(geometry: Float[Tensor, "batch 2 3"], points: Float[Tensor, "batch *any 2"]) -> Float[Tensor, "batch *any 2"]:
    """Points (x, y) moved by one map an image."""
    flat = points.reshape(len(points), -1, 2)
    return (flat @ geometry[:, :, :2].mT + geometry[:, None, :, 2]).view_as(points)


def determinant(geometry: Float[Tensor, "batch 2 3"]) -> Float[Tensor, "batch"]:
    (a, b), (c, d) = (row.unbind(-1)[:2] for row in geometry.unbind(-2))
    return a * d - b * c


def invert(geometry: Float[Tensor, "batch 2 3"]) -> Float[Tensor, "batch 2 3"]:
    """The inverse affine maps (Cramer's rule: exact for flips and shifts, and no call of LAPACK)."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in geometry.unbind(-2))
    scale = 1 / (a * d - b * c)
    entries = [d, -b, b * y - d * x, -c, a, c * x - a * y]
    return (torch.stack(entries, -1) * scale[..., None]).unflatten(-1, (2, 3))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


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
    """The same map with its origin in the centre of an image of the given size."""
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
    """Multiply: 0 is black, 1 leaves the image."""
    return torch.eye(3, 4, device=factor.device) * factor[:, None, None]


def contrast(factor: Float[Tensor, "batch"], grey: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Move away from the image's mean grey level: 0 is flat grey, 1 leaves the image."""
    return _with_offset(brightness(factor)[..., :3], ((1 - factor) * grey)[:, None, None])


def chroma(factor: Float[Tensor, "batch"], turn: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Stretch the chroma plane (YIQ's) by a factor and turn it by a share of the circle; the luma stays."""
    angle = 2 * math.pi * turn
    luma, in_phase, quadrature = _yiq(turn.device)
    cos, sin = (factor * angle.cos())[:, None, None], (factor * angle.sin())[:, None, None]
    return _with_offset(luma + cos * in_phase + sin * quadrature)


def saturation(factor: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Move away from each pixel's own grey: 0 is greyscale, 1 leaves the image."""
    return chroma(factor, torch.zeros_like(factor))


def hue(turn: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Turn the hues by a share of the colour circle, as a rotation of YIQ's chroma plane (affine, and the
    luma
    stays; torchvision turns HSV's hexagon, where the luma changes)."""
    return chroma(torch.ones_like(turn), turn)


def grayscale(grey: Bool[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """Grey, where `grey`."""
    return saturation((~grey).float())


def invert_colour(inverted: Bool[Tensor, "batch"]) -> Float[Tensor, "batch 3 4"]:
    """1 − value, where `inverted`."""
    linear = brightness(1 - 2 * inverted.float())[..., :3]
    return _with_offset(linear, inverted.float()[:, None, None])


def grey_level(rgb: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
    """The luma (ITU-R 601) of colours."""
    return rgb @ torch.tensor(LUMA, device=rgb.device)


@functools.cache
def _yiq(device: torch.device) -> Tensor:
    """The three matrices of a turn of hue in RGB: what stays, what goes with its cosine and its sine."""
    rows = [LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)]
    to_yiq = np.array(rows)
    parts = np.zeros((3, 3, 3))
    parts[0, 0, 0] = parts[1, 1, 1] = parts[1, 2, 2] = parts[2, 1, 2] = 1
    parts[2, 2, 1] = -1
    # by NumPy, as a count of FLOPs must not depend on whether a process did this before
    return torch.from_numpy(np.linalg.inv(to_yiq) @ parts @ to_yiq).float().to(device)
