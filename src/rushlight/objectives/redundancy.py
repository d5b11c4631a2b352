"""Redundancy reduction: each embedding dimension agrees over two views and is uncorrelated with every other.

With both views' embeddings standardised over the batch, C = Âᵀ B̂ / N is their cross-correlation (D×D), and
the loss is Σᵢ (1 − Cᵢᵢ)² + λ Σᵢ Σⱼ≠ᵢ Cᵢⱼ². A constant embedding costs D, so no negatives, predictors or
momentum are needed.

When D exceeds the batch, C is larger than what it is made of. Its squared Frobenius norm is also
⟨Â Âᵀ, B̂ B̂ᵀ⟩ / N², two N×N Gram matrices, and its diagonal needs no product of matrices at all: the same
loss and the same gradients from less memory. (No precision is lost: with D > N the off-diagonal part cannot
come near zero.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rushlight.processes import all_gather, all_sum, world_size

EPS = 1e-5


def standardise(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Each dimension with mean 0 and biased variance 1 over the global batch (ε = 1e-5 within the root)."""
    if world_size() == 1:
        return F.batch_norm(x, None, None, training=True, eps=EPS)
    rows = len(x) * world_size()
    centred = x - all_sum(x.sum(0)) / rows
    variance = all_sum(centred.square().sum(0)) / rows
    return centred * torch.rsqrt(variance + EPS)


def barlow_twins(
    a: Float[Tensor, "batch dim"], b: Float[Tensor, "batch dim"], *, weight: float = 0.0051
) -> Float[Tensor, ""]:
    """Barlow Twins' loss (arXiv 2103.03230, equation 1), a sum over dimensions.

    Args:
        a: projector outputs of one view; row i of both is the same image.
        b: projector outputs of the other view.
        weight: λ, the price of redundancy.

    Half-precision inputs are computed in float32. With several workers the batch is the global one, each
    worker returns the same loss, and gradients averaged by DistributedDataParallel are exact.

    Raises:
        ValueError: if the batch is a single row (its variance is zero).
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = (standardise(x.float() if x.dtype.itemsize < 4 else x) for x in (a, b))
        rows = len(a) * world_size()
        if a.shape[1] > rows:
            diagonal, total = _by_gram(all_gather(a), all_gather(b), rows)
        else:
            diagonal, total = _by_correlation(a, b, rows)
        redundancy = total - diagonal.square().sum()
        return (1 - diagonal).square().sum() + weight * redundancy


def _by_correlation(a: Tensor, b: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    correlation = all_sum(a.T @ b) / rows
    return correlation.diagonal(), correlation.square().sum()


def _by_gram(a: Tensor, b: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    diagonal = torch.linalg.vecdot(a, b, dim=0) / rows
    return diagonal, torch.vdot((a @ a.T).flatten(), (b @ b.T).flatten()) / rows**2


def vicreg(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Float[Tensor, ""]:
    """VICReg's loss (arXiv 2105.04906, equation 6): views agree, each dimension varies, no two vary together.

    Args:
        a, b: expander outputs of the two views; row i of both is the same image.
        invariance: λ, of their mean squared difference.
        variance: μ, of the hinge that asks each dimension for a standard deviation of at least 1 over the joined batch.
        covariance: ν, of the squared covariances of different dimensions, divided by their number D.

    Raises:
        ValueError: if the joined batch is a single row.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = (x.float() if x.dtype.itemsize < 4 else x for x in (a, b))
        rows = len(a) * world_size()
        if rows < 2:
            raise ValueError("VICReg needs two images a batch: one has no variance")
        alike = all_sum((a - b).square().sum()) / (rows * a.shape[1])
        spreads = [_spread(x, rows) for x in (a, b)]
        hinge = sum(spread for spread, _ in spreads) / 2
        return invariance * alike + variance * hinge + covariance * sum(shared for _, shared in spreads)


def _spread(x: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The mean hinge of the standard deviations, and the sum of squared covariances of different dimensions, over D."""
    centred = x - all_sum(x.sum(0)) / rows
    variances = all_sum(centred.square().sum(0)) / (rows - 1)
    if x.shape[1] > rows:  # the smaller Gram matrix has the same sum of squares
        joined = all_gather(centred)
        total = (joined @ joined.T).square().sum()
    else:
        total = all_sum(centred.T @ centred).square().sum()
    shared = (total / (rows - 1) ** 2 - variances.square().sum()) / x.shape[1]
    return (1 - (variances + 1e-4).sqrt()).relu().mean(), shared
