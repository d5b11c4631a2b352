"""Retrieval by cosine among frozen features: average precision in its usual form and in that of Oxford5k, recall, MRR.

With r_j the 0-based rank of the j-th of R positives (j = 0 … R − 1), junk images taken out of the ranking before,

    AP        = (1/R) Σ_j (j + 1)/(r_j + 1)                                          (usual)
    AP_oxford = (1/R) Σ_j ½ [ j/r_j + (j + 1)/(r_j + 1) ],  first term 1 if r_j = 0   (trapezoidal)

The trapezoidal form never lies above the usual one; both are called mAP in papers, so they are named here. Two quirks
of the Battle of the Backbones' own code are kept under `official MRR`: it ignores the junk correction, and divides by
all queries, also those without a positive, which mAP and recall leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Retrieved:
    """How well queries find what belongs to them, each 0 … 1.

    Attributes:
        mean_ap: the usual mAP; oxford: the trapezoidal one.
        recall: k → share of queries with a positive among the first k.
        mrr: mean reciprocal rank of the first positive, junk taken out, among queries that have one.
        official_mrr: the same with the official code's two quirks.
        queries: how many have a positive.
    """

    mean_ap: float
    oxford: float
    recall: dict[int, float]
    mrr: float
    official_mrr: float
    queries: int


def average_precision(ranks: Int[Tensor, "positives"]) -> float:
    """Return the usual average precision from the positives' 0-based ranks."""
    ranks = ranks.sort().values.double()
    j = torch.arange(len(ranks), dtype=torch.float64)
    return float(((j + 1) / (ranks + 1)).mean())


def oxford_precision(ranks: Int[Tensor, "positives"]) -> float:
    """Return the trapezoidal average precision from the positives' 0-based ranks."""
    ranks = ranks.sort().values.double()
    j = torch.arange(len(ranks), dtype=torch.float64)
    before = torch.where(ranks == 0, 1.0, j / ranks.clamp(min=1))
    return float(((before + (j + 1) / (ranks + 1)) / 2).mean())


def retrieve(
    gallery: Float[Tensor, "m dim"],
    queries: Float[Tensor, "n dim"],
    positive: Bool[Tensor, "n m"],
    junk: Bool[Tensor, "n m"] | None = None,
    *,
    at: tuple[int, ...] = (1, 5, 10),
) -> Retrieved:
    """Rank the gallery for each query by cosine.

    Args:
        positive: which images of the gallery belong to a query.
        junk: which count neither for nor against it (itself, or too poor to tell); out of the ranking.

    Raises:
        ValueError: no query has a positive.
    """
    order = (F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T).argsort(stable=True, dim=1, descending=True)
    junk = torch.zeros_like(positive) if junk is None else junk
    ranks, raw = [], []
    for row, wanted, ignored in zip(order, positive & ~junk, junk, strict=True):
        if wanted.any():
            ranks.append(wanted[row[~ignored[row]]].nonzero().squeeze(1))
            raw.append(wanted[row].nonzero()[0, 0])
    if not ranks:
        raise ValueError("no query has a positive in the gallery")
    first = torch.stack([found[0] for found in ranks])
    return Retrieved(
        mean_ap=_mean([average_precision(found) for found in ranks]),
        oxford=_mean([oxford_precision(found) for found in ranks]),
        recall={k: float((first < k).double().mean()) for k in at},
        mrr=float((1 / (first + 1).double()).mean()),
        official_mrr=float((1 / (torch.stack(raw) + 1).double()).sum() / len(queries)),
        queries=len(ranks),
    )


def by_label(
    gallery: Float[Tensor, "m dim"],
    labels: Int[Tensor, "m"],
    queries: Float[Tensor, "n dim"],
    true: Int[Tensor, "n"],
) -> Retrieved:
    """Return the retrieval in which the images of a query's class are the true ones."""
    return retrieve(gallery, queries, true[:, None] == labels)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
