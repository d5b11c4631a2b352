"""What belongs together: rows of one patient, slide or video are on one side of every split. −1 is a row by itself."""

from __future__ import annotations

import torch

from rushlight.data.columns.base import Kind

KINDS = (
    Kind("group", torch.int64, (), label=False,
         headings=("group", "patient", "patient_id", "subject", "subject_id", "slide", "slide_id", "video", "video_id",
                   "site")),
)  # fmt: skip
"""Of several such headings the first counts: a patient has several slides, a site several patients."""
