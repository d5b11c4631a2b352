"""Keypoints of each object: x, y in pixels, visibility (COCO's 0, 1, 2); visibility −1 is unknown."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("keypoints", torch.float32, ("M", "K", "3"), "last", moves="keypoints"),)
