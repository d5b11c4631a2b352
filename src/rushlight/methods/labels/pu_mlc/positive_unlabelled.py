"""Learn from positives and unlabelled samples, without any negative.

The variational bound (VPU) compares the mean of φ over everything with its geometric mean over the positives:
L = log E_x[φ(x)] − E_P[log φ(x)]. Its minimisers are proportional to p(y = 1 | x); a consistency term in
log space on mixed samples fixes what is left open and keeps φ smooth. For several labels an image there is
one such bound a class, with a temperature and a weight that follow the class's own statistics in the batch.
The non-negative risk estimator (nnPU), which needs the share of positives, is the classic baseline.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rushlight.losses.consistency import mean_squared_log

Matrix = Float[Tensor, "batch classes"]
PerClass = Float[Tensor, "classes"]


def variational(
    log_phi_positives: Float[Tensor, "positives"], log_phi_all: Float[Tensor, "samples"]
) -> Float[Tensor, ""]:
    """Return log mean φ(all) − mean log φ(positives): VPU's loss (Chen et al., arXiv 1906.02696, equation 6).

    `log_phi_all` is of samples drawn from everything, positives included, not of unlabelled ones alone.
    """
    return log_phi_all.logsumexp(0) - math.log(len(log_phi_all)) - log_phi_positives.mean()


def adaptive_temperature(logits: Matrix, *, alpha: float = 1.0, floor: float = 1e-3) -> PerClass:
    """Return min(1, α · std over the batch) of each class, biased, without gradient (PU-MLC, arXiv 2306.16016).

    A class whose logits hardly differ within the batch would have a flat φ; a temperature below 1 spreads
    them. α = 1 for MS-COCO, 2 for VOC. `floor` keeps the division finite where all logits are equal.
    """
    return (alpha * logits.detach().std(0, correction=0)).clamp(floor, 1)


def rebalance(log_phi: Matrix, *, gamma: float = 0.55) -> PerClass:
    """Return (mean over the batch of φ)^γ of each class, without gradient: rare classes are pushed down less.

    γ = 0.55 for MS-COCO, 0.85 for VOC; 0 turns it off.
    """
    return (gamma * _log_mean(log_phi.detach())).exp()


def variational_multi_label(
    logits: Matrix,
    positives: Bool[Tensor, "batch classes"],
    *,
    alpha: float | None = 1.0,
    gamma: float = 0.55,
) -> Float[Tensor, ""]:
    """Return PU-MLC's loss, summed over classes: Σ_c w_c log mean_all φ_c − mean_positives log φ_c.

    φ = sigmoid(logit / T) with `adaptive_temperature`, w by `rebalance`. Absent and unknown are the same:
    both unlabelled. The first mean runs over the whole batch; a class with no positive in it has no second
    term.

    Args:
        positives: where a label is known to be present.
        alpha: of the temperature; None for a temperature of 1.
        gamma: of the weight; 0 for a weight of 1.
    """
    temperature = 1.0 if alpha is None else adaptive_temperature(logits, alpha=alpha)
    log_phi = F.logsigmoid(logits / temperature)
    positive = log_phi.where(positives, 0).sum(0) / positives.sum(0).clamp(min=1)
    return (rebalance(log_phi, gamma=gamma) * _log_mean(log_phi) - positive).sum()


def balanced_cross_entropy(logits: Matrix, positives: Bool[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """Return Σ_c ½·[−mean_{positives} log σ(z) − mean_{others} log σ(−z)]: positives and rest weigh the same.

    Its optimum is centred: σ(z) above ½ says that an image is likelier a known positive than a draw from the others,
    however few are labelled. A class without a positive in the batch does not count.
    """
    others, counts = ~positives, positives.sum(0)
    positive = -F.logsigmoid(logits).where(positives, 0).sum(0) / counts.clamp(min=1)
    other = -F.logsigmoid(-logits).where(others, 0).sum(0) / others.sum(0).clamp(min=1)
    return ((positive + other) / 2).where(counts > 0, 0).sum()


def _log_mean(log_phi: Tensor) -> Tensor:
    return log_phi.logsumexp(0) - math.log(len(log_phi))


def log_targets(logits: Matrix, positives: Bool[Tensor, "batch classes"]) -> Matrix:
    """Return log q: 0 where the label is present, else log sigmoid(z), without temperature."""
    return F.logsigmoid(logits).masked_fill(positives, 0)


def mix_log(first: Matrix, second: Matrix, share: float) -> Matrix:
    """Return log(λ exp(first) + (1 − λ) exp(second)), finite for any logits; `share` λ in [0, 1] is of `first`."""
    if share in (0.0, 1.0):
        return first if share else second
    return torch.logaddexp(first + math.log(share), second + math.log1p(-share))


def mixed_consistency(mixed_logits: Matrix, log_target: Matrix) -> Float[Tensor, ""]:
    """Return Σ_c mean_i (log q_ic − log sigmoid(z_ic))²: mixed images must have mixed targets (PU-MLC, VPU).

    q comes from `mix_log` of two `log_targets`. The official code lets gradients flow through q too; so does
    this: detach q for a fixed target.
    """
    return mean_squared_log(log_target, F.logsigmoid(mixed_logits))


def non_negative(
    positive_logits: Float[Tensor, "positives"],
    unlabelled_logits: Float[Tensor, "unlabelled"],
    *,
    prior: float,
    beta: float = 0.0,
    gamma: float = 1.0,
) -> Float[Tensor, ""]:
    """Return nnPU's loss with the sigmoid (Kiryo et al., arXiv 1703.00593, algorithm 1).

    With R⁺ = π E_P[ℓ(f)] and R⁻ = E_U[ℓ(−f)] − π E_P[ℓ(−f)], ℓ(z) = sigmoid(−z): R⁺ + R⁻ while R⁻ ≥ −β, else
    −γ R⁻, which undoes over-fitting.

    Args:
        prior: π, the share of positives among the unlabelled, in (0, 1).
    """
    positive = prior * (-positive_logits).sigmoid().mean()
    negative = unlabelled_logits.sigmoid().mean() - prior * positive_logits.sigmoid().mean()
    return torch.where(negative < -beta, -gamma * negative, positive + negative)
