"""Choosing from an open set what lies nearest to a target: greedy rounds over centroids, with a stop (SimCore).

For centroids c of the target and candidates u, all of length 1, s[u, c] = ⟨u, c⟩. In each round every centroid takes
its best candidate that no earlier round took; what several take counts once. A round's utility is the mean of what its
centroids took; it never rises. The threshold is a share of the utility of an early round; the first round below it is
not taken. (Kim et al., 2023, arXiv:2303.11101; code: sungnyun/openssl-simcore, util/sampling.py.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 50_000
"""Candidates whose similarities to all centroids are held at once."""


@dataclass(frozen=True)
class Coreset:
    """What was chosen.

    Attributes:
        rows: of the candidates, in the order of rounds. similarity: of each to the centroid that took it first.
        utilities: of each round that was looked at, the one that stopped it included.
        threshold: under which it stops; NaN before the round that sets it.
        stopped: whether a round lay below the threshold (else the budget, or the candidates, ended it).
    """

    rows: Int[Tensor, "chosen"]
    similarity: Float[Tensor, "chosen"]
    utilities: list[float]
    threshold: float
    stopped: bool


def select(
    candidates: Float[Tensor, "n dim"],
    centroids: Float[Tensor, "k dim"],
    *,
    budget: int,
    patience: int = 20,
    factor: float | None = 0.95,
    seed: int = 0,
) -> Coreset:
    """Choose at most `budget` candidates in greedy rounds.

    Args:
        candidates, centroids: of any length; both are brought to length 1.
        budget: how many at most; the last round is cut at random to fit it.
        patience: the round whose utility, times `factor`, is the threshold.
        factor: None never stops before the budget.
        seed: of the cut.
    """
    queues = _Queues(candidates, F.normalize(centroids.float(), dim=1), depth=2 * budget // len(centroids) + 100)
    taken = np.zeros(len(candidates), dtype=bool)
    rows: list[int] = []
    similarity: list[float] = []
    utilities, threshold = [], float("nan")
    budget = min(budget, len(candidates))
    while len(rows) < budget:
        found = queues.best(taken)
        if not found:
            break
        utilities.append(float(np.mean([value for _, value in found])))
        if factor is not None and len(utilities) == patience:
            threshold = factor * utilities[-1]
        if utilities[-1] < threshold:
            return _coreset(rows, similarity, utilities, threshold, True)
        new: dict[int, float] = {}
        for row, value in found:
            new.setdefault(row, value)
        kept = _cut(list(new), budget - len(rows), seed)
        rows += kept
        similarity += [new[row] for row in kept]
        taken[kept] = True
    return _coreset(rows, similarity, utilities, threshold, False)


def _cut(rows: list[int], room: int, seed: int) -> list[int]:
    if len(rows) <= room:
        return rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:room]
    return [rows[i] for i in order.sort().values.tolist()]


def _coreset(
    rows: list[int], similarity: list[float], utilities: list[float], threshold: float, stopped: bool
) -> Coreset:
    return Coreset(torch.tensor(rows, dtype=torch.long), torch.tensor(similarity), utilities, threshold, stopped)


class _Queues:
    """For each centroid its candidates from the most similar on, as many as are needed: sorting all is not."""

    def __init__(self, candidates: Tensor, centroids: Tensor, depth: int):
        self.candidates, self.centroids = candidates, centroids
        self._fill(depth)

    def _fill(self, depth: int) -> None:
        self.depth = min(depth, len(self.candidates))
        values, rows = _most_similar(self.candidates, self.centroids, self.depth)
        self.values, self.rows = values.numpy(), rows.numpy()
        self.step_index = [0] * len(self.centroids)

    def best(self, taken: np.ndarray) -> list[tuple[int, float]]:
        """Return the best candidate that is left, and its similarity, for each centroid that has one."""
        found = []
        for c in range(len(self.centroids)):
            if not self._advance(c, taken):
                if self.depth == len(self.candidates):
                    continue
                self._fill(4 * self.depth)
                return self.best(taken)
            place = self.step_index[c]
            found.append((int(self.rows[c, place]), float(self.values[c, place])))
        return found

    def _advance(self, c: int, taken: np.ndarray) -> bool:
        """Move past the taken candidates; return whether any is left in this queue."""
        rows = self.rows[c]
        while self.step_index[c] < self.depth and taken[rows[self.step_index[c]]]:
            self.step_index[c] += 1
        return self.step_index[c] < self.depth


def _most_similar(candidates: Tensor, centroids: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Return the highest similarities of each centroid and their rows, in descending order: k × depth. Candidates are
    compared block by block, and each block's best are merged with those held so far."""
    values = torch.empty(len(centroids), 0)
    rows = torch.empty(len(centroids), 0, dtype=torch.long)
    for start in range(0, len(candidates), BLOCK):
        part = F.normalize(candidates[start : start + BLOCK].float(), dim=1)
        best = (centroids @ part.T).topk(min(depth, len(part)), dim=1)
        values, rows = torch.cat([values, best.values], 1), torch.cat([rows, best.indices + start], 1)
        if values.shape[1] > depth:
            kept = values.topk(depth, dim=1)
            values, rows = kept.values, rows.gather(1, kept.indices)
    order = values.argsort(dim=1, descending=True, stable=True)
    return values.gather(1, order), rows.gather(1, order)
