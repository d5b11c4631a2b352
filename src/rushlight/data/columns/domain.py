"""Where a row comes from, as a number: the domain (in histology the slide), its study and magnification."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (
    Kind("domain", torch.int64, (), headings=("domain", "site", "source_domain")),
    Kind("study", torch.int64, (), label=False, headings=("study",)),
    Kind("magnification", torch.int64, (), label=False, headings=("magnification",)),
)
