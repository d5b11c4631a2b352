"""A sparse map of class scores over an image, as an annotator leaves it; id −1 is unknown."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (
    Kind("label_map_values", torch.float32, ("k", "h", "w"), "never", label=False),
    Kind("label_map_ids", torch.int64, ("k", "h", "w"), label=False),
)
