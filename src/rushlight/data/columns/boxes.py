"""Boxes: x1, y1, x2, y2 in pixels, class, visibility. A slot without a box has visibility 0; −1 is unknown, so an
image that is known to be empty differs from one of which nothing is known."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("boxes", torch.float32, ("M", "6"), "last", moves="boxes"),)
