"""Several labels a row: 1 present, 0 absent, −1 unknown."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("tags", torch.int8, ("T",), headings=("tags",)),)
