"""Optimal transport of samples to prototypes: Sinkhorn–Knopp's equal shares."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.core.distributed import all_max, all_sum, world_size


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "batch prototypes"], *, epsilon: float = 0.05, iterations: int = 3
) -> Float[Tensor, "batch prototypes"]:
    """Return soft assignments whose rows sum to 1 and whose columns have (nearly) equal shares of the joined batch.

    SwAV (Caron et al., 2020, arXiv:2006.09882, section 3.1): exp(scores / ε), its columns and rows scaled in turn.

    Args:
        scores: cosines of samples and prototypes, of any scale.
        epsilon: of the entropy; smaller is sharper.
        iterations: rounds of scaling columns, then rows; rows come last, and are exact.
    """
    scores = (scores.float() if scores.dtype.itemsize < 4 else scores) / epsilon
    shares = (scores - all_max(scores.amax())).exp()
    rows, columns = len(scores) * world_size(), scores.shape[1]
    shares = shares / all_sum(shares.sum())
    for _ in range(iterations):
        shares = shares / (all_sum(shares.sum(0)) * columns).clamp(min=torch.finfo(shares.dtype).tiny)
        shares = shares / (shares.sum(1, keepdim=True) * rows).clamp(min=torch.finfo(shares.dtype).tiny)
    return shares * rows
