"""Features that somebody has computed already: an input of vectors."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("features", torch.float32, ("D",), "never", label=False, input=True),)
