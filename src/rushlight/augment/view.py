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

import torch
from jaxtyping import Bool, Float, Num, Shaped
from torch import Tensor
from torch.nn import functional as F

from rushlight.augment.affine import Size, apply, compose, determinant, identity_colour, invert, resize

Padding = Literal["reflect", "border", "zeros"]
Sampling = Literal["bilinear", "nearest", "none"]


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
        """Return a view of the whole image, resized to `size` where that differs."""
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
        """Return the view's pixels, in [0, 1].

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
        """Return the colour matrix and float pixels: bytes are scaled to [0, 1] in the matrix, not in the pixels."""
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
        """Return where the centre of each output pixel lies in the input."""
        return _coordinates(self.geometry, self.size)

    def inside(self) -> Bool[Tensor, "batch h w"]:
        """Return which output pixels have their centres in the input."""
        height, width = self.source
        x, y = self.coordinates().unbind(1)
        return (x >= 0) & (x < width) & (y >= 0) & (y < height)

    def nearest(
        self, values: Shaped[Tensor, "batch *channels height width"], fill: int | float
    ) -> Shaped[Tensor, "batch *channels h w"]:
        """Return values of any type at the nearest input pixel; `fill` outside the input, whatever the padding."""
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
        """Return class masks in the view: the nearest pixel's class, `fill` (unknown) outside."""
        return self.nearest(masks, fill)

    def depth(self, depth: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch h w"]:
        """Return depth in the view: the nearest pixel's (a mean across an edge is no real depth), NaN outside."""
        return self.nearest(depth, math.nan)

    def instance(self, instance: Shaped[Tensor, "batch height width"]) -> Shaped[Tensor, "batch h w"]:
        """Return instance numbers in the view, −1 (unknown) outside."""
        return self.nearest(instance, -1)

    def points(self, points: Float[Tensor, "batch *any 2"]) -> Float[Tensor, "batch *any 2"]:
        """Return points (x, y) of the input in the view's coordinates."""
        return apply(invert(self.geometry), points)

    def inverse_points(self, points: Float[Tensor, "batch *any 2"]) -> Float[Tensor, "batch *any 2"]:
        """Return points (x, y) of the view in the input's coordinates."""
        return apply(self.geometry, points)

    def boxes(self, boxes: Float[Tensor, "batch slots 6"], *, visible: float = 0.3) -> Float[Tensor, "batch slots 6"]:
        """Return boxes (x1, y1, x2, y2, class, visibility) in the view, each the upright box around the moved one.

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
        """Return keypoints (x, y, visibility) in the view. Those outside the view get visibility 0 and lie at (0, 0),
        as COCO writes them; −1 (unknown) stays. A flip does not swap left and right: see `flipped`."""
        moved = self.points(keypoints[..., :2])
        height, width = self.size
        x, y = moved.unbind(-1)
        here = (x >= 0) & (x <= width) & (y >= 0) & (y <= height) & (keypoints[..., 2] > 0)
        visibility = torch.where(here | (keypoints[..., 2] < 0), keypoints[..., 2], 0)
        return torch.cat([torch.where(here[..., None], moved, 0), visibility[..., None]], -1)

    def inverse_images(self, images: Num[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Return the view's images in the input's frame (black where the view did not look)."""
        return self.inverse().images(images)

    def inverse_masks(
        self, masks: Shaped[Tensor, "batch *channels h w"], fill: int | float = 255
    ) -> Shaped[Tensor, "batch *channels height width"]:
        """Return the view's masks in the input's frame, `fill` where the view did not look."""
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
        """Return which images are seen mirrored (left and right keypoints must change their names there)."""
        return determinant(self.geometry) < 0

    def crop_boxes(self) -> Float[Tensor, "batch 4"]:
        """Return the upright box of the input that the view looks at: (x1, y1, x2, y2) as shares of its width and
        height, clipped to [0, 1]."""
        height, width = self.size
        corners = torch.tensor([[0, 0], [width, 0], [0, height], [width, height]], device=self.geometry.device)
        seen = apply(self.geometry, corners.to(self.geometry.dtype).expand(len(self), 4, 2))
        seen = seen / torch.tensor([self.source[1], self.source[0]], device=seen.device)
        return torch.cat([seen.amin(1), seen.amax(1)], 1).clamp(0, 1)

    def inverse(self) -> View:
        """Return the map back to the input's frame. Colours stay as seen, because grey cannot be undone."""
        return View(
            invert(self.geometry),
            identity_colour(len(self), self.geometry.device),
            self.source,
            self.size,
            "zeros",
            self.sampling,
        )

    def compose(self, other: View) -> View:
        """Return the view that applies this view to the input, then `other` to the result, resampled only once."""
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
        """Return the view from this view's frame to that of another view of the same images (colours stay)."""
        if other.source != self.source:
            raise ValueError(f"these are views of different inputs, of {self.source} and of {other.source}")
        still = identity_colour(len(other), other.colour.device)
        return self.inverse().compose(replace(other, colour=still))

    def to(self, device: torch.device | str) -> View:
        return replace(self, geometry=self.geometry.to(device), colour=self.colour.to(device))


def _coarser(one: Sampling, other: Sampling) -> Sampling:
    """Return the sampling that serves both."""
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
    """Return one view of all the images of several views of one size."""
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


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
