"""Contrast: one masked log-softmax of which InfoNCE and its relatives are cases.

For an anchor i with scaled similarities sᵢₖ = ⟨zᵢ, zₖ⟩/τ to keys k, positives P(i) and negatives N(i),

    ℓᵢ = 1/|P(i)| Σ_{p ∈ P(i)} [ −sᵢₚ + log( Dᵢₚ + Σ_{n ∈ N(i)} exp sᵢₙ ) ]

and what Dᵢₚ is, is told by `denominator`:

    own        exp sᵢₚ: InfoNCE (SimCLR, MoCo, NNCLR, CLIP); each pair stands alone against the negatives
    none       0: decoupled contrastive learning (DCL)
    all        Σ_{q ∈ P(i)} exp sᵢ_q: supervised contrast

Which keys are negatives is a mask: both views of all other images, those of the same view alone, a queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.processes import all_gather, rank, world_size

Denominator = Literal["own", "none", "all"]


def contrast(
    similarities: Float[Tensor, "anchors keys"],
    positives: Bool[Tensor, "anchors keys"],
    negatives: Bool[Tensor, "anchors keys"],
    *,
    denominator: Denominator = "own",
    weight: Float[Tensor, "anchors keys"] | None = None,
) -> Float[Tensor, "anchors"]:
    """The loss of each anchor (see the module); of one without a positive, 0.

    Args:
        similarities: already divided by the temperature.
        weight: of each pair's positive term −sᵢₚ (DCLW); 1 by default.
    """
    against = torch.where(negatives, similarities, -torch.inf).logsumexp(1, keepdim=True)
    match denominator:
        case "own":
            normaliser = torch.logaddexp(similarities, against)
        case "all":
            normaliser = torch.where(positives | negatives, similarities, -torch.inf).logsumexp(1, keepdim=True)
        case "none":
            normaliser = against
    pull = similarities if weight is None else similarities * weight
    pairs = torch.where(positives, normaliser - pull, 0.0)
    return pairs.sum(1) / positives.sum(1).clamp(min=1)


def info_nce(
    views: Sequence[Float[Tensor, "batch dim"]],
    *,
    temperature: float = 0.5,
    per_view: bool = False,
    denominator: Denominator = "own",
) -> Float[Tensor, ""]:
    """Contrast of the views of a batch with each other, the mean over anchors (SimCLR's NT-Xent for two views).

    An anchor's positives are the other views of its image; its negatives all views of all other images of all
    processes, or with `per_view` only those of its own view (batch styles standardization).

    Args:
        views: embeddings of each view, normalised here; row i of all is the same image.
    """
    with torch.autocast(views[0].device.type, enabled=False):
        mine = [F.normalize(view.float() if view.dtype.itemsize < 4 else view, dim=1) for view in views]
        anchors, keys = torch.cat(mine), torch.cat([all_gather(view) for view in mine])
        same_image, same_view = related(len(mine), len(mine[0]), anchors.device)
        negatives = ~same_image & same_view if per_view else ~same_image
        loss = contrast(anchors @ keys.T / temperature, same_image & ~same_view, negatives, denominator=denominator)
        return global_mean(loss)


def related(views: int, batch: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """For anchors (this process's views, one below the other) and keys (those of all processes, view by view):
    which pairs show the same image, and which are the same view."""
    joined = batch * world_size()
    image = torch.arange(batch, device=device) + rank() * batch
    anchor_image, key_image = image.repeat(views), torch.arange(joined, device=device).repeat(views)
    anchor_view = torch.arange(views, device=device).repeat_interleave(batch)
    key_view = torch.arange(views, device=device).repeat_interleave(joined)
    return anchor_image[:, None] == key_image, anchor_view[:, None] == key_view


def against_queue(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    queue: Float[Tensor, "size dim"],
    *,
    temperature: float = 0.2,
    denominator: Denominator = "own",
) -> Float[Tensor, ""]:
    """MoCo: each query's own key is its positive, and a queue of past keys its negatives. Normalised here."""
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys, queue = (F.normalize(x.float() if x.dtype.itemsize < 4 else x, dim=1)
                                for x in (queries, keys, queue))  # fmt: skip
        own = (queries * keys).sum(1, keepdim=True)
        similarities = torch.cat([own, queries @ queue.T], 1) / temperature
        positives = torch.zeros_like(similarities, dtype=torch.bool)
        positives[:, 0] = True
        return global_mean(contrast(similarities, positives, ~positives, denominator=denominator))


def in_batch(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    *,
    temperature: float = 0.2,
    denominator: Denominator = "own",
) -> Float[Tensor, ""]:
    """Row i of the keys is query i's positive, all other keys of all processes its negatives (MoCo-v3, CLIP,
    NNCLR). Normalised here."""
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys = (F.normalize(x.float() if x.dtype.itemsize < 4 else x, dim=1) for x in (queries, keys))
        joined = all_gather(keys)
        own = torch.arange(len(queries), device=queries.device) + rank() * len(queries)
        positives = own[:, None] == torch.arange(len(joined), device=queries.device)
        similarities = queries @ joined.T / temperature
        return global_mean(contrast(similarities, positives, ~positives, denominator=denominator))


def nearest(embeddings: Float[Tensor, "batch dim"], support: Float[Tensor, "size dim"]) -> Int[Tensor, "batch"]:
    """The number of the support vector with the highest cosine."""
    return (F.normalize(embeddings.float(), dim=1) @ F.normalize(support.float(), dim=1).T).argmax(1)


def global_mean(losses: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """The mean over the anchors of all processes: each process returns the same number, and the gradients that
    DistributedDataParallel averages are exact."""
    from rushlight.processes import all_sum

    return all_sum(losses.sum()) / (len(losses) * world_size())
