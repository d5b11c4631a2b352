"""SimCore: take from an open set the images that lie nearest to a small target set, to pretrain on both.

Few images X of the domain that matters do not feed self-supervised learning; many images U of anything can harm it. A
retrieval network, pretrained on X alone, embeds both; X is summed up by k centroids, and greedy rounds solve a
facility-location problem: every centroid takes its most similar image that is left, until a round is worth less than a
share of an early one. Handed on are X, what was taken, and the network as it came in.

Kim et al., 2023, arXiv:2303.11101; code: sungnyun/openssl-simcore.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rushlight.core.arguments import Count, Positive, Share, settings
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.core.findings import Findings, Measure
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.measure.features import pooled
from rushlight.methods.curate.simcore import coreset
from rushlight.run.budget import Budget, Clock, Spent, count_flops, pass_flops
from rushlight.run.model import Model
from rushlight.run.stage import Outcome, RunContext, Stage, joined
from rushlight.train.joint_embedding import joint

READING = 0.5
"""Reading all images' features costs at most this share of the budget; where it would cost more, the rest of the open
set is left out unseen."""
UNSEEN, FAR = "the budget did not reach it", "less similar to the target than what was taken"


@settings
class SimCore(Stage):
    """A coreset of an open set: what lies nearest to the target."""

    card = Card(
        id="simcore",
        title="Coreset Sampling from Open-Set for Fine-Grained Self-Supervised Learning",
        paper="arXiv:2303.11101",
        code="sungnyun/openssl-simcore",
        family="curate",
        role="curator",
        needs=Needs("image"),
        gives="the target's images and those of the open set that look like them",
        says="eleven fine-grained sets: +10.5 points by a linear probe against pretraining on the target alone",
    )

    target: str = "labelled"
    """Which rows are X: `labelled`, those with a known class; or `domain:NAME`, those of a domain."""
    retrieval: str = "simclr"
    """The learner that is pretrained on X, as in a recipe: `"simclr(temperature=0.07)"`."""
    clusters: Count = 100
    """k, the centroids; if X has no more images, each stands for itself."""
    patience: Count = 20
    """The round that sets the threshold."""
    factor: Share | None = 0.95
    """Share of that round's utility below which it stops; None never stops."""
    most: Positive | None = None
    """At most taken: up to 1 a share of the open set, above it a number; None: 50 times X, or 1 % without a stop."""
    times: Count = 1
    """How often to choose: each time after the first the retrieval network has seen X and the choice before."""

    def __post_init__(self) -> None:
        joint(self.retrieval)

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Return X and the choice as findings, and the model unchanged.

        Raises:
            UserError: there is no target, or no open set beside it.
        """
        target = self.targets(data)
        price, cost = self._price(data, model)
        seen, reading = self._seen(target, ctx.budget, price / cost)
        chosen, spent = torch.zeros(len(data), dtype=torch.bool), Spent()
        notes: tuple[str, ...] = ()
        for number in range(self.times):
            share = (1 - reading) / self.times
            here = ctx.substage(f"retrieval-{number}", share=share, after=spent, curve=False, task=None)
            trained = here.run(joint(self.retrieval), data.select(target | chosen).hide(), model)
            with Clock() as clock:
                found, chosen = self._choose(trained.model, data, target, seen, ctx.seed)
            flops = price * int((target | seen).sum())
            spent = spent + trained.spent + Spent(flops / cost, flops, 0, clock.seconds)
            notes = joined(notes, trained.notes)
        pool = self._pool(data, target, seen, chosen, found)
        kept = data.select(target | chosen)
        return Outcome(kept, model, spent, findings=self._found(found), pool=pool, notes=notes)

    def _found(self, found: coreset.Coreset) -> Findings:
        """Return the findings on the coreset."""
        return Findings(self.card.id, (Measure("chosen", float(len(found.rows)), kind="count"),))

    def targets(self, data: Dataset) -> Bool[Tensor, "rows"]:
        """Return the rows of X.

        Raises:
            UserError: none, or all of them; a domain that is not there.
        """
        kind, _, name = self.target.partition(":")
        if self.target == "labelled":
            rows, what = data.known("class"), "images with a known class"
        elif kind == "domain" and name:
            rows, what = _of_domain(data, name), f"images of the domain '{name}'"
        else:
            raise UserError(f"simcore's target is 'labelled' or 'domain:NAME', not '{self.target}'")
        if not rows.any() or rows.all():
            n = "all" if rows.any() else "none"
            raise UserError(f"simcore needs a target and an open set beside it: {n} of {data.info.source} are {what}")
        return rows

    def _price(self, data: Dataset, model: Model) -> tuple[float, float]:
        """Return the FLOPs of one image's features, and of an image pass."""
        encoder = model.copy().eval().encoder
        with torch.no_grad():
            price = count_flops(lambda: encoder(data.read("image", slice(1)).float() / 255))
        return price, pass_flops(model.encoder, (data.height, data.width))

    def _seen(self, target: Tensor, budget: Budget, passes: float) -> tuple[Tensor, float]:
        """Return the rows of the open set whose features are read (a random part, where the budget is short), and the
        total share of the budget that reading costs."""
        seen = ~target
        if budget.passes is None:
            return seen, 0.0
        room = int(READING * budget.passes / (self.times * passes)) - int(target.sum())
        rows = seen.nonzero()[:, 0]
        if len(rows) > room:
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
            seen = torch.zeros_like(seen).index_fill(0, rows[order[: max(room, 1)]], True)
        reading = self.times * passes * int((target | seen).sum()) / budget.passes
        return seen, min(reading, 0.95)

    def _choose(
        self, model: Model, data: Dataset, target: Tensor, seen: Tensor, seed: int
    ) -> tuple[coreset.Coreset, Bool[Tensor, "rows"]]:
        rows = seen.nonzero()[:, 0]
        own, other = (F.normalize(pooled(model, data.select(r)), dim=1) for r in (target, seen))
        found = coreset.select(
            other,
            self.centroids(own),
            budget=self._most(len(own), len(other)),
            patience=self.patience,
            factor=self.factor,
            seed=seed,
        )
        return found, torch.zeros(len(data), dtype=torch.bool).index_fill(0, rows[found.rows], True)

    def centroids(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "k dim"]:
        """Return the summary of the target: k-means' centroids of length 1, or all features of a few images."""
        if len(features) <= self.clusters:
            return features
        from sklearn.cluster import KMeans

        fitted: Any = KMeans(self.clusters, n_init=1, random_state=0).fit(features.numpy())
        return F.normalize(torch.from_numpy(fitted.cluster_centers_).float(), dim=1)

    def _most(self, target: int, others: int) -> int:
        if self.most is None:
            return max(50 * target if self.factor is not None else round(0.01 * others), 1)
        return max(round(self.most * others if self.most <= 1 else self.most), 1)

    def _pool(self, data: Dataset, target: Tensor, seen: Tensor, chosen: Tensor, found: coreset.Coreset) -> Pool:
        similarity = torch.full((len(data),), torch.nan)
        similarity[seen.nonzero()[:, 0][found.rows]] = found.similarity.float()
        pool = Pool.of(data).remove(UNSEEN, ~target & ~seen).remove(FAR, seen & ~chosen)
        return pool.score("similarity to the target", similarity)


def _of_domain(data: Dataset, name: str) -> Bool[Tensor, "rows"]:
    names = list(data.info.domain_names)
    if "domain" not in data or (name not in names and not name.isdecimal()):
        said = ", ".join(names) or "none"
        raise UserError(f"there is no domain '{name}' in {data.info.source}; it has: {said}")
    return data["domain"] == (names.index(name) if name in names else int(name))
