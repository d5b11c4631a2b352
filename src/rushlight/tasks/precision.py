"""Average precision over any choice of images, from matches that are made once.

`faster-coco-eval` gives the scores that are reported; intervals need the same score of a hundred subsets of the
images, for which the matches of detections with true objects are kept (they do not depend on other images).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

IOUS = np.linspace(0.5, 0.95, 10)
"""COCO's thresholds of overlap."""
RECALLS = np.linspace(0, 1, 101)


def matched(
    overlap: Float[np.ndarray, "found true"], thresholds: Sequence[float] | np.ndarray = IOUS
) -> Bool[np.ndarray, "thresholds found"]:
    """Return which detections (sorted by score) match: each takes the free true object that it overlaps most."""
    hit = np.zeros((len(thresholds), len(overlap)), dtype=bool)
    free = np.ones((len(thresholds), overlap.shape[1]), dtype=bool)
    every = np.arange(len(thresholds))
    for i in range(len(overlap) if overlap.shape[1] else 0):
        masked = np.where(free, overlap[i], -1.0)
        best = overlap.shape[1] - 1 - masked[:, ::-1].argmax(1)  # of equals COCO takes the last
        hit[:, i] = masked[every, best] >= np.minimum(thresholds, 1 - 1e-10)
        free[every, best] &= ~hit[:, i]
    return hit


@dataclass(frozen=True)
class Matches:
    """All detections, the surest first, and all true objects.

    Attributes:
        row, label: image and class of each detection; hit: whether it matches, by threshold.
        true_row, true_label: image and class of each true object.
    """

    row: Int[np.ndarray, " found"]
    label: Int[np.ndarray, " found"]
    hit: Bool[np.ndarray, "thresholds found"]
    true_row: Int[np.ndarray, " true"]
    true_label: Int[np.ndarray, " true"]

    @classmethod
    def of(
        cls,
        found: Sequence[tuple[int, int, float]],
        hit: Sequence[Bool[np.ndarray, " thresholds"]],
        true: Sequence[tuple[int, int]],
    ) -> Matches:
        """Return the matches of detections (image, class, score) and true objects (image, class)."""
        told = np.array([(row, label, score) for row, label, score in found], dtype=np.float64).reshape(-1, 3)
        order = np.argsort(-told[:, 2], kind="stable")
        rows = np.array(true, dtype=np.int64).reshape(-1, 2)
        hits = np.array(hit, dtype=bool).reshape(-1, len(IOUS)).T[:, order]
        row, label = told[order, :2].astype(np.int64).T
        return cls(row, label, hits, rows[:, 0], rows[:, 1])

    def average_precision(self, rows: Int[np.ndarray, " n"]) -> float:
        """Return the mean over classes and thresholds, among these images; NaN where they hold no true object."""
        seen, there = np.isin(self.row, rows), np.isin(self.true_row, rows)
        values = [
            _average_precision(
                self.hit[:, seen & (self.label == label)], int((there & (self.true_label == label)).sum())
            )
            for label in np.unique(self.true_label[there])
        ]
        return float(np.mean(values)) if values else float("nan")


def _average_precision(hit: Bool[np.ndarray, "thresholds found"], true: int) -> float:
    """Return the precision at 101 levels of recall, each the highest at that recall or a higher one."""
    if not hit.shape[1]:
        return 0.0
    right = hit.cumsum(1)
    recall, precision = right / true, right / np.arange(1, hit.shape[1] + 1)
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    values = []
    for reached, highest in zip(recall, best, strict=True):
        place = np.searchsorted(reached, RECALLS, side="left")
        values.append(np.where(place < len(highest), highest[np.minimum(place, len(highest) - 1)], 0.0))
    return float(np.mean(values))
