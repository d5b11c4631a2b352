"""Redundancy reduction: each embedding dimension agrees over two views and is uncorrelated with every other.

With both views' embeddings standardised over the batch, C = Âᵀ B̂ / N is their cross-correlation (D×D), and
the loss is Σᵢ (1 − Cᵢᵢ)² + λ Σᵢ Σⱼ≠ᵢ Cᵢⱼ². A constant embedding costs D, so no negatives, predictors or
momentum are needed.

When D exceeds the batch, C is larger than what it is made of. Its squared Frobenius norm is also
⟨G_A, G_B⟩ / N² with the N×N Gram matrices G_A = Â Âᵀ, and its diagonal needs no product of matrices at all: the
same loss and the same gradients from less memory. (No precision is lost: with D > N the off-diagonal part cannot
come near zero.) A block of columns at a time adds to the Gram matrices, and once they are there gives its gradients,
∂⟨G_A, G_B⟩/∂Â = 2 G_B Â; standardised embeddings are never held whole.
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


def standardise(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Each dimension with mean 0 and biased variance 1 over the global batch (ε = 1e-5 within the root)."""
    if world_size() == 1:
        return F.batch_norm(x, None, None, training=True, eps=EPS)
    centred = centre(x)
    variance = all_sum(centred.square().sum(0)) / (len(x) * world_size())
    return centred * torch.rsqrt(variance + EPS)


def centre(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Each dimension with mean 0 over the global batch."""
    return x - all_sum(x.sum(0)) / (len(x) * world_size())


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
        a, b = (x.float() if x.dtype.itemsize < 4 else x for x in (a, b))
        rows = len(a) * world_size()
        if a.shape[1] > rows:
            return with_gradients(partial(_by_columns, standardise, partial(_barlow_columns, weight, rows)), a, b)
        correlation = all_sum(standardise(a).T @ standardise(b)) / rows
        return _barlow(weight, correlation.diagonal(), correlation.square().sum())


def _barlow(weight: float, diagonal: Tensor, total: Tensor) -> Tensor:
    return (1 - diagonal).square().sum() + weight * (total - diagonal.square().sum())


def _barlow_columns(weight: float, rows: int, a: Tensor, b: Tensor, gram_a: Tensor, gram_b: Tensor) -> Tensor:
    a, b = standardise(a), standardise(b)
    diagonal = all_sum(torch.linalg.vecdot(a, b, dim=0)) / rows
    return _barlow(weight, diagonal, (_share(a, gram_b) + _share(b, gram_a)) / rows**2)


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
        terms = partial(_vicreg, (invariance, variance, covariance), rows, a.shape[1])
        if a.shape[1] > rows:  # the smaller Gram matrices have the same sums of squares
            return with_gradients(partial(_by_columns, centre, terms), a, b)
        return terms(a, b, None, None)


def _vicreg(
    weights: tuple[float, float, float],
    rows: int,
    dim: int,
    a: Tensor,
    b: Tensor,
    gram_a: Tensor | None,
    gram_b: Tensor | None,
) -> Tensor:
    """The share of some columns, out of `dim`, in the loss."""
    invariance, variance, covariance = weights
    alike = all_sum((a - b).square().sum()) / (rows * dim)
    spreads = [_spread(x, rows, gram) for x, gram in ((a, gram_a), (b, gram_b))]
    hinge, shared = (sum(parts) for parts in zip(*spreads, strict=True))
    return invariance * alike + variance * hinge / (2 * dim) + covariance * shared / dim


def _spread(x: Tensor, rows: int, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sum of the hinges of the columns' standard deviations, and of squared covariances of different columns."""
    centred = centre(x)
    variances = all_sum(centred.square().sum(0)) / (rows - 1)
    total = all_sum(centred.T @ centred).square().sum() if gram is None else 2 * _share(centred, gram)
    return (1 - (variances + 1e-4).sqrt()).relu().sum(), total / (rows - 1) ** 2 - variances.square().sum()


# Column by column -----------------------------------------------------------------------------------------------------


def _by_columns(
    prepare: Callable[[Tensor], Tensor],
    terms: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    needs: Sequence[bool],
    *views: Float[Tensor, "batch dim"],
) -> tuple[Tensor, list[Tensor | None]]:
    """A loss that is a sum over blocks of columns, given both views' Gram matrices, and its gradients.

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
    """What some columns S of one view, with Gram matrix G = Σ S Sᵀ, have in half of ⟨G, H⟩; its gradient is that of
    the whole, 2 H S, for `gram` H is no function of theirs."""
    whole = all_gather(columns)
    twice = torch.vdot(whole.flatten(), (gram @ whole).flatten())
    return twice - twice.detach() / 2
