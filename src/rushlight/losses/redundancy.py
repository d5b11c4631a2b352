"""Redundancy reduction: an embedding's dimensions agree over two views, and do not repeat each other.

Barlow Twins' loss and VICReg's, first as the papers have them, then column by column: where D exceeds the batch of N,
the D×D matrices are larger than what they are made of, and N×N Gram matrices have the same sums of squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rushlight.core.distributed import all_gather, all_sum, world_size
from rushlight.losses.forward_gradients import BLOCK, with_gradients

EPS = 1e-5
WIDE = 2048
"""Dimensions from which a D×D matrix is worth avoiding: 16 MB in float32."""


def standardise(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Give each dimension mean 0 and biased variance 1 over the global batch (ε = 1e-5 within the root)."""
    if world_size() == 1:
        return F.batch_norm(x, None, None, training=True, eps=EPS)
    centred = centre(x)
    variance = all_sum(centred.square().sum(0)) / (len(x) * world_size())
    return centred * torch.rsqrt(variance + EPS)


def centre(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Give each dimension mean 0 over the global batch."""
    return x - all_sum(x.sum(0)) / (len(x) * world_size())


def barlow_twins(
    z_a: Float[Tensor, "batch dim"], z_b: Float[Tensor, "batch dim"], *, weight: float = 0.0051
) -> Float[Tensor, ""]:
    """Return Barlow Twins' loss (arXiv:2103.03230), a sum over dimensions; a constant embedding costs D.

    With several processes the batch is the global one, each returns the same loss, and the gradients that
    DistributedDataParallel averages are exact. Half precision is computed in float32.

    Args:
        z_a, z_b: projector outputs of the two views; row i of both is the same image.
        weight: λ, the price of redundancy.

    Raises:
        ValueError: the batch is a single row (its variance is zero).
    """
    with torch.autocast(z_a.device.type, enabled=False):
        z_a, z_b = _full(z_a), _full(z_b)
        rows = len(z_a) * world_size()
        correlation = all_sum(standardise(z_a).T @ standardise(z_b)) / rows  # C = ẑ_Aᵀ ẑ_B / N        (eq. 2)
        diagonal = correlation.diagonal()
        invariance = (1 - diagonal).square().sum()  # Σᵢ (1 − Cᵢᵢ)²
        redundancy = correlation.square().sum() - diagonal.square().sum()  # Σᵢ Σⱼ≠ᵢ Cᵢⱼ²
        return invariance + weight * redundancy  # eq. 1


def vicreg(
    z_a: Float[Tensor, "batch dim"],
    z_b: Float[Tensor, "batch dim"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Float[Tensor, ""]:
    """Return VICReg's loss (arXiv:2105.04906): views agree, each dimension varies, no two vary together.

    Args:
        z_a, z_b: expander outputs of the two views; row i of both is the same image.
        invariance, variance, covariance: λ, μ and ν, the weights of the three terms.

    Raises:
        ValueError: the joined batch is a single row.
    """
    with torch.autocast(z_a.device.type, enabled=False):
        z_a, z_b = _full(z_a), _full(z_b)
        v = variance_loss(z_a) + variance_loss(z_b)
        c = covariance_loss(z_a) + covariance_loss(z_b)
        # ℓ = λ·s(z, z′) + μ·[v(z) + v(z′)]/2 + ν·[c(z) + c(z′)]                                   (eq. 6)
        return invariance * invariance_loss(z_a, z_b) + variance * v / 2 + covariance * c


def invariance_loss(z_a: Float[Tensor, "batch dim"], z_b: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Return the views' mean squared difference (eq. 5; the official code's mean over dimensions, too)."""
    # s(z, z′) = 1/(N·D) Σᵢ ‖zᵢ − z′ᵢ‖²
    return all_sum((z_a - z_b).square().sum()) / (z_a.numel() * world_size())


def variance_loss(z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Return the mean hinge that pulls each dimension's standard deviation over the joined batch up to 1 (eq. 1)."""
    variances = all_sum(centre(z).square().sum(0)) / (_rows(z) - 1)
    # v(z) = 1/D Σⱼ max(0, 1 − √(Var(zʲ) + ε))
    return (1 - (variances + 1e-4).sqrt()).relu().mean()


def covariance_loss(z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Return the squared covariances of different dimensions, their sum divided by D (eq. 4)."""
    centred = centre(z)
    cov = all_sum(centred.T @ centred) / (_rows(z) - 1)  # C(z)                                     (eq. 3)
    # c(z) = 1/D Σ_{i≠j} C(z)²ᵢⱼ
    return (cov.square().sum() - cov.diagonal().square().sum()) / z.shape[1]


def _full(z: Tensor) -> Tensor:
    return z.float() if z.dtype.itemsize < 4 else z


def _rows(z: Tensor) -> int:
    """Return the number of rows of the joined batch; raise a ValueError for fewer than two."""
    rows = len(z) * world_size()
    if rows < 2:
        raise ValueError("VICReg needs two images a batch: one has no variance")
    return rows


# Column by column: the same losses for D > N --------------------------------------------------------------------------


def barlow_twins_by_columns(
    z_a: Float[Tensor, "batch dim"], z_b: Float[Tensor, "batch dim"], *, weight: float = 0.0051
) -> Float[Tensor, ""]:
    """Return `barlow_twins` without the D×D matrix: ‖C‖² = ⟨ẑ_A ẑ_Aᵀ, ẑ_B ẑ_Bᵀ⟩ / N².

    A block of columns at a time adds to the N×N Gram matrices, and once they are there gives its gradients
    (∂⟨G_A, G_B⟩/∂ẑ_A = 2 G_B ẑ_A); standardised embeddings are never held whole. No precision is lost: with D > N the
    off-diagonal part cannot come near zero.
    """
    with torch.autocast(z_a.device.type, enabled=False):
        terms = partial(_barlow_columns, weight, len(z_a) * world_size())
        return with_gradients(partial(_by_columns, standardise, terms), _full(z_a), _full(z_b))


def _barlow_columns(weight: float, rows: int, a: Tensor, b: Tensor, gram_a: Tensor, gram_b: Tensor) -> Tensor:
    a, b = standardise(a), standardise(b)
    diagonal = all_sum(torch.linalg.vecdot(a, b, dim=0)) / rows
    total = (_share(a, gram_b) + _share(b, gram_a)) / rows**2
    return (1 - diagonal).square().sum() + weight * (total - diagonal.square().sum())


def vicreg_by_columns(
    z_a: Float[Tensor, "batch dim"],
    z_b: Float[Tensor, "batch dim"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Float[Tensor, ""]:
    """Return `vicreg` without D×D matrices: ‖C(z)‖² is that of the N×N Gram matrix of centred embeddings."""
    with torch.autocast(z_a.device.type, enabled=False):
        z_a, z_b = _full(z_a), _full(z_b)
        terms = partial(_vicreg_columns, (invariance, variance, covariance), _rows(z_a), z_a.shape[1])
        return with_gradients(partial(_by_columns, centre, terms), z_a, z_b)


def _vicreg_columns(
    weights: tuple[float, float, float], rows: int, dim: int, a: Tensor, b: Tensor, gram_a: Tensor, gram_b: Tensor
) -> Tensor:
    """Return the share of some columns, out of `dim`, in the loss."""
    invariance, variance, covariance = weights
    loss = invariance * all_sum((a - b).square().sum()) / (rows * dim)
    for x, gram in ((a, gram_a), (b, gram_b)):
        centred = centre(x)
        variances = all_sum(centred.square().sum(0)) / (rows - 1)
        hinge = (1 - (variances + 1e-4).sqrt()).relu().sum()
        shared = 2 * _share(centred, gram) / (rows - 1) ** 2 - variances.square().sum()
        loss = loss + variance * hinge / (2 * dim) + covariance * shared / dim
    return loss


def _by_columns(
    prepare: Callable[[Tensor], Tensor],
    terms: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    needs: Sequence[bool],
    *views: Float[Tensor, "batch dim"],
) -> tuple[Tensor, list[Tensor | None]]:
    """Return a loss that is a sum over blocks of columns, given both views' Gram matrices, and its gradients.

    Args:
        prepare: what the Gram matrices are made of, from a block of columns.
        terms: (columns of one view, those of the other, the two Gram matrices) → their share in the loss.
        needs: which view needs a gradient.
    """
    rows = len(views[0]) * world_size()
    step = max(BLOCK // rows, 1)
    grams = [view.new_zeros(rows, rows) for view in views]
    for gram, view in zip(grams, views, strict=True):
        for columns in view.split(step, 1):
            whole = all_gather(prepare(columns))
            gram.addmm_(whole, whole.T)
    loss = views[0].new_zeros(())
    gradients = [torch.empty_like(view) if need else None for view, need in zip(views, needs, strict=True)]
    for number, blocks in enumerate(zip(*(view.split(step, 1) for view in views), strict=True)):
        blocks = tuple(block.detach().requires_grad_(need) for block, need in zip(blocks, needs, strict=True))
        with torch.enable_grad():
            share = terms(*blocks, *grams)
        loss += share.detach()
        if not any(needs):
            continue
        share.backward()  # every process has the same share: the gradient is as many times too large
        for block, gradient in zip(blocks, gradients, strict=True):
            if gradient is not None and block.grad is not None:
                gradient[:, number * step : (number + 1) * step] = block.grad / world_size()
    return loss, gradients


def _share(columns: Float[Tensor, "batch columns"], gram: Float[Tensor, "rows rows"]) -> Float[Tensor, ""]:
    """Return the part of some columns S of one view, with Gram matrix G = Σ S Sᵀ, in half of ⟨G, H⟩.

    Its gradient is that of the whole, 2 H S, for `gram` H is no function of theirs.
    """
    whole = all_gather(columns)
    twice = torch.vdot(whole.flatten(), (gram @ whole).flatten())
    return twice - twice.detach() / 2
