"""Draw boxes, dots and lines on an image, for a report."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip
"""Of the classes, by number, over and over."""
WHITE, GREY = (255, 255, 255), (200, 200, 200)


def boxes_on(
    image: UInt8[Tensor, "3 height width"], boxes: Float[Tensor, "n 4"], colours: Int[Tensor, "n"] | None
) -> UInt8[Tensor, "3 height width"]:
    """Return the image with the outlines of boxes, in the colours of these numbers; None draws in white."""
    image, (height, width) = image.clone(), image.shape[1:]
    for i, (x1, y1, x2, y2) in enumerate(boxes.round().long().tolist()):
        left, right = (min(max(x, 0), width - 1) for x in (x1, x2 - 1))
        top, bottom = (min(max(y, 0), height - 1) for y in (y1, y2 - 1))
        colour = torch.tensor(WHITE if colours is None else COLOURS[int(colours[i]) % len(COLOURS)])
        colour = colour.to(torch.uint8)[:, None]
        image[:, top, left : right + 1] = image[:, bottom, left : right + 1] = colour
        image[:, top : bottom + 1, left] = image[:, top : bottom + 1, right] = colour
    return image


def dots_on(
    image: UInt8[Tensor, "3 height width"], points: Float[Tensor, "n 2"], colours: Int[Tensor, "n"] | None
) -> UInt8[Tensor, "3 height width"]:
    """Return the image with a square of three pixels at each point, or one white pixel where there are no colours."""
    half = 0.5 if colours is None else 1.5
    image = boxes_on(image, torch.cat([points.floor() + 0.5 - half, points.floor() + 0.5 + half], 1), colours)
    return image if colours is None else boxes_on(image, torch.cat([points.floor(), points.floor() + 1], 1), colours)


def lines_on(
    image: UInt8[Tensor, "3 height width"], starts: Float[Tensor, "n 2"], ends: Float[Tensor, "n 2"]
) -> UInt8[Tensor, "3 height width"]:
    """Return the image with a grey line, one pixel wide, from each start (x, y) to its end, clipped to the image."""
    image, (height, width) = image.clone(), image.shape[1:]
    for start, end in zip(starts.double(), ends.double(), strict=True):
        steps = int((end - start).abs().amax().ceil()) + 1
        share = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
        x, y = (start + share * (end - start)).floor().long().unbind(1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        image[:, y[inside], x[inside]] = torch.tensor(GREY, dtype=torch.uint8)[:, None]
    return image
