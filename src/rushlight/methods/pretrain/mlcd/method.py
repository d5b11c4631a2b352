"""MLCD: classify images into several of the clusters of another network's features. Multi-label cluster discrimination.

A picture holds several things, and its one nearest cluster names one of them. A frozen teacher embeds all images, one
spherical k-means makes k clusters, and each image's labels are the l nearest. A student classifies into them; what a
bad positive costs must not be set off against a good negative, so the two sides have terms of their own. In a recipe
the teacher is what came before: `"barlow-twins > mlcd"`.

An et al., 2024, arXiv:2407.17331; code: deepglint/unicom (the loss itself is not released).
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.core.distributed import all_gather
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import global_mean
from rushlight.measure.preprocessing import TIMM, Reader
from rushlight.methods.pretrain.mlcd import multi_label
from rushlight.methods.pretrain.mlcd.cluster import nearest_centres, spherical_kmeans
from rushlight.nets import encoders
from rushlight.run.budget import Spent, count_flops, pace, pass_flops
from rushlight.run.model import CONFIG, Model, ModelInfo
from rushlight.run.stage import Outcome, RunContext
from rushlight.train.joint_embedding import crop_scale
from rushlight.train.learner import Batch, Learner

LOSSES = {"mlcd": multi_label.mlcd, "mlc": multi_label.mlc}
TEACHING = 0.25
"""The teacher's forwards cost at most this share of the budget; where they would cost more, fewer images are used."""


@settings
class MLCD(Learner):
    """Features from a teacher's clusters, several of which are an image's classes."""

    card: ClassVar = Card(
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
    parts = {"views": 1}
    reads = ("image",)
    smallest_batch = 32
    allowed: int | None = field(default=None, init=False)

    clusters: Count | None = None
    """k; None: one for 16 images, 32 at least, the paper's million at most."""
    positives: Count = 8
    """l, at most a quarter of the clusters."""
    loss: Literal["mlcd", "mlc"] = "mlcd"
    """`mlcd`, or `mlc` for the baseline of pairs."""
    sampled: SomeShare = 0.1
    """Share of the clusters that take part in a step; 1 takes all."""
    scale: Positive = 32.0
    """Of the cosines."""
    margin: NotNegative = 0.3
    """Of the positives' angles, in radians."""
    exact_margin: bool = False
    """With the gradient of cos(θ + m), not of a constant shift."""
    teacher: str | None = None
    """A model's folder, or a timm model, whose weights are fetched; None: the model that comes in."""
    restart: bool = True
    """Train an encoder with fresh weights; False goes on with the teacher's own."""
    crop: tuple[SomeShare, SomeShare] | None = None
    """Share of the image's area that is seen; None takes 0.4 to 1."""
    flip: bool = True
    """Mirror half of the images."""
    batch: Count = 256
    """Images a step (the paper: 32 thousand)."""
    learning_rate: Positive = 0.001
    """Of AdamW, at its peak."""
    weight_decay: NotNegative = 0.2
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises."""

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Embed, cluster, label, train; the teacher's forwards are paid for."""
        self.allowed, paid = self.teaching(data, model, ctx)
        return super().run(data, model, ctx.after(paid)).charged(paid)

    def teaching(self, data: Dataset, model: Model, ctx: RunContext) -> tuple[int, Spent]:
        """Return how many images the teacher embeds, and what that costs; its time counts with the training's."""
        a_pass = pass_flops(model.encoder, (data.height, data.width))
        reader = Reader(self.teacher_model(model).copy().eval())
        price = count_flops(lambda: reader.features(data.read("image", slice(1))))
        bought = ctx.budget.pays_for(
            TEACHING,
            passes=price / a_pass,
            seconds=lambda: ctx.measured(
                "teaching", lambda: pace(lambda rows: reader.features(data.read("image", rows)), len(data))
            ),
        )
        images = min(len(data), max(bought, 1))
        return images, Spent(images * price / a_pass, images * price)

    def teacher_model(self, model: Model) -> Model:
        """Return the network whose features are clustered.

        Raises:
            UserError: the named one is neither a folder of a model nor a timm model.
        """
        if self.teacher is None:
            return model
        if (Path(self.teacher) / CONFIG).exists():
            return Model.load(self.teacher)
        return fetched(self.teacher)

    def build(self, data: Dataset) -> None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.ctx.seed))
        self.chosen = order[: self.allowed].sort().values
        reader = Reader(self.teacher_model(self.source_model))
        labels = self.label(reader.features(data.select(self.chosen).reader("image")))
        self.labels: Tensor
        self.register_buffer("labels", torch.zeros(len(data), labels.shape[1], dtype=torch.long))
        self.labels[self.chosen] = labels
        if self.restart:
            name, side = self.model.encoder.name, max(data.height, data.width)
            self.model.encoders[self.model.first] = encoders.create(name, image_size=side, seed=self.ctx.seed).train()
        self.weight = nn.Parameter(0.01 * torch.randn(self.classes, self.model.encoder.width))
        size = (data.height, data.width)
        crop = self.crop or crop_scale(*size, smallest=0.4)
        self.view = presets.self_supervised(size, scale=crop, flip=self.flip, jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0)

    def label(self, features: Float[Tensor, "n dim"]) -> Int[Tensor, "n positives"]:
        """Return the nearest clusters of each image, of a k-means on all of them."""
        self.classes = self.clusters or min(max(len(features) // 16, 32), 1_000_000)
        self.classes = min(self.classes, len(features))
        centres = spherical_kmeans(features, self.classes, seed=self.ctx.seed)
        return nearest_centres(features, centres, max(min(self.positives, self.classes // 4), 1))

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
        """Return scaled cosines with the active classes, the positives' with the margin."""
        embeddings = embeddings.float() if embeddings.dtype.itemsize < 4 else embeddings
        cosines = F.normalize(embeddings, dim=1) @ F.normalize(self.weight[active], dim=1).T
        kind: Any = "exact" if self.exact_margin else "shift"
        return self.scale * multi_label.with_margin(cosines, positives, self.margin, kind=kind)


def fetched(name: str) -> Model:
    """Return a timm model with its pretrained weights, which reads images of the size that these were trained at."""
    import timm

    config = timm.get_pretrained_cfg(name.partition("+")[0].removeprefix("timm/"))
    side = int(config.input_size[-1]) if config is not None else 224
    info = ModelInfo(image_size=(side, side), recipe=f"{TIMM} {name}")
    return Model(encoders.create(name, image_size=side, pretrained=True), {}, info).eval()
