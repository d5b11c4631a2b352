"""One class a row; −1 is unknown."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("class", torch.int64, (), headings=("class", "label", "category", "target", "class_name")),)
