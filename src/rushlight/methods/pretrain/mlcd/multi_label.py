"""Losses for several positive classes among many, pairs of logits or each side for itself; and which classes take part.

With positives P and negatives N of a sample and logits s,

    MLC   = log(1 + Σ_{j ∈ N} e^{s_j} · Σ_{i ∈ P} e^{−s_i})                only differences s_j − s_i count
    MLCD  = log(1 + Σ_{i ∈ P} e^{−s_i}) + log(1 + Σ_{j ∈ N} e^{s_j})       each side against 0

(arXiv:2407.17331; the second form is also known as ZLPR). Both are computed by logsumexp with an appended 0.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def mlcd(logits: Float[Tensor, "batch classes"], positives: Bool[Tensor, "batch classes"]) -> Float[Tensor, "batch"]:
    """Return the separated loss of each sample; every class that is not one of its positives is a negative."""
    pull, push = _sides(logits, positives)
    return F.softplus(pull) + F.softplus(push)


def mlc(logits: Float[Tensor, "batch classes"], positives: Bool[Tensor, "batch classes"]) -> Float[Tensor, "batch"]:
    """Return the loss of pairs of each sample."""
    pull, push = _sides(logits, positives)
    return F.softplus(pull + push)


def _sides(logits: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Return log Σ e^{−s} over positives, and log Σ e^{s} over negatives; −∞ where there is none."""
    pull = torch.where(positives, -logits, -torch.inf).logsumexp(1)
    return pull, torch.where(positives, -torch.inf, logits).logsumexp(1)


def with_margin(
    cosines: Float[Tensor, "batch classes"],
    positives: Bool[Tensor, "batch classes"],
    margin: float,
    *,
    kind: Literal["exact", "shift"] = "shift",
) -> Float[Tensor, "batch classes"]:
    """Return cos(θ + margin) in place of cos θ for the positives (ArcFace).

    Args:
        kind: `exact` has the gradient of that; `shift`, as PartialFC's code has it, that of a constant added to cos θ.
    """
    cosines = cosines.clamp(-1, 1)
    if not margin:
        return cosines
    inner = cosines.clamp(-1 + 1e-6, 1 - 1e-6)  # the derivative of arccos is infinite at the ends
    moved = (inner.arccos() + margin).cos()
    if kind == "shift":
        moved = cosines + (moved - cosines).detach()
    return torch.where(positives, moved, cosines)


def active_classes(
    positives: Int[Tensor, "any"], classes: int, share: float, *, generator: torch.Generator
) -> Int[Tensor, "active"]:
    """Return all positives of a batch and random other classes, in total a share of all (or the positives, if they are
    more), in ascending order (PartialFC)."""
    chance = torch.rand(classes, generator=generator, device=generator.device)
    wanted = positives.unique()
    chance[wanted] = 2
    return chance.topk(max(int(share * classes), len(wanted))).indices.sort().values


def among(labels: Int[Tensor, "batch count"], active: Int[Tensor, "active"]) -> Bool[Tensor, "batch active"]:
    """Return which of the active classes are each sample's positives."""
    places = torch.searchsorted(active, labels)
    return torch.zeros(len(labels), len(active), dtype=torch.bool, device=labels.device).scatter_(1, places, True)
