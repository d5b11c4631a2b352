"""Images: uint8, RGB."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("image", torch.uint8, ("3", "H", "W"), "never", moves="images", label=False, input=True),)
