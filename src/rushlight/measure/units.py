"""The units of intervals over test images: one number an image, a group or a block, whose mean is the metric."""

from __future__ import annotations

import numpy as np
import torch

from rushlight.measure import stats
from rushlight.run.evaluate import GROUP
from rushlight.tasks.base import Metric, Parts, Task


def units(
    task: Task, parts: Parts, metric: Metric | None = None, *, value: float | None = None, blocks: int = 100
) -> np.ndarray:
    """Return numbers whose mean is the metric: of each image, or the jackknife's pseudo-values of blocks of images.

    Where the parts say which group (patient, slide, video) each image is of, the units are groups. Pseudo-values remove
    a bias from the mean; they are shifted back, so that the metric itself is shown. They are NaN where the metric is
    not defined without some block.

    Args:
        metric: by default the task's. value: of the metric, where it has been computed.
    """
    metric = metric or task.metric
    groups = parts[GROUP].numpy() if GROUP in parts else None
    rows = task.per_row(parts) if metric == task.metric else None
    if rows is not None:
        values = rows.double().numpy()
        return values if groups is None else stats.by_group(values, groups)
    n = len(next(iter(parts.values())))
    block, whole = stats.blocks_of(n, min(blocks, n), groups), task.value(parts, metric) if value is None else value
    without = task.left_out(parts, torch.from_numpy(block), metric).numpy()
    values = stats.from_left_out(whole, without, block, grouped=groups is not None)
    return values + (whole - values.mean())
