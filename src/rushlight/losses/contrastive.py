"""Contrast: one masked log-softmax of which InfoNCE and its relatives are cases.

For an anchor i with similarities sᵢₖ = ⟨zᵢ, zₖ⟩/τ to keys k, positives P(i) and negatives N(i),

    ℓᵢ = 1/|P(i)| Σ_{p ∈ P(i)} [ −sᵢₚ + log( Dᵢₚ + Σ_{n ∈ N(i)} exp sᵢₙ ) ]

with D by `denominator`: `own` exp sᵢₚ, InfoNCE (SimCLR, MoCo, NNCLR, CLIP); `none` 0, decoupled contrast (DCL), which
may be negative; `all` Σ_{q ∈ P(i)} exp sᵢ_q, supervised contrast. Embeddings are normalised here, and compared with
those of all processes. `losses.contrastive_blocks` has the same losses without the whole matrix of similarities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.core.distributed import all_gather, all_sum, rank, world_size

Denominator = Literal["own", "none", "all"]
Watch = Callable[[Tensor], None]
"""Called with each anchor's loss, without gradient and before any weight: for what is logged."""
LARGE = 2**22
"""Similarities (anchors × keys) from which the whole matrix is worth avoiding: 16 MB in float32."""


def contrast(
    similarities: Float[Tensor, "anchors keys"],
    positives: Bool[Tensor, "anchors keys"],
    negatives: Bool[Tensor, "anchors keys"],
    *,
    denominator: Denominator = "own",
    weight: Float[Tensor, "anchors #keys"] | None = None,
) -> Float[Tensor, "anchors"]:
    """Return the loss of each anchor (see the module); 0 for an anchor without a positive.

    Args:
        similarities: already divided by the temperature.
        weight: of each pair's positive term −sᵢₚ (DCLW); 1 by default.
    """
    against = torch.where(negatives, similarities, -torch.inf).logsumexp(1, keepdim=True)  # log Σ_n exp sᵢₙ
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
    sigma: float | None = None,
    detach_weight: bool = True,
    watch: Watch | None = None,
) -> Float[Tensor, ""]:
    """Contrast the views of a batch with each other; return the mean over anchors (SimCLR's NT-Xent for two views).

    An anchor's positives are the other views of its image; its negatives all views of all other images, or with
    `per_view` only those of its own view (batch styles standardization).

    Args:
        views: embeddings of each view; row i of all is the same image.
        sigma: weigh each pair's positive term by `hardness` (DCLW); None weighs all alike.
        detach_weight: no gradient through that weight.
    """
    with torch.autocast(views[0].device.type, enabled=False):
        z = torch.stack([_unit(view) for view in views], 1)  # [batch, views, dim]
        anchors, keys = z.flatten(0, 1), all_gather(z).flatten(0, 1)
        key = torch.arange(len(keys), device=z.device)
        anchor = key[rank() * len(anchors) :][: len(anchors), None]
        same_image, same_view = anchor // len(views) == key // len(views), anchor % len(views) == key % len(views)
        positives = same_image & ~same_view
        negatives = ~same_image & same_view if per_view else ~same_image
        weight = None
        if sigma is not None:
            cosines = torch.einsum("bvd,bwd->bvw", z, z)  # of each image's views
            weight = (
                hardness(cosines, sigma=sigma, detach=detach_weight).flatten(0, 1).repeat(1, len(keys) // len(views))
            )
        return _mean(anchors @ keys.T / temperature, positives, negatives, denominator, weight, watch)


def against_memory_bank(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    memory_bank: Float[Tensor, "size dim"],
    *,
    temperature: float = 0.2,
    denominator: Denominator = "own",
    sigma: float | None = None,
    detach_weight: bool = True,
    watch: Watch | None = None,
) -> Float[Tensor, ""]:
    """Contrast each query's own key, its positive, with a memory bank of past keys (MoCo).

    Args:
        sigma, detach_weight: see `info_nce`.
    """
    with torch.autocast(queries.device.type, enabled=False):
        q, k, past = _unit(queries), _unit(keys), _unit(memory_bank)
        own = (q * k).sum(1)
        similarities = torch.cat([own[:, None], q @ past.T], 1) / temperature
        positives = (torch.arange(1 + len(past), device=q.device) == 0).expand_as(similarities)
        weight = None if sigma is None else hardness(own, sigma=sigma, detach=detach_weight)[:, None]
        return _mean(similarities, positives, ~positives, denominator, weight, watch)


def in_batch(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    *,
    temperature: float = 0.2,
    denominator: Denominator = "own",
    sigma: float | None = None,
    detach_weight: bool = True,
    watch: Watch | None = None,
) -> Float[Tensor, ""]:
    """Contrast row i of the keys, query i's positive, with all other keys of all processes (MoCo-v3, CLIP, NNCLR).

    Args:
        sigma, detach_weight: see `info_nce`.
    """
    with torch.autocast(queries.device.type, enabled=False):
        q, k = _unit(queries), _unit(keys)
        joined = all_gather(k)
        key = torch.arange(len(joined), device=q.device)
        positives = key[rank() * len(q) :][: len(q), None] == key
        weight = None if sigma is None else hardness((q * k).sum(1), sigma=sigma, detach=detach_weight)[:, None]
        return _mean(q @ joined.T / temperature, positives, ~positives, denominator, weight, watch)


def hardness(cosines: Float[Tensor, "pairs *more"], *, sigma: float = 0.5, detach: bool = True) -> Tensor:
    """Return DCLW's weight of each positive pair of all processes: far pairs have more, the mean is 1."""
    cosines = cosines.detach() if detach else cosines
    raised = (cosines / sigma).exp()
    mean = all_sum(raised.sum(0)) / (len(raised) * world_size())
    return 2 - raised / mean  # w = 2 − exp(s/σ) / mean exp(s/σ)


def coupling(losses: Float[Tensor, "anchors"], *, decoupled: bool) -> Float[Tensor, "anchors"]:
    """Return q = U/(exp s + U), the factor by which InfoNCE's gradient is smaller than DCL's.

    From the losses of anchors with one positive each: 1 − exp(−InfoNCE) = sigmoid(DCL); U sums over the negatives.
    """
    return losses.sigmoid() if decoupled else -torch.expm1(-losses)


def nearest(embeddings: Float[Tensor, "batch dim"], support: Float[Tensor, "size dim"]) -> Int[Tensor, "batch"]:
    """Return the number of the support vector with the highest cosine."""
    return (F.normalize(embeddings.float(), dim=1) @ F.normalize(support.float(), dim=1).T).argmax(1)


def global_mean(losses: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """Return the mean over the anchors of all processes: each returns the same number, and the gradients that
    DistributedDataParallel averages are exact."""
    return all_sum(losses.sum()) / (len(losses) * world_size())


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float() if x.dtype.itemsize < 4 else x, dim=1)


def _mean(
    similarities: Tensor,
    positives: Tensor,
    negatives: Tensor,
    denominator: Denominator,
    weight: Tensor | None,
    watch: Watch | None,
) -> Tensor:
    """Return the mean contrast; a watcher gets the unweighted values."""
    losses = contrast(similarities, positives, negatives, denominator=denominator, weight=weight)
    if watch is not None:
        seen = similarities.detach()
        watch(losses.detach() if weight is None else contrast(seen, positives, negatives, denominator=denominator))
    return global_mean(losses)
