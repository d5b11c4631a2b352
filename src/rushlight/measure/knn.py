"""Nearest neighbours on frozen features: weighted votes by cosine, counts by Euclidean distance, purity of groups."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def votes(
    bank: Float[Tensor, "m dim"],
    labels: Int[Tensor, "m"],
    queries: Float[Tensor, "n dim"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "n classes"]:
    """Return weighted k-nearest-neighbour votes by cosine (Wu et al., 2018; as DINO is judged).

    Each of the k neighbours votes for its class with weight exp(cosine/τ).
    """
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    found = []
    for part in queries.split(1000):
        cosine, nearest = (part @ bank.T).topk(min(k, len(bank)), dim=1)
        vote = torch.zeros(len(part), int(labels.max()) + 1)
        found.append(vote.scatter_add_(1, labels[nearest], (cosine / temperature).exp()))
    return torch.cat(found)


def accuracy(
    bank: Tensor, labels: Tensor, queries: Tensor, true: Tensor, *, k: int = 20, temperature: float = 0.07
) -> float:
    """Return the share (0 … 1) of queries whose class has most `votes`."""
    found = votes(bank, labels, queries, k=k, temperature=temperature).argmax(1)
    return float((found == true).float().mean())


def euclidean(
    bank: Float[Tensor, "m dim"], labels: Int[Tensor, "m"], queries: Float[Tensor, "n dim"] | None = None, *, k: int = 5
) -> Int[Tensor, "n"]:
    """Return the commonest class among the k nearest by Euclidean distance.

    Of equally common ones the smallest number counts, as in scikit-learn's KNeighborsClassifier. Without queries, each
    image of the bank is classified by the others.
    """
    counts = F.one_hot(labels[_nearest(bank, queries, k)], int(labels.max()) + 1).sum(1)
    return counts.argmax(1)


def tag_shares(
    bank: Float[Tensor, "m dim"],
    tags: Int[Tensor, "m tags"],
    queries: Float[Tensor, "n dim"] | None = None,
    *,
    k: int = 5,
) -> Float[Tensor, "n tags"]:
    """Return for each tag the share of the k nearest images (Euclidean) that have it.

    Images where the tag is unknown do not count; if it is unknown in all, the share is 0. Without queries, each image
    of the bank is scored by the others.
    """
    near = tags[_nearest(bank, queries, k)]
    return (near == 1).sum(1) / (near >= 0).sum(1).clamp(min=1)


def _nearest(bank: Tensor, queries: Tensor | None, k: int) -> Int[Tensor, "n k"]:
    mean = bank.double().mean(0)  # distances come from products, which lose small ones beside a large offset
    bank = bank.double() - mean
    asked, found = bank if queries is None else queries.double() - mean, []
    for rows in torch.arange(len(asked)).split(500):
        far = torch.cdist(asked[rows], bank)
        if queries is None:
            far[torch.arange(len(rows)), rows] = torch.inf
        found.append(far.topk(min(k, len(bank) - (queries is None)), dim=1, largest=False).indices)
    return torch.cat(found)


def purity(features: Float[Tensor, "n dim"], groups: Int[Tensor, "n"], *, k: int = 20) -> float:
    """Return the mean share (0 … 1) of an image's k nearest neighbours by cosine that are of its own group."""
    features = F.normalize(features, dim=1)
    shares = []
    for rows in torch.arange(len(features)).split(1000):
        cosine = features[rows] @ features.T
        cosine[torch.arange(len(rows)), rows] = -torch.inf
        nearest = cosine.topk(min(k, len(features) - 1), dim=1).indices
        shares.append((groups[nearest] == groups[rows, None]).float().mean(1))
    return float(torch.cat(shares).mean())
