"""The spectrum of embeddings: how many directions they use, as one number.

For embeddings Z (N×K) with singular values σ₁ ≥ σ₂ ≥ …, taken as they are (neither centred nor normalised):

    effective rank (RankMe) = exp(−Σₖ pₖ log pₖ),   pₖ = σₖ / ‖σ‖₁ + ε          (arXiv 2210.02885, eq. 1)

It lies between 1 and min(N, K), up to ε, and does not change when Z is scaled, turned, or given copies of its
own columns. Beside it stand the classical rank, and α of a power law λₖ ∝ k^−α of the covariance's
eigenvalues.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-7


def singular_values(embeddings: Float[Tensor, "n dim"]) -> Float[Tensor, "k"]:
    """The min(N, K) singular values from large to small, computed in float64.

    From Z itself, not from ZᵀZ: squares would bury the small ones under rounding.
    """
    return torch.linalg.svdvals(embeddings.double())


def effective_rank(values: Float[Tensor, "k"], *, epsilon: float = EPSILON) -> float:
    """exp of the entropy of the singular values' shares; 1 if all are zero.

    Args:
        values: singular values (not their squares).
        epsilon: added to each share; it adds about K·ε·ln(1/ε) to the entropy.
    """
    total = values.sum()
    if total == 0:
        return 1.0
    shares = values.double() / total + epsilon
    return float(torch.special.entr(shares).sum().exp())


def classical_rank(values: Float[Tensor, "k"], *, size: int) -> int:
    """How many singular values exceed the rounding of float32: σₖ > σ₁ · size · 2⁻²³.

    Args:
        size: the larger side of the matrix they are of.
    """
    return int((values > values.max() * size * torch.finfo(torch.float32).eps).sum())


def power_law(embeddings: Float[Tensor, "n dim"]) -> float:
    """α of λₖ ∝ k^−α for the covariance's eigenvalues (α-ReQ, Agrawal et al., 2022); near 1 is held to be
    best.

    A straight line through log λₖ against log k, each k weighted by 1/k so that every octave counts alike.
    Eigenvalues below the rounding of float32 are left out; NaN if fewer than two remain.
    """
    centred = embeddings.double() - embeddings.double().mean(0)
    values = singular_values(centred)
    values = values[: classical_rank(values, size=max(embeddings.shape))]
    if len(values) < 2:
        return float("nan")
    k = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
    x, y, weight = k.log(), 2 * values.log(), 1 / k
    x, y = x - (weight * x).sum() / weight.sum(), y - (weight * y).sum() / weight.sum()
    return float(-(weight * x * y).sum() / (weight * x * x).sum())
