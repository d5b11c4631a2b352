"""Clouds of points, as many a row as there are (ragged): x, y, z and what else is measured; and each point's class."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (
    Kind("points", torch.float32, ("C",), "never", label=False, input=True, form="ragged"),
    Kind("point_class", torch.int64, (), form="ragged"),
)
