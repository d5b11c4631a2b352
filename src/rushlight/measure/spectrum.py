"""The spectrum of embeddings: how many directions they use, judged without labels.

RankMe is the exponential of the entropy of the singular values' shares: 1 if one direction holds
everything, the width if all hold the same. α-ReQ is the slope at which the covariance's eigenvalues fall.
Both compare runs of one method at one width; a full rank is necessary for a good probe, not sufficient.
Everything is in float64.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Embeddings = Float[Tensor, "samples dim"]
Spectrum = Float[Tensor, "rank"]


def singular_values(embeddings: Embeddings) -> Spectrum:
    """Return the singular values of the embeddings (neither centred nor normalised), largest first, float64.

    Raises:
        ValueError: if there is nothing in them, or a value is not finite.
    """
    if embeddings.numel() == 0:
        raise ValueError("embeddings without samples or dimensions have no spectrum")
    if not embeddings.isfinite().all():
        raise ValueError("embeddings with NaN or infinite values have no spectrum")
    return torch.linalg.svdvals(embeddings.detach().double())


def effective_rank(spectrum: Spectrum, *, eps: float = 1e-7) -> Float[Tensor, ""]:
    """Return RankMe (Garrido et al., arXiv 2210.02885, equation 2): exp(−Σ pₖ log pₖ), pₖ = σₖ / Σσ + ε.

    Between 1 and the number of singular values, but for ε, which adds about K·ε·ln(1/ε) to the entropy of a
    K-dimensional spectrum with few directions. All-zero embeddings use no direction: 0.

    Args:
        spectrum: singular values (not their squares, the eigenvalues) of projector outputs: the paper takes
        25,600
            images of the training source, the network in evaluation mode.
    """
    total = spectrum.sum()
    if total == 0:
        return torch.zeros_like(total)
    shares = spectrum / total + eps
    return torch.special.entr(shares).sum().exp()


def threshold_rank(spectrum: Spectrum, *, tolerance: float = 1e-3) -> int:
    """Return how many singular values exceed `tolerance` times the largest: the classical numerical rank."""
    return int((spectrum > tolerance * spectrum.max()).sum())


def covariance_eigenvalues(embeddings: Embeddings) -> Spectrum:
    """Return the eigenvalues of the embeddings' covariance (centred, biased), largest first, float64."""
    return singular_values(embeddings.double() - embeddings.double().mean(0)).square() / len(embeddings)


def alpha_req(eigenvalues: Spectrum, *, first: int = 1, last: int | None = None) -> float:
    """Return α-ReQ (Agrawal et al., 2022): minus the slope of log λₖ against log k by least squares, near 1 at best.

    Args:
        eigenvalues: of the covariance, largest first.
        first: the first k of the fit (from 1).
        last: the last k, or all; eigenvalues of 0 (below 1e-12 of the largest) are never fitted.

    Raises:
        ValueError: if fewer than two eigenvalues are left to fit.
    """
    positive = int((eigenvalues > 1e-12 * eigenvalues.max()).sum())
    last = positive if last is None else min(last, positive)
    if last - first < 1:
        raise ValueError(f"a slope needs two positive eigenvalues, from {first} to {last} there are fewer")
    logs = eigenvalues[first - 1 : last].double().log()
    ranks = torch.arange(first, last + 1, dtype=torch.float64, device=logs.device).log()
    centred = ranks - ranks.mean()
    return -((centred * logs).sum() / centred.square().sum()).item()
