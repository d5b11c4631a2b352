"""Recipes ranked by their paired scores."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from rushlight import tasks
from rushlight.core.catalogue import serving
from rushlight.core.errors import UserError
from rushlight.core.findings import NAN
from rushlight.measure import stats
from rushlight.measure.units import units
from rushlight.run.trial import Result
from rushlight.tasks import Metric, Task

TOO_FEW = "one seed on one test image (or group) tells nothing: give more --seeds, or label more images"


def reference() -> str | None:
    """Return the id of the method that gains are measured against."""
    return next((card.id for card in serving("reference")), None)


def rank(results: Sequence[Result], task: str, reference: str | None = None) -> stats.Ranking:
    """Rank recipes over the seeds that every recipe without a failure has finished.

    A recipe that failed on a seed is left out, so that its seed is kept for the others; only where every recipe
    failed somewhere are they ranked over the seeds that remain to all.

    Raises:
        UserError: nothing has finished, or no seed for every recipe.
    """
    ranked, seeds = _paired(results)
    found = tasks.find(task)
    matrices = {
        recipe: np.stack([_units(by[seed], found, found.metric) for seed in seeds]) for recipe, by in ranked.items()
    }
    if next(iter(matrices.values())).size < 2:
        raise UserError(TOO_FEW)
    bounds = found.metric.bounds or stats.UNBOUNDED
    return stats.compare_with_best(matrices, reference=reference if reference in matrices else None, bounds=bounds)


def beside(results: Sequence[Result], task: str) -> dict[str, dict[str, stats.Interval]]:
    """Return the task's further metrics, by name, of each recipe that is ranked, over the seeds that are ranked.

    Each interval covers other seeds and other test images, as that of the task's metric does; its ends are NaN where
    a block of images cannot be left out (too few of a kind), and its mean is that of the trials.
    """
    ranked, seeds = _paired(results)
    found, told = tasks.find(task), {name for by in ranked.values() for result in by.values() for name in result.beside}
    return {
        metric.name: {recipe: _interval([by[s] for s in seeds], found, metric) for recipe, by in ranked.items()}
        for metric in found.also
        if metric.name in told
    }


def _interval(results: Sequence[Result], task: Task, metric: Metric) -> stats.Interval:
    mean = float(np.mean([result.beside.get(metric.name, NAN) for result in results]))
    scores = np.stack([_units(result, task, metric) for result in results]) if np.isfinite(mean) else np.array([NAN])
    if not np.isfinite(scores).all():
        return stats.Interval(mean, NAN, NAN, NAN, NAN)
    return stats.single(scores, bounds=metric.bounds or stats.UNBOUNDED)


def _paired(results: Sequence[Result]) -> tuple[dict[str, dict[int, Result]], list[int]]:
    """Return the finished results of the recipes that are ranked, by seed, and the seeds that all of these have.

    Raises:
        UserError: nothing has finished, or no seed for every recipe.
    """
    done: dict[str, dict[int, Result]] = {}
    for result in results:
        if not result.failed:
            done.setdefault(result.trial.recipe, {})[result.trial.seed] = result
    if not done:
        raise UserError("no trial finished: " + next((r.failed for r in results if r.failed), "none was run"))
    failed = {result.trial.recipe for result in results if result.failed}
    ranked = {recipe: by for recipe, by in done.items() if recipe not in failed} or done
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in ranked.values())))
    if not seeds:
        raise UserError("no seed has finished for every recipe: there is nothing to compare")
    return ranked, seeds


_KEPT: WeakKeyDictionary[Result, dict[str, np.ndarray]] = WeakKeyDictionary()


def _units(result: Result, task: Task, metric: Metric) -> np.ndarray:
    """Return a finished trial's units of intervals, which are computed once, however often it is ranked."""
    kept = _KEPT.setdefault(result, {})
    if metric.name not in kept:
        value = result.beside.get(metric.name, result.value)
        kept[metric.name] = units(task, result.parts, metric, value=value)
    return kept[metric.name]
