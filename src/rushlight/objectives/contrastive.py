"""Contrast: one masked log-softmax of which InfoNCE and its relatives are cases.

For an anchor i with scaled similarities sᵢₖ = ⟨zᵢ, zₖ⟩/τ to keys k, positives P(i) and negatives N(i),

    ℓᵢ = 1/|P(i)| Σ_{p ∈ P(i)} [ −sᵢₚ + log( Dᵢₚ + Σ_{n ∈ N(i)} exp sᵢₙ ) ]

and what Dᵢₚ is, is told by `denominator`:

    own        exp sᵢₚ: InfoNCE (SimCLR, MoCo, NNCLR, CLIP); each pair stands alone against the negatives
    none       0: decoupled contrastive learning (DCL); the loss may be negative
    all        Σ_{q ∈ P(i)} exp sᵢ_q: supervised contrast

Which keys are negatives is a mask: all views of all other images, those of the same view alone, a queue. The matrix of
similarities is never held whole: a block of anchors at a time gives its loss and its gradients, so memory grows with
the embeddings, not with the square of the batch. Everything is over the joined batch of all processes.

InfoNCE's gradient is DCL's times q = U/(exp s + U), the negative-positive coupling, where U sums over the negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from rushlight.processes import all_gather, all_sum, rank, world_size

Denominator = Literal["own", "none", "all"]
Watch = Callable[[Tensor], None]
"""Called with each anchor's loss, without gradient and before any weight: for what is logged."""
BLOCK = 2**21
"""Similarities that are held at a time."""


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
    labels: Int[Tensor, "batch"] | None = None,
    per_view: bool = False,
    denominator: Denominator = "own",
    sigma: float | None = None,
    detach_weight: bool = True,
    watch: Watch | None = None,
) -> Float[Tensor, ""]:
    """Contrast of the views of a batch with each other, the mean over anchors (SimCLR's NT-Xent for two views).

    An anchor's positives are the other views of its image; its negatives all views of all other images of all
    processes, or with `per_view` only those of its own view (batch styles standardization).

    Args:
        views: embeddings of each view, normalised here; row i of all is the same image.
        labels: of the images: all other views of all images with the same label are positives (with
            `denominator="all"`: supervised contrast, arXiv:2004.11362).
        sigma: weigh each pair's positive term by `hardness` (DCLW); None weighs all alike.
        detach_weight: no gradient through that weight.
    """
    batch, count, device = len(views[0]), len(views), views[0].device
    anchor = torch.arange(count * batch, device=device)
    image = torch.arange(batch * world_size(), device=device)
    view = torch.arange(count, device=device)
    of_key = image if labels is None else all_gather(labels.double()).long()
    place = image.view(world_size(), batch)[rank()]
    relation = Relation(
        anchors=of_key[place].repeat(count),
        anchor_views=view.repeat_interleave(batch),
        itself=anchor // batch * len(image) + place.repeat(count),
        keys=of_key.repeat(count),
        key_views=view.repeat_interleave(len(image)),
        per_view=per_view,
    )
    loss = _compared(relation, temperature, denominator, watch, views, None)
    if sigma is None:
        return loss
    pairs = [(one, other) for i, one in enumerate(views) for other in views[i + 1 :]]
    eased = [_reweighted(*pair, temperature, sigma, detach_weight) for pair in pairs]
    return loss + torch.stack(eased).mean()


def against_queue(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    queue: Float[Tensor, "size dim"],
    *,
    temperature: float = 0.2,
    denominator: Denominator = "own",
    sigma: float | None = None,
    detach_weight: bool = True,
    watch: Watch | None = None,
) -> Float[Tensor, ""]:
    """MoCo: each query's own key is its positive, and a queue of past keys its negatives. Normalised here.

    Args:
        sigma, detach_weight: see `info_nce`.
    """
    own = torch.arange(len(queries), device=queries.device)
    nobody = own.new_full((len(queue),), -1)
    relation = Relation(
        anchors=own,
        anchor_views=torch.zeros_like(own),
        itself=nobody.new_full((len(own),), -1),
        keys=torch.cat([own, nobody]),
        key_views=torch.cat([torch.ones_like(own), torch.zeros_like(nobody)]),
        per_view=True,  # the other queries' keys are another "view", and so no negatives
    )
    loss = _compared(relation, temperature, denominator, watch, [queries], [keys, queue])
    return loss if sigma is None else loss + _reweighted(queries, keys, temperature, sigma, detach_weight)


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
    """Row i of the keys is query i's positive, all other keys of all processes its negatives (MoCo-v3, CLIP,
    NNCLR). Normalised here.

    Args:
        sigma, detach_weight: see `info_nce`.
    """
    image = torch.arange(len(queries) * world_size(), device=queries.device)
    own = image.view(world_size(), -1)[rank()]
    relation = Relation(own, torch.zeros_like(own), torch.full_like(own, -1), image, torch.zeros_like(image))
    loss = _compared(relation, temperature, denominator, watch, [queries], [keys], shared=True)
    return loss if sigma is None else loss + _reweighted(queries, keys, temperature, sigma, detach_weight)


def hardness(cosines: Float[Tensor, "pairs"], *, sigma: float = 0.5, detach: bool = True) -> Float[Tensor, "pairs"]:
    """DCLW's weight of each positive pair: w = 2 − exp(s/σ) / mean exp(s/σ), over the pairs of all processes.

    Its mean is 1; pairs that lie far apart have more.
    """
    cosines = cosines.detach() if detach else cosines
    raised = (cosines / sigma).exp()
    return 2 - raised / global_mean(raised)


def coupling(losses: Float[Tensor, "anchors"], *, decoupled: bool) -> Float[Tensor, "anchors"]:
    """The multiplier q = U/(exp s + U) by which InfoNCE's gradient is smaller than DCL's, from the losses of anchors
    with one positive each: 1 − exp(−InfoNCE) = sigmoid(DCL)."""
    return losses.sigmoid() if decoupled else -torch.expm1(-losses)


def nearest(embeddings: Float[Tensor, "batch dim"], support: Float[Tensor, "size dim"]) -> Int[Tensor, "batch"]:
    """The number of the support vector with the highest cosine."""
    return (F.normalize(embeddings.float(), dim=1) @ F.normalize(support.float(), dim=1).T).argmax(1)


def global_mean(losses: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """The mean over the anchors of all processes: each process returns the same number, and the gradients that
    DistributedDataParallel averages are exact."""
    return all_sum(losses.sum()) / (len(losses) * world_size())


def _reweighted(one: Tensor, other: Tensor, temperature: float, sigma: float, detach: bool) -> Tensor:
    """What the weights add to the loss: the mean of (1 − w)·s/τ over positive pairs."""
    with torch.autocast(one.device.type, enabled=False):
        cosines = (F.normalize(_full(one), dim=1) * F.normalize(_full(other), dim=1)).sum(1)
        return global_mean((1 - hardness(cosines, sigma=sigma, detach=detach)) * cosines) / temperature


def _full(values: Tensor) -> Tensor:
    return values.float() if values.dtype.itemsize < 4 else values


# Block by block -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Relation:
    """Which key is what to which anchor, told by numbers.

    Attributes:
        anchors, keys: the image that each shows: those of the same image are positives, of others negatives.
        anchor_views, key_views: the view that each is.
        itself: which key is the anchor itself, and so neither; −1 for none.
        per_view: only keys of the anchor's view are negatives.
    """

    anchors: Int[Tensor, "anchors"]
    anchor_views: Int[Tensor, "anchors"]
    itself: Int[Tensor, "anchors"]
    keys: Int[Tensor, "keys"]
    key_views: Int[Tensor, "keys"]
    per_view: bool = False

    def masks(self, rows: slice) -> tuple[Bool[Tensor, "rows keys"], Bool[Tensor, "rows keys"]]:
        """(positives, negatives) of some anchors."""
        same = self.anchors[rows, None] == self.keys
        itself = self.itself[rows, None] == torch.arange(len(self.keys), device=same.device)
        negatives = ~same
        if self.per_view:
            negatives &= self.anchor_views[rows, None] == self.key_views
        return same & ~itself, negatives


class _Side:
    """Embeddings as they are, with their lengths; gradients with respect to their directions gather here.

    Directions are not kept: dividing a block of similarities by lengths is cheaper than a copy of the embeddings.
    """

    def __init__(self, raw: Tensor, trained: bool):
        self.raw = _full(raw.detach())
        self.length = self.raw.norm(dim=1).clamp(min=1e-12)
        self.gradient = torch.zeros_like(self.raw) if trained else None

    def __len__(self) -> int:
        return len(self.raw)

    def directions(self, rows: slice) -> Tensor:
        return self.raw[rows] / self.length[rows, None]

    def cosines(self, directions: Tensor) -> Tensor:
        return directions @ self.raw.T / self.length

    def gathered(self) -> _Side:
        """That of all processes, one below the other; its gradient is this process's share."""
        if world_size() == 1:
            return self
        return _Side(all_gather(self.raw), self.gradient is not None)

    def take_back(self, whole: _Side) -> None:
        """Add the gradients that all processes found for these rows of the gathered side."""
        if whole is not self and self.gradient is not None and whole.gradient is not None:
            self.gradient += all_sum(whole.gradient)[rank() * len(self) :][: len(self)]

    def to_raw(self, scale: float) -> None:
        """From the gradient of directions to that of the embeddings, in place."""
        if self.gradient is None:
            return
        step = max(BLOCK // self.raw.shape[1], 1)
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            gradient, directions = self.gradient[rows], self.directions(rows)
            gradient -= directions * (directions * gradient).sum(1, keepdim=True)
            gradient *= (scale / self.length[rows])[:, None]


class _Contrast(torch.autograd.Function):
    """The mean loss of all anchors, and each anchor's. Gradients are made on the way forward, where a block of
    similarities is at hand, and only scaled on the way back."""

    @staticmethod
    def forward(
        ctx: Any, relation: Relation, temperature: float, denominator: Denominator, anchors: int, shared: bool,
        *embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        trained = ctx.needs_input_grad[5:]
        sides = [_Side(raw, need) for raw, need in zip(embeddings, trained, strict=True)]
        asked, given = sides[:anchors], sides[anchors:] or sides[:anchors]
        keys = [side.gathered() for side in given] if shared else given
        losses = _forward(relation, temperature, denominator, asked, keys)
        count = len(losses) * world_size()
        for side, whole in zip(given, keys, strict=True):
            side.take_back(whole)
        for side in sides:
            side.to_raw(1 / count)
        ctx.types = [raw.dtype for raw in embeddings]
        ctx.save_for_backward(*(side.gradient for side in sides))
        ctx.mark_non_differentiable(losses)
        return all_sum(losses.sum()) / count, losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Any, ...]:
        upstream = all_sum(upstream.contiguous())
        found = [None if gradient is None else gradient * upstream for gradient in ctx.saved_tensors]
        typed = [None if g is None else g.to(dtype) for g, dtype in zip(found, ctx.types, strict=True)]
        return None, None, None, None, None, *typed


def _forward(
    relation: Relation, temperature: float, denominator: Denominator, asked: list[_Side], keys: list[_Side]
) -> Float[Tensor, "anchors"]:
    """The losses of all anchors, view by view and block by block; the sides gather their gradients."""
    total = sum(len(side) for side in keys)
    step, losses, offset = max(BLOCK // total, 1), [], 0
    for side in asked:
        for start in range(0, len(side), step):
            rows = slice(start, min(start + step, len(side)))
            directions = side.directions(rows)
            similarities = torch.cat([key.cosines(directions) for key in keys], 1) / temperature
            masks = relation.masks(slice(offset + rows.start, offset + rows.stop))
            learned = any(each.gradient is not None for each in (side, *keys))
            with torch.set_grad_enabled(learned):
                loss = contrast(similarities.requires_grad_(learned), *masks, denominator=denominator)
                slopes = torch.autograd.grad(loss.sum(), similarities)[0] / temperature if learned else None
            losses.append(loss.detach())
            if slopes is not None:
                _gather_gradients(side, rows, directions, slopes, keys)
        offset += len(side)
    return torch.cat(losses)


def _gather_gradients(side: _Side, rows: slice, directions: Tensor, slopes: Tensor, keys: list[_Side]) -> None:
    for key, slope in zip(keys, slopes.split([len(key) for key in keys], 1), strict=True):
        if side.gradient is not None:
            side.gradient[rows] += (slope / key.length) @ key.raw
        if key.gradient is not None:
            key.gradient.addmm_(slope.T, directions)


def _compared(
    relation: Relation,
    temperature: float,
    denominator: Denominator,
    watch: Watch | None,
    anchors: Sequence[Tensor],
    keys: Sequence[Tensor] | None,
    shared: bool | None = None,
) -> Tensor:
    """The mean loss of the anchors against the keys; without keys, against the anchors of all processes.

    Args:
        shared: the keys of all processes are compared with.
    """
    with torch.autocast(anchors[0].device.type, enabled=False):
        loss, losses = _Contrast.apply(
            relation, temperature, denominator, len(anchors), keys is None or bool(shared), *anchors, *(keys or [])
        )
    if watch is not None:
        watch(losses)
    return loss
