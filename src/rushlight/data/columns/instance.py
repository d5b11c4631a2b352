"""The object that each pixel belongs to: 0 background, −1 unknown."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("instance", torch.int16, ("H", "W"), moves="instance"),)
