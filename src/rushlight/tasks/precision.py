"""Average precision without each of many blocks of images, from matches that are made once.

`faster-coco-eval` gives the scores that are reported; intervals need the same score without each of a hundred blocks of
images. Whether a detection matches does not depend on other images, and precision changes at matches alone: so a block
is left out by subtracting its counts at the matches of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

IOUS = np.linspace(0.5, 0.95, 10)
"""COCO's thresholds of overlap."""
RECALLS = np.linspace(0, 1, 101)
CELLS = 2**21
"""Blocks × matches that are counted at once, at most."""


def matched(
    overlap: Float[np.ndarray, "*batch found true"], thresholds: Sequence[float] | np.ndarray = IOUS
) -> Bool[np.ndarray, "*batch thresholds found"]:
    """Return which detections (sorted by score) match: each takes the free true object that it overlaps most."""
    *batch, found, true = overlap.shape
    least = np.minimum(thresholds, 1 - 1e-10)
    hit = np.zeros((int(np.prod(batch)), len(least), found), dtype=bool)
    overlap = overlap.reshape(len(hit), found, true)
    free = np.ones((len(hit), len(least), true), dtype=bool)
    may = overlap.max(-1, initial=-1.0) >= least.min()
    for i in may.any(0).nonzero()[0]:
        at = may[:, i].nonzero()[0]
        masked = np.where(free[at], overlap[at, None, i], -1.0)
        best = true - 1 - masked[..., ::-1].argmax(-1)[..., None]  # of equals COCO takes the last
        now = np.take_along_axis(masked, best, -1)[..., 0] >= least
        hit[at, :, i] = now
        still = free[at]
        np.put_along_axis(still, best, np.take_along_axis(still, best, -1) & ~now[..., None], -1)
        free[at] = still
    return hit.reshape(*batch, len(least), found)


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
        found: Float[np.ndarray, "images found 2"],
        true: Float[np.ndarray, "images true 2"],
        hit: Bool[np.ndarray, "images found thresholds"],
    ) -> Matches:
        """Return the matches of detections (class, score) and true objects (class, state); above 0 both are there."""
        row, place = (found[..., 1] > 0).nonzero()
        true_row, slot = (true[..., 1] > 0).nonzero()
        order = np.argsort(-found[row, place, 1], kind="stable")
        row, place = row[order], place[order]
        labels = (each[..., 0].astype(np.int64) for each in (found[row, place], true[true_row, slot]))
        label, true_label = labels
        return cls(row, label, hit[row, place].T, true_row, true_label)

    def left_out(self, block: Int[np.ndarray, " images"]) -> Float[np.ndarray, " blocks"]:
        """Return the mean over classes and thresholds without the images of each block 0 … B−1.

        NaN where the other images hold no true object; a class that they do not hold does not count.
        """
        labels = np.unique(self.true_label)
        values = np.full((len(labels), int(block.max()) + 1), np.nan)
        for number, label in enumerate(labels):
            own = self.label == label
            values[number] = _left_out(
                block[self.row[own]], self.hit[:, own], block[self.true_row[self.true_label == label]], values.shape[1]
            )
        defined = ~np.isnan(values)
        return np.divide(
            np.nansum(values, 0), defined.sum(0), out=np.full(len(values[0]), np.nan), where=defined.any(0)
        )


def _left_out(
    block: Int[np.ndarray, " found"],
    hit: Bool[np.ndarray, "thresholds found"],
    true: Int[np.ndarray, " true"],
    blocks: int,
) -> Float[np.ndarray, " blocks"]:
    """Return one class's average precision, averaged over thresholds, without each block; NaN without true objects.

    Args:
        block, true: the block of each detection and of each true object.
    """
    left = len(true) - np.bincount(true, minlength=blocks)
    values = np.zeros(blocks)
    for one in hit:
        step = max(1, CELLS // max(int(one.sum()), 1))
        for start in range(0, blocks, step):
            chosen = np.arange(start, min(start + step, blocks))
            values[chosen] += _precision(block, one, left[chosen], chosen) / len(hit)
    return np.where(left > 0, values, np.nan)


def _precision(
    block: Int[np.ndarray, " found"],
    hit: Bool[np.ndarray, " found"],
    true: Int[np.ndarray, " chosen"],
    chosen: Int[np.ndarray, " chosen"],
) -> Float[np.ndarray, " chosen"]:
    """Return the mean precision at 101 levels of recall, each the highest at that recall or a higher one.

    Args:
        true: how many true objects there are without each of the chosen blocks.
    """
    at, n = hit.nonzero()[0], len(chosen)
    if not len(at):
        return np.zeros(n)
    own = block[at] == chosen[:, None]  # chosen × matches
    matches = np.arange(1, len(at) + 1) - own.cumsum(1)  # up to each match, without the block's own
    precision = np.where(own, 0.0, matches / np.maximum(at + 1 - _up_to(block, at, chosen), 1))
    highest = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    values = np.zeros(n)
    for number in range(n):
        place = np.searchsorted(matches[number], _needed(int(true[number])), side="left")
        values[number] = highest[number, place[place < len(at)]].sum() / len(RECALLS)
    return values


@lru_cache(maxsize=1024)
def _needed(true: int) -> Int[np.ndarray, " levels"]:
    """Return how many matches each level of recall needs, for this number of true objects."""
    return np.searchsorted(np.arange(1, true + 1) / max(true, 1), RECALLS, side="left") + 1


def _up_to(
    block: Int[np.ndarray, " found"], at: Int[np.ndarray, " matches"], chosen: Int[np.ndarray, " chosen"]
) -> Int[np.ndarray, "chosen matches"]:
    """Return how many detections of each chosen block stand at or before each match."""
    gap = np.searchsorted(at, np.arange(len(block)), side="left")  # the match that each stands at or before
    wanted = (gap < len(at)) & (block >= chosen[0]) & (block <= chosen[-1])
    cell = (block[wanted] - chosen[0]) * len(at) + gap[wanted]
    return np.bincount(cell, minlength=len(chosen) * len(at)).reshape(len(chosen), len(at)).cumsum(1)
