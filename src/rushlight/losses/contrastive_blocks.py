"""Contrast block by block: the losses of `losses.contrastive` without the whole matrix of similarities.

A block of anchors at a time gives its loss and its gradients, so memory grows with the embeddings, not with the square
of the batch or with the memory bank. The cases are those whose positives stand in aligned rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rushlight.core.distributed import all_gather, all_sum, rank, world_size
from rushlight.losses.contrastive import Denominator, Watch, global_mean, hardness
from rushlight.losses.forward_gradients import BLOCK, with_gradients


def info_nce_by_blocks(
    views: Sequence[Float[Tensor, "batch dim"]],
    *,
    temperature: float = 0.5,
    per_view: bool = False,
    denominator: Denominator = "own",
    sigma: float | None = None,
    detach_weight: bool = True,
    watch: Watch | None = None,
) -> Float[Tensor, ""]:
    """Return `info_nce`, block by block."""
    every = range(len(views))
    cast = [Role([w for w in every if w != v], [v] if per_view else list(every)) for v in every]
    pairs = [(v, w) for v in every for w in every if v < w]
    return _compared(cast, temperature, denominator, watch, views, harder=_Harder.of(sigma, detach_weight, pairs))


def against_memory_bank_by_blocks(
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
    """Return `against_memory_bank`, block by block."""
    cast = [Role([0], [1], aligned=False)]
    harder = _Harder.of(sigma, detach_weight, [(0, 0)])
    return _compared(cast, temperature, denominator, watch, [queries], [keys, memory_bank], shared=False, harder=harder)


def in_batch_by_blocks(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    *,
    temperature: float = 0.2,
    denominator: Denominator = "own",
    sigma: float | None = None,
    detach_weight: bool = True,
    watch: Watch | None = None,
) -> Float[Tensor, ""]:
    """Return `in_batch`, block by block."""
    harder = _Harder.of(sigma, detach_weight, [(0, 0)])
    return _compared([Role([0], [0])], temperature, denominator, watch, [queries], [keys], harder=harder)


def _full(values: Tensor) -> Tensor:
    return values.float() if values.dtype.itemsize < 4 else values


@dataclass(frozen=True)
class Role:
    """What the keys, by their numbers, are to one view's anchors.

    Attributes:
        positives: their rows of the anchors' own images are positives.
        negatives: their rows are negatives,
        aligned: but for those of the anchors' own images; False: no row is.
    """

    positives: Sequence[int]
    negatives: Sequence[int]
    aligned: bool = True


@dataclass(frozen=True)
class _Harder:
    """Hard pairs weigh more (DCLW): which numbers of anchors and of keys are pairs, and the settings of `hardness`."""

    sigma: float
    detach: bool
    pairs: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, sigma: float | None, detach: bool, pairs: Sequence[tuple[int, int]]) -> _Harder | None:
        return None if sigma is None else cls(sigma, detach, pairs)


class _Side:
    """Embeddings as they are, with their lengths; gradients with respect to their directions gather here.

    Directions are not kept: dividing a block of similarities by lengths is cheaper than a copy of the embeddings.
    """

    def __init__(self, raw: Tensor, trained: bool):
        self.raw = raw
        self.length = self.raw.norm(dim=1).clamp(min=1e-12)
        self.gradient = torch.zeros_like(self.raw) if trained else None
        self.first = 0  # the row of this process's first image

    def __len__(self) -> int:
        return len(self.raw)

    def directions(self, rows: slice) -> Tensor:
        return self.raw[rows] / self.length[rows, None]

    def own(self, rows: slice) -> slice:
        """Return the slice of these rows of this process."""
        return slice(self.first + rows.start, self.first + rows.stop)

    def gathered(self) -> _Side:
        """Return the side with the rows of all processes, in order of rank."""
        if world_size() == 1:
            return self
        whole = _Side(all_gather(self.raw), self.gradient is not None)
        whole.first = rank() * len(self)
        return whole

    def take_back(self, whole: _Side) -> None:
        """Add the gradients that all processes found for these rows of the gathered side."""
        if whole is not self and self.gradient is not None and whole.gradient is not None:
            self.gradient += all_sum(whole.gradient)[whole.own(slice(0, len(self)))]

    def to_raw(self, scale: float) -> None:
        """Convert the gradient of directions to that of the embeddings, in place."""
        if self.gradient is None:
            return
        step = max(BLOCK // self.raw.shape[1], 1)
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            gradient, directions = self.gradient[rows], self.directions(rows)
            gradient -= directions * (directions * gradient).sum(1, keepdim=True)
            gradient *= (scale / self.length[rows])[:, None]


def _mean_loss(
    cast: list[Role],
    temperature: float,
    denominator: Denominator,
    shared: bool,
    harder: _Harder | None,
    watch: Watch | None,
    needs: Sequence[bool],
    *embeddings: Tensor,
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the mean loss of all anchors and its gradients, computed block by block of similarities."""
    sides = [_Side(raw, need) for raw, need in zip(embeddings, needs, strict=True)]
    asked = sides[: len(cast)]
    given = sides[len(cast) :] or asked
    keys = [side.gathered() for side in given] if shared else given
    losses = [
        _block(side, rows, role, keys, temperature, denominator)
        for side, role in zip(asked, cast, strict=True)
        for rows in _blocks(len(side), sum(len(keys[number]) for number in role.negatives))
    ]
    for side, whole in zip(given, keys, strict=True):
        side.take_back(whole)
    count = sum(map(len, asked)) * world_size()
    loss = all_sum(torch.cat(losses).sum()) / count
    if harder is not None:
        scale = count / len(harder.pairs)
        added = [_reweighted(asked[one], given[other], temperature, harder, scale) for one, other in harder.pairs]
        loss += torch.stack(added).mean()
    for side in sides:
        side.to_raw(1 / count)
    if watch is not None:
        watch(torch.cat(losses))
    return loss, [side.gradient for side in sides]


def _reweighted(one: _Side, other: _Side, temperature: float, harder: _Harder, scale: float) -> Float[Tensor, ""]:
    """Return what the weights add to the loss of these pairs, the mean of (1 − w)·s/τ; add its gradients, times the
    scale, to the sides."""
    cosines = torch.linalg.vecdot(one.raw, other.raw) / (one.length * other.length)
    with torch.enable_grad():
        cosines.requires_grad_()
        weights = hardness(cosines, sigma=harder.sigma, detach=harder.detach)
        loss = global_mean((1 - weights) * cosines) / temperature
    # The sum over processes gives each the gradient of all of them, who have the same loss.
    slopes = torch.autograd.grad(loss, cosines)[0] * (scale / world_size())
    for rows in _blocks(len(one), one.raw.shape[1]):
        _add(one, rows, slopes[rows, None] * other.directions(rows))
        _add(other, rows, slopes[rows, None] * one.directions(rows))
    return loss.detach()


def _blocks(rows: int, keys: int) -> list[slice]:
    step = max(BLOCK // max(keys, 1), 1)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _block(
    side: _Side, rows: slice, role: Role, keys: list[_Side], temperature: float, denominator: Denominator
) -> Float[Tensor, "anchors"]:
    """Return the losses of some anchors, and add their gradients to the sides."""
    anchors = side.directions(rows)
    mates = [(keys[number], keys[number].own(rows)) for number in role.positives]
    others = [keys[number] for number in role.negatives]
    positive = torch.stack([(anchors * key.directions(own)).sum(1) for key, own in mates], 1) / temperature
    negative = torch.cat([(anchors / temperature) @ key.raw.T / key.length for key in others], 1)
    if role.aligned:
        for key, part in zip(others, negative.split([len(key) for key in others], 1), strict=True):
            part[:, key.own(rows)].fill_diagonal_(-torch.inf)
    against = negative.logsumexp(1)
    loss, pull, push = _slopes(positive, against, denominator)
    if any(each.gradient is not None for each in (side, *keys)):
        finite = against.clamp(min=torch.finfo(against.dtype).min)  # where there is no negative at all
        slopes = negative.sub_(finite[:, None]).exp_().mul_((push / temperature)[:, None])
        for (key, own), slope in zip(mates, (pull / temperature).unbind(1), strict=True):
            _add(side, rows, slope[:, None] * key.directions(own))
            _add(key, own, slope[:, None] * anchors)
        for key, slope in zip(others, slopes.split([len(key) for key in others], 1), strict=True):
            if key.gradient is not None:
                key.gradient.addmm_(slope.T, anchors)
            _add(side, rows, (slope / key.length) @ key.raw)
    return loss


def _slopes(
    positive: Float[Tensor, "anchors positives"], against: Float[Tensor, "anchors"], denominator: Denominator
) -> tuple[Float[Tensor, "anchors"], Float[Tensor, "anchors positives"], Float[Tensor, "anchors"]]:
    """Return (loss, its derivative by each positive's similarity, and by the negatives' log-sum-exp)."""
    share = 1 / positive.shape[1]
    match denominator:
        case "own":
            apart = against[:, None] - positive
            q = apart.sigmoid() * share
            return F.softplus(apart).mean(1), -q, q.sum(1)
        case "all":
            normaliser = torch.logaddexp(against, positive.logsumexp(1))
            pull = (positive - normaliser[:, None]).exp() - share
            return normaliser - positive.mean(1), pull, (against - normaliser).exp()
        case "none":
            return against - positive.mean(1), torch.full_like(positive, -share), torch.ones_like(against)


def _add(side: _Side, rows: slice, gradient: Tensor) -> None:
    if side.gradient is not None:
        side.gradient[rows] += gradient


def _compared(
    cast: list[Role],
    temperature: float,
    denominator: Denominator,
    watch: Watch | None,
    anchors: Sequence[Tensor],
    keys: Sequence[Tensor] = (),
    *,
    shared: bool = True,
    harder: _Harder | None = None,
) -> Float[Tensor, ""]:
    """Return the mean loss of the anchors against the keys; without keys, against the anchors themselves.

    Args:
        shared: the keys of all processes are compared with.
        harder: positive pairs are weighed by hardness; None weighs all alike.
    """
    with torch.autocast(anchors[0].device.type, enabled=False):
        make = partial(_mean_loss, cast, temperature, denominator, shared, harder, watch)
        return with_gradients(make, *(_full(x) for x in (*anchors, *keys)))
