"""MLCD: features from clusters of another network's, several of which are an image's classes. Multi-label cluster
discrimination.

A picture holds several things, and its one nearest cluster names one of them. A frozen teacher embeds all images; one
spherical k-means makes k clusters, once; each image's labels are the l clusters with the nearest centres, P. A student,
trained from the start, classifies into them: e = f(x) of length 1, class weights W of length 1, s = scale·cos(e, W),
with ArcFace's margin on positives. What a bad positive costs must not be set off against a good negative, so the two
sides have terms of their own:

    MLC  = log(1 + Σ_{j ∈ N} e^{s_j} · Σ_{i ∈ P} e^{−s_i})                                   (the paper's baseline)
    MLCD = log(1 + Σ_{i ∈ P} e^{−s_i}) + log(1 + Σ_{j ∈ N} e^{s_j})

N: a random part of the other clusters, drawn anew for each step's batch (PartialFC): cheaper, and softer where two
clusters mean the same. In a recipe the teacher is what came before: `"barlow-twins > mlcd"`.

Shared: k-means and nearest centres, the losses, the margin, the sampling, views.
An et al., 2024, arXiv:2407.17331; code: deepglint/unicom (the loss itself is not released).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Share, SomeShare
from rushlight.core.card import Card, Needs
from rushlight.core.distributed import all_gather
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import global_mean
from rushlight.measure.features import pooled
from rushlight.methods.pretrain.mlcd import multi_label
from rushlight.methods.pretrain.mlcd.cluster import nearest_centres, spherical_kmeans
from rushlight.nets import encoders
from rushlight.run.budget import Budget, Spent, count_flops, pass_flops
from rushlight.run.model import CONFIG, Model
from rushlight.run.stage import Outcome, RunContext
from rushlight.train.joint_embedding import crop_scale
from rushlight.train.learner import Batch, Learner

LOSSES = {"mlcd": multi_label.mlcd, "mlc": multi_label.mlc}
TEACHING = 0.25
"""The teacher's forwards cost at most this share of the budget; where they would cost more, fewer images are used."""
_ALONE = RunContext()


class MLCD(Learner):
    """Features from a teacher's clusters, several of which are an image's classes."""

    card = Card(
        id="mlcd",
        title="Multi-label Cluster Discrimination for Visual Representation Learning",
        paper="arXiv:2407.17331",
        code="deepglint/unicom",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained from the start to tell a teacher's clusters",
        says="LAION-400M, ViT-L/14: 84.6 % by linear probes over 26 sets, against 82.3 % for OpenCLIP",
        extra="cluster",
        tags=("clustering", "cluster discrimination"),
    )

    def __init__(
        self,
        *,
        clusters: Count | None = None,
        positives: Count = 8,
        loss: str = "mlcd",
        sampled: SomeShare = 0.1,
        scale: Positive = 32.0,
        margin: NotNegative = 0.3,
        exact_margin: bool = False,
        teacher: str | None = None,
        restart: bool = True,
        crop: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        batch: Count = 256,
        learning_rate: Positive = 1e-3,
        weight_decay: NotNegative = 0.2,
        warm_up: Share = 0.05,
    ):
        """
        Args:
            clusters: k; None takes one for 16 images, 32 at least, the paper's million at most.
            positives: l, at most a quarter of the clusters.
            loss: `mlcd`, or `mlc` for the baseline of pairs.
            sampled: share of the clusters that take part in a step; 1 takes all.
            scale: of the cosines.
            margin: of the positives' angles, in radians.
            exact_margin: with the gradient of cos(θ + m), not of a constant shift.
            teacher: the folder of a model, or a timm model whose pretrained weights are fetched; None takes the model
                that comes in.
            restart: train an encoder with fresh weights; False goes on with the teacher's own.
            crop: share of the image's area that is seen; None takes 0.4 to 1.
            flip: mirror half of the images.
            batch: images a step (the paper: 32 thousand).
            learning_rate: of AdamW, at its peak.
            weight_decay: of weights.
            warm_up: share of the steps in which the learning rate rises.
        """
        super().__init__()
        if loss not in LOSSES:
            raise UserError(f"mlcd's loss is 'mlcd' or 'mlc', not '{loss}'")
        self.clusters, self.count, self.loss, self.sampled = clusters, positives, loss, sampled
        self.scale, self.margin, self.kind = scale, margin, "exact" if exact_margin else "shift"
        self.taught_by, self.restart, self.crop, self.flip = teacher, restart, crop, flip
        self.parts, self.reads = {"views": 1}, ("image",)
        self.allowed: int | None = None
        self.batch, self.smallest_batch = batch, min(batch, 32)
        self.learning_rate, self.weight_decay, self.warm_up = learning_rate, weight_decay, warm_up

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Embed, cluster, label, train; the teacher's forwards are paid for."""
        self.allowed, paid = self.teaching(data, model, ctx.budget)
        return super().run(data, model, ctx.after(paid)).charged(paid)

    def teaching(self, data: Dataset, model: Model, budget: Budget) -> tuple[int, Spent]:
        """How many images the teacher embeds, and what that costs."""
        a_pass = pass_flops(model.encoder, (data.height, data.width))
        teacher, image = self.teacher_model(model).copy().eval(), data["image"][:1].float() / 255
        with torch.no_grad():
            price = count_flops(lambda: teacher.encoder(image))
        images = len(data)
        if budget.passes is not None:
            images = min(images, max(int(TEACHING * budget.passes * a_pass / price), 1))
        return images, Spent(images * price / a_pass, images * price)

    def teacher_model(self, given: Model) -> Model:
        """The network whose features are clustered.

        Raises:
            UserError: the named one is neither a folder of a model nor a timm model.
        """
        if self.taught_by is None:
            return given
        if (Path(self.taught_by) / CONFIG).exists():
            return Model.load(self.taught_by)
        return Model(encoders.create(self.taught_by, image_size=224, pretrained=True)).eval()

    def build(self, data: Dataset) -> None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.ctx.seed))
        self.chosen = order[: self.allowed].sort().values
        labels = self.label(pooled(self.teacher_model(self.source_model), data["image"][self.chosen]))
        self.register_buffer("labels", torch.zeros(len(data), labels.shape[1], dtype=torch.long))
        self.labels[self.chosen] = labels
        if self.restart:
            name, side = self.model.encoder.name, max(data.height, data.width)
            self.model.encoder = encoders.create(name, image_size=side, seed=self.ctx.seed).train()
        self.weight = nn.Parameter(0.01 * torch.randn(self.classes, self.model.encoder.width))
        size = (data.height, data.width)
        crop = self.crop or crop_scale(*size, smallest=0.4)
        self.view = policy.self_supervised(size, scale=crop, flip=self.flip, jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0)

    def label(self, features: Float[Tensor, "n dim"]) -> Int[Tensor, "n positives"]:
        """The nearest clusters of each image, of a k-means on all of them."""
        self.classes = self.clusters or min(max(len(features) // 16, 32), 1_000_000)
        self.classes = min(self.classes, len(features))
        centres = spherical_kmeans(features, self.classes, seed=self.ctx.seed)
        return nearest_centres(features, centres, max(min(self.count, self.classes // 4), 1))

    def rows(self, data: Dataset, part: str) -> Int[Tensor, "n"]:
        return self.chosen

    def step(self, batch: Batch) -> Tensor:
        views = batch["views"]
        labels = self.labels[views["row"]]
        embeddings = self.model.encoder(self.view(views["image"], generator=self.generator()))
        joined = all_gather(labels)  # every process has the same active classes
        generator = self.joint_generator(1)
        active = multi_label.active_classes(joined.flatten(), self.classes, self.sampled, generator=generator)
        positives = multi_label.among(labels, active)
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = self.logits(embeddings, active, positives)
            self.log(active=float(len(active)))
            return global_mean(LOSSES[self.loss](logits, positives))

    def logits(self, embeddings: Tensor, active: Tensor, positives: Tensor) -> Float[Tensor, "batch active"]:
        """Scaled cosines with the active classes, the positives' with the margin."""
        embeddings = embeddings.float() if embeddings.dtype.itemsize < 4 else embeddings
        cosines = F.normalize(embeddings, dim=1) @ F.normalize(self.weight[active], dim=1).T
        kind: Any = self.kind
        return self.scale * multi_label.with_margin(cosines, positives, self.margin, kind=kind)
