"""Where a row comes from: its file name; its fold (train 0, test 1, neither −1); its original (height, width) in
pixels; and the affine matrix from packed pixel coordinates (x, y, 1) to those of the user's own image."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

TRAIN, TEST = 0, 1

KINDS = (
    Kind("name", torch.uint8, ("L",), "never", label=False),
    Kind("fold", torch.int8, (), label=False, headings=("fold", "split", "subset", "partition")),
    Kind("size", torch.int32, ("2",), "never", label=False),
    Kind("to_original", torch.float32, ("2", "3"), "never", label=False),
)
PROVENANCE = tuple(kind.name for kind in KINDS)
