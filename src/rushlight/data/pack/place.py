"""Where an image lies on its canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FITS: tuple[str, ...] = ("squash", "crop", "pad")


@dataclass(frozen=True)
class Placement:
    """How an upright image lies on its canvas.

    Attributes:
        box: the part of the image that is kept, x1, y1, x2, y2 in its own pixels.
        left, top, width, height: where that part lies on the canvas, in whole pixels.
    """

    box: tuple[float, float, float, float]
    left: int
    top: int
    width: int
    height: int

    @property
    def to_original(self) -> np.ndarray:
        """Return the 2×3 matrix from canvas coordinates (x, y, 1), pixel centres at ½, to those of the image."""
        x1, y1, x2, y2 = self.box
        across, down = (x2 - x1) / self.width, (y2 - y1) / self.height
        return np.array([[across, 0, x1 - self.left * across], [0, down, y1 - self.top * down]], dtype=np.float32)


def place(height: int, width: int, canvas: tuple[int, int], fit: str) -> Placement:
    """Return where an image of this size lies on a canvas (height, width).

    Args:
        fit: `squash` stretches it over the whole canvas, `crop` keeps the middle at the canvas's aspect,
            `pad` keeps all of it at its own aspect and leaves borders.
    """
    tall, wide = canvas
    if fit == "crop":
        scale = min(height / tall, width / wide)
        x, y = (width - wide * scale) / 2, (height - tall * scale) / 2
        return Placement((x, y, width - x, height - y), 0, 0, wide, tall)
    if fit == "pad":
        scale = min(tall / height, wide / width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        return Placement((0.0, 0.0, float(width), float(height)), (wide - w) // 2, (tall - h) // 2, w, h)
    return Placement((0.0, 0.0, float(width), float(height)), 0, 0, wide, tall)


def resample(values: np.ndarray, where: Placement, size: tuple[int, int]) -> np.ndarray:
    """Return the kept part of a raster of an image of this size, as it lies on the canvas: each pixel is the one under
    its centre. A raster may be smaller or larger than its image."""
    height, width = values.shape
    x1, y1, x2, y2 = where.box
    xs = (x1 + (np.arange(where.width) + 0.5) * (x2 - x1) / where.width) * width / size[1]
    ys = (y1 + (np.arange(where.height) + 0.5) * (y2 - y1) / where.height) * height / size[0]
    rows, columns = ys.astype(int).clip(0, height - 1), xs.astype(int).clip(0, width - 1)
    return values[rows[:, None], columns]
