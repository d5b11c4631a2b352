"""The units of intervals over test images: one number an image, a group or a block, whose mean is the metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rushlight.measure import stats
from rushlight.run.evaluate import GROUP
from rushlight.tasks.base import Parts, Task


def units(task: Task, parts: Parts, *, blocks: int = 100) -> np.ndarray:
    """Return numbers whose mean is the metric: of each image, or the jackknife's pseudo-values of blocks of images.

    Where the parts say which group (patient, slide, video) each image is of, the units are groups.

    Pseudo-values remove a bias from the mean; they are shifted back, so that the metric itself is shown.
    """
    groups = parts[GROUP].numpy() if GROUP in parts else None
    rows = task.per_row(parts)
    if rows is not None:
        values = rows.double().numpy()
        return values if groups is None else stats.by_group(values, groups)
    n, scorer = len(next(iter(parts.values()))), task.scorer(parts)

    def metric(chosen: Any) -> float:
        return scorer(torch.as_tensor(np.asarray(chosen)))

    values = stats.pseudo_values(metric, np.arange(n), min(blocks, n), groups)
    return values + (task.value(parts) - values.mean())
