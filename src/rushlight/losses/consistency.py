"""Consistency: what a model says of one view is the target for another, where it is sure enough.

A pseudo-label is a target, a mask of where it counts and a weight. Here are the losses on that triple and the
pure rules that fill it: a fixed threshold (FixMatch), a threshold that follows the batch's mean confidence
(CW-BASS), distribution alignment with a history of batch means (ReMixMatch, IOMatch), ramps of the loss's
weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from rushlight.core.distributed import all_sum, world_size

Logits = Float[Tensor, "batch classes *space"]
Targets = Float[Tensor, "batch classes *space"] | Integer[Tensor, "batch *space"]
Entries = Float[Tensor, "batch *space"]


def soft_cross_entropy(logits: Logits, targets: Targets) -> Entries:
    """Return −Σₖ tₖ log softmax(z)ₖ of each sample or pixel.

    `targets` are probabilities (same shape as the logits) or class ids; an id outside the classes is an
    error.
    """
    if targets.is_floating_point():
        return -(targets * logits.log_softmax(1)).sum(1)
    return F.cross_entropy(logits, targets.long(), reduction="none")


def masked_cross_entropy(
    logits: Logits,
    targets: Targets,
    mask: Bool[Tensor, "batch *space"],
    weight: Entries | None = None,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the entries in `mask`, averaged over ALL entries (FixMatch, equation 4).

    arXiv 2001.07685. Dividing by all, not by the selected, lets the loss grow as more of the batch is
    trusted. Entries outside the mask cost nothing and may hold any target, unknown (−1, 255) included.

    Args:
        logits: of a sample, or of its pixels, classes on axis 1.
        targets: class ids, or probabilities (no sharpening is done).
        weight: multiplies each entry's loss.
    """
    if not targets.is_floating_point():
        targets = targets.masked_fill(~mask, 0)
    loss = soft_cross_entropy(logits, targets).where(mask, 0)
    return (loss if weight is None else loss * weight).mean()


def dynamic_threshold(
    confidence: Float[Tensor, "*entries"],
    *,
    base: float = 0.6,
    sensitivity: float = 0.5,
    low: float = 0.3,
    high: float = 0.8,
) -> Float[Tensor, ""]:
    """Return clamp(base / (1 + exp(−sensitivity (mean(c) − ½))), low, high): CW-BASS' threshold (arXiv 2502.15152),
    with c of the joined batch of all processes.

    With these defaults it can only move between 0.300 (mean confidence ½) and 0.337 (mean confidence 1),
    and so keeps almost everything: watch the share that is kept, and raise `base` and `low` if that is too
    much.
    """
    mean = all_sum(confidence.mean()) / world_size()
    return (base * torch.sigmoid(sensitivity * (mean - 0.5))).clamp(low, high)


def enqueue(
    history: Float[Tensor, "slots classes"], probabilities: Float[Tensor, "batch classes"], position: int
) -> Float[Tensor, "slots classes"]:
    """Return a copy of the history of batch means, with slot `position` (modulo its length) set to this batch's."""
    history = history.clone()
    history[position % len(history)] = probabilities.detach().mean(0)
    return history


def align(
    probabilities: Float[Tensor, "batch classes"],
    history: Float[Tensor, "slots classes"],
    *,
    prior: Float[Tensor, "classes"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "batch classes"]:
    """Align distributions: return p · (prior + ε) / (mean of the history + ε), renormalised.

    As IOMatch's official code does it: the current batch's mean enters the history first (`enqueue`), the
    history starts at zeros, and the mean is over all slots, empty ones too (renormalising cancels that but
    for ε). The prior is uniform unless given.
    """
    wanted = 1 / probabilities.shape[1] if prior is None else prior
    aligned = probabilities * (wanted + eps) / (history.mean(0) + eps)
    return aligned / aligned.sum(1, keepdim=True)


def mean_squared_log(
    log_targets: Float[Tensor, "batch classes"], log_probabilities: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Return Σ_c mean_i (log q_ic − log p_ic)²: consistency in log space (VPU, arXiv 1906.02696, equation 9)."""
    return (log_targets - log_probabilities).square().mean(0).sum()


def linear_ramp(step: int | float, length: int | float) -> float:
    """Return 0 at step 0, 1 from step `length` on (and everywhere if `length` is 0), linear between."""
    return min(1.0, max(0.0, step / length)) if length > 0 else 1.0
