"""Volumes: one channel of depth × height × width, such as a CT's."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("volume", torch.float32, ("C", "D", "H", "W"), "never", label=False, input=True),)
