"""Who leads where several are measured by several tasks: z-scores, ranks, and how alike the tasks order them.

A task's unit must not decide: each column is brought to mean 0 and standard deviation 1 *over the backbones*, then a
backbone's z-scores are averaged. So an affine change of a task's metric changes nothing, and a task that stands there
twice counts twice. What was not measured (NaN) is left out of a column's mean and of a row's average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Scores = Mapping[str, Sequence[float]]
"""Task → one score a backbone; NaN where it was not measured."""


@dataclass(frozen=True)
class Ranking:
    """A contest's result.

    Attributes:
        names: of the backbones. tasks: that tell them apart (a task in which all are equal does not).
        z: backbone × task. mean: of each backbone over its tasks. rank: 1 the best.
        spearman, pearson: task × task, over the backbones that have both.
    """

    names: tuple[str, ...]
    tasks: tuple[str, ...]
    z: Float[np.ndarray, "backbones tasks"]
    mean: Float[np.ndarray, " backbones"]
    rank: np.ndarray
    spearman: Float[np.ndarray, "tasks tasks"]
    pearson: Float[np.ndarray, "tasks tasks"]

    @property
    def agreement(self) -> float:
        """Return the mean of Spearman's correlation over pairs of different tasks."""
        pairs = self.spearman[np.triu_indices(len(self.tasks), 1)]
        return float(np.nanmean(pairs)) if np.isfinite(pairs).any() else float("nan")

    def of_group(self, tasks: Sequence[str]) -> Float[np.ndarray, " backbones"]:
        """Return each backbone's mean z over some of the tasks."""
        return _mean(self.z[:, [self.tasks.index(task) for task in tasks if task in self.tasks]])


def zscore_ranking(names: Sequence[str], scores: Scores) -> Ranking:
    """Return z-scores, ranks and correlations; higher scores are better."""
    values = np.array([list(column) for column in scores.values()], dtype=float).reshape(len(scores), len(names)).T
    told = [t for t in range(values.shape[1]) if _spread(values[:, t]) > 0]
    values = values[:, told]
    z = (values - _mean(values.T)) / np.array([_spread(column) for column in values.T])
    mean = _mean(z)
    order = np.argsort(-np.nan_to_num(mean, nan=-np.inf), kind="stable")
    rank = np.empty(len(names), dtype=int)
    rank[order] = np.arange(1, len(names) + 1)
    tasks = tuple(np.array(list(scores), dtype=object)[told])
    return Ranking(tuple(names), tasks, z, mean, rank, _correlations(values, True), _correlations(values, False))


def _spread(column: np.ndarray) -> float:
    """Return the standard deviation of the known values; 0 where they differ only by rounding."""
    known = column[np.isfinite(column)]
    spread = float(known.std()) if len(known) > 1 else 0.0
    return spread if spread > 1e-9 * max(float(np.abs(known).max(initial=0.0)), 1e-12) else 0.0


def _mean(rows: np.ndarray) -> np.ndarray:
    """Return the mean of each row over its known values."""
    known = np.isfinite(rows)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, rows, 0.0).sum(1) / np.maximum(count, 1), np.nan)


def _correlations(values: np.ndarray, ranks: bool) -> np.ndarray:
    from scipy.stats import pearsonr, spearmanr

    n = values.shape[1]
    found = np.eye(n)
    for i, j in zip(*np.triu_indices(n, 1), strict=True):
        both = np.isfinite(values[:, i]) & np.isfinite(values[:, j])
        pair = values[both][:, [i, j]].T
        alike = len(pair[0]) > 2 and min(_spread(column) for column in pair) > 0
        measure = spearmanr if ranks else pearsonr
        found[i, j] = found[j, i] = float(measure(*pair).statistic) if alike else np.nan
    return found
