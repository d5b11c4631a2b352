"""Edges of a graph whose nodes are the rows (a relation): 2×E, from and to."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (Kind("edges", torch.int64, ("2",), "never", label=False, form="relation"),)
