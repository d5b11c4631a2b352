"""The units of intervals over test images: one number an image, or a block of images, whose mean is the metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rushlight.measure import stats
from rushlight.tasks.base import Parts, Task


def units(task: Task, parts: Parts, *, blocks: int = 100) -> np.ndarray:
    """Return numbers whose mean is the metric: of each image, or the jackknife's pseudo-values of blocks of images.

    Pseudo-values remove a bias from the mean; they are shifted back, so that the metric itself is shown.
    """
    rows = task.per_row(parts)
    if rows is not None:
        return rows.double().numpy()
    n, scorer = len(next(iter(parts.values()))), task.scorer(parts)

    def metric(chosen: Any) -> float:
        return scorer(torch.as_tensor(np.asarray(chosen)))

    values = stats.pseudo_values(metric, np.arange(n), min(blocks, n))
    return values + (task.value(parts) - values.mean())
