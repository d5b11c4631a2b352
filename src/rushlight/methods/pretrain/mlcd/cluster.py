"""Grouping at scale: spherical k-means and nearest centres, by faiss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rushlight.core.errors import UserError

BLOCK = 4096
"""Rows whose similarities to all centres are held at once."""


def spherical_kmeans(
    features: Float[Tensor, "n dim"], clusters: int, *, seed: int = 0, iterations: int = 20
) -> Float[Tensor, "clusters dim"]:
    """Return centres of length 1 of features (which are scaled to length 1), by cosine; the same for the same seed.

    Raises:
        UserError: fewer features than clusters, or faiss is not installed.
    """
    if len(features) < clusters:
        raise UserError(f"{len(features)} images cannot make {clusters} clusters: ask for fewer")
    values = F.normalize(features.float(), dim=1).cpu().numpy()
    fitted = _faiss().Kmeans(
        values.shape[1],
        clusters,
        niter=iterations,
        spherical=True,
        seed=seed + 1,  # faiss takes 0 for its own default
        min_points_per_centroid=1,  # it warns below 39
        max_points_per_centroid=max(len(values) // clusters + 1, 256),
        gpu=False,
    )
    fitted.train(values)
    return F.normalize(torch.from_numpy(fitted.centroids.copy()), dim=1)


def nearest_centres(
    features: Float[Tensor, "n dim"], centres: Float[Tensor, "clusters dim"], count: int
) -> Int[Tensor, "n count"]:
    """Return the numbers of the centres with the highest cosine, the nearest first."""
    parts = [F.normalize(part.float(), dim=1) @ centres.T for part in features.split(BLOCK)]
    return torch.cat([part.topk(count, dim=1).indices for part in parts])


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise UserError("clustering needs faiss: pip install 'rushlight[cluster]'") from error
    return faiss
