"""What can be said of features without a label: whether views agree, how evenly images are spread, whether groups are
found again.

Alignment and uniformity: Wang and Isola, ICML 2020, arXiv:2005.10242.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BLOCK = 1024
"""Rows of a matrix of all pairs that are computed at once."""


def alignment(one: Float[Tensor, "n dim"], other: Float[Tensor, "n dim"], *, power: float = 2.0) -> float:
    """Return the mean distance, to a power, of two views' features of the same image, each of length 1 (equation 1):
    from 0, where all views agree, to 2^power."""
    distance = (F.normalize(one.double(), dim=1) - F.normalize(other.double(), dim=1)).norm(dim=1)
    return float(distance.pow(power).mean())


def uniformity(features: Float[Tensor, "n dim"], *, t: float = 2.0) -> float:
    """Return log mean exp(−t·‖u − v‖²) over all pairs of different images' features of length 1 (equation 2): 0 where
    all are one point, and the lower the more evenly they are spread."""
    features = F.normalize(features.double(), dim=1)
    n, total = len(features), 0.0
    for part in features.split(BLOCK):
        squared = (2 - 2 * part @ features.T).clamp(min=0)
        total += float((-t * squared).exp().sum())
    return float(torch.tensor((total - n) / (n * (n - 1))).clamp(min=1e-300).log())


def view_retrieval(one: Float[Tensor, "n dim"], other: Float[Tensor, "n dim"]) -> float:
    """Return the share (0 … 1) of images whose other view has no nearer neighbour (by cosine) than themselves."""
    one, other = F.normalize(one.float(), dim=1), F.normalize(other.float(), dim=1)
    found = [(part @ one.T).argmax(1) for part in other.split(BLOCK)]
    return float((torch.cat(found) == torch.arange(len(one))).float().mean())


def cluster_stability(features: Float[Tensor, "n dim"], *, clusters: int = 10, seed: int = 0) -> float:
    """Return how alike two groupings learned on two halves of the images are: the adjusted Rand index (1: the same, 0:
    as by chance) of all images' nearest centres, by k-means on features of length 1."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    values = F.normalize(features.float(), dim=1)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    groups = []
    for half in order.chunk(2):
        fitted = KMeans(min(clusters, len(half)), n_init=3, random_state=seed).fit(values[half].numpy())
        groups.append(fitted.predict(values.numpy()))
    return float(adjusted_rand_score(*groups))
