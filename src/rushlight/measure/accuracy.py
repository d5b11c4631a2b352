"""How often a model is right: the task's metric with its interval over images, and what stands beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rushlight.core.findings import Findings, Measure
from rushlight.measure import stats
from rushlight.measure.units import units
from rushlight.tasks import Metric, Task
from rushlight.tasks.base import Parts

BLOCKS = 50
"""Blocks of images whose jackknife pseudo-values stand for a metric that is no mean over images."""


def accuracy(task: Task, parts: Parts) -> Findings:
    """Return the task's metric with its 95 % interval over images, and the metrics beside it that are defined."""
    n = len(next(iter(parts.values())))
    found = [measure(metric, value, n) for metric, value in task.measured(parts).items()]
    headline = ""
    if found and found[0].name == task.metric.name:
        low, high = interval(task, parts)
        found[0] = replace(found[0], low=low, high=high, figure=task.metric.name)
        headline = said(task.metric, found[0])
    return Findings("accuracy", tuple(found), title="How often it is right", headline=headline, priority=0)


def measure(metric: Metric, value: float, n: int) -> Measure:
    """Return a metric's value as a measure."""
    if metric.bounds == (0.0, 1.0):
        return Measure(metric.name, value, kind="share", n=n)
    return Measure(metric.name, value * metric.scale, unit=metric.unit, n=n)


def interval(task: Task, parts: Parts) -> tuple[float, float]:
    """Return the 95 % interval of the task's metric over images; the metric's bounds where it cannot be computed."""
    bounds = task.metric.bounds or stats.UNBOUNDED
    values = units(task, parts, blocks=BLOCKS)
    if len(values) < 2 or not np.isfinite(values).all():
        return bounds
    found = stats.single(values[None], bounds=bounds)
    return found.low, found.high


def said(metric: Metric, found: Measure) -> str:
    """Return the metric as a clause: `accuracy 91.2 % (89.0 to 93.1) on 500 images`."""
    scale, unit = (100, " %") if found.kind == "share" else (1, f" {metric.unit}")
    ends = f"{scale * (found.low or 0):.1f} to {scale * (found.high or 0):.1f}"
    return f"{found.name} {scale * found.value:.1f}{unit} ({ends}) on {found.n:,} images"
