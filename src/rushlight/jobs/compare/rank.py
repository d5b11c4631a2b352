"""Recipes ranked by their paired scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rushlight import tasks
from rushlight.core.catalogue import serving
from rushlight.core.errors import UserError
from rushlight.measure import stats
from rushlight.measure.units import units
from rushlight.run.trial import Result


def reference() -> str | None:
    """Return the id of the method that gains are measured against."""
    return next((card.id for card in serving("reference")), None)


def rank(results: Sequence[Result], task: str, reference: str | None = None) -> stats.Ranking:
    """Rank recipes over the seeds that all of those have finished that did not fail.

    A recipe that failed on a seed is left out, so that its seed is kept for the others; only where every recipe
    failed somewhere are they ranked over the seeds that remain to all.

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
    matrices = {r: np.stack([units(tasks.find(task), by[s].parts) for s in seeds]) for r, by in ranked.items()}
    return stats.compare_with_best(matrices, reference=reference if reference in matrices else None)
