"""Scores: what a judge alone may compute, from a model and labels that no stage has seen.

Every score keeps its parts, image by image, so that intervals can account for the choice of test images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def confusion(predicted: Int[Tensor, "n h w"], true: Tensor, classes: int) -> Int[Tensor, "n classes classes"]:
    """Return true × predicted pixel counts of each image; pixels that are 255 do not count."""
    cell = true.long() * classes + predicted.long()
    cell = torch.where(true == 255, classes * classes, cell).flatten(1)
    counts = torch.zeros(len(cell), classes * classes + 1, dtype=torch.int64, device=cell.device)
    counts.scatter_add_(1, cell, torch.ones_like(cell))
    return counts[:, :-1].view(-1, classes, classes)


def mean_iou(matrix: Int[Tensor, "classes classes"]) -> float:
    """Return the mean over the classes that occur (in truth or prediction) of intersection over union."""
    matrix = matrix.double()
    both = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - both
    return float((both / union)[union > 0].mean())


def dice(matrix: Int[Tensor, "classes classes"]) -> Float[Tensor, "classes"]:
    """Return Dice of each class, 2 TP / (2 TP + FP + FN), from true × predicted counts; NaN if it never occurs."""
    matrix = matrix.double()
    return 2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))


def mean_average_precision(scores: Float[Tensor, "n tags"], true: Int[Tensor, "n tags"]) -> float:
    """Return the mean over tags of average precision, over the known entries; tags never present do not count."""
    values = [_average_precision(s[t >= 0], t[t >= 0]) for s, t in zip(scores.T, true.T, strict=True) if (t == 1).any()]
    return float(np.mean(values)) if values else float("nan")


def _average_precision(scores: Tensor, true: Tensor) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(true.numpy(), scores.numpy()))


@dataclass(frozen=True)
class BestF1:
    """F1 of several labels an image, each at the threshold that is best for it.

    Attributes:
        overall: OF1, from the counts of all tags together; per_class: CF1, the harmonic mean of precision and recall
            averaged over tags.
        overall_threshold, per_class_threshold: where these were reached.
    """

    overall: float
    per_class: float
    overall_threshold: float
    per_class_threshold: float


def best_f1(scores: Float[Tensor, "n tags"], true: Int[Tensor, "n tags"]) -> BestF1:
    """Return OF1 and CF1 at the best of the thresholds 0.01 … 0.99, scores being probabilities.

    The threshold is chosen on the rows that are scored, as is the custom of this measure: it flatters.
    """
    thresholds = [step / 100 for step in range(1, 100)]
    values = torch.tensor([f1_at(scores, true, threshold) for threshold in thresholds])
    overall, per_class = values.argmax(0).tolist()
    return BestF1(float(values[overall, 0]), float(values[per_class, 1]), thresholds[overall], thresholds[per_class])


def f1_at(scores: Float[Tensor, "n tags"], true: Int[Tensor, "n tags"], threshold: float) -> tuple[float, float]:
    """Return OF1 and CF1 at one threshold, among the entries that are known.

    A tag that is never present is left out of CF1's averages (it has no recall); one that is never predicted has a
    precision of 0.
    """
    known, said, is_there = true >= 0, scores >= threshold, true == 1
    hits, says, present = ((known & x).sum(0).double() for x in (said & is_there, said, is_there))
    occurs = present > 0
    precision, recall = hits / says.clamp(min=1), hits / present.clamp(min=1)
    overall = _f1(float(hits.sum() / says.sum().clamp(min=1)), float(hits.sum() / present.sum().clamp(min=1)))
    if not occurs.any():
        return overall, float("nan")
    return overall, _f1(float(precision[occurs].mean()), float(recall[occurs].mean()))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def balanced_accuracy(predicted: Int[Tensor, "n"], true: Int[Tensor, "n"]) -> float:
    """Return the mean recall over the classes that occur; a class for what is unknown counts like any other."""
    predicted, true = predicted.long(), true.long()
    counts = torch.bincount(true)
    right = torch.bincount(true[predicted == true], minlength=len(counts)).double()
    return float((right / counts)[counts > 0].mean())


def border_band(masks: Tensor, width: int = 2) -> Bool[Tensor, "n h w"]:
    """Return pixels at most `width` away (in rows and columns) from a pixel of another class; 255 has no borders."""
    classes = F.pad(masks.float()[:, None], (width,) * 4, mode="replicate")
    classes = classes.masked_fill(classes == 255, float("nan"))
    low, high = classes.nan_to_num(-1e9), classes.nan_to_num(1e9)
    side = 2 * width + 1
    largest, smallest = F.max_pool2d(low, side, 1), -F.max_pool2d(-high, side, 1)
    return (largest != smallest)[:, 0] & (masks != 255)


def band_iou(predicted: Int[Tensor, "n h w"], true: Tensor, classes: int, *, width: int = 2) -> float:
    """Return the mean IoU within a band of `width` pixels on both sides of the true borders."""
    inside = torch.where(border_band(true, width), true, 255)
    return mean_iou(confusion(predicted, inside, classes).sum(0))
