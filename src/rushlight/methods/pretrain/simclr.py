"""SimCLR: two views of an image are closer to each other than to all other images.

Strong colour jitter and crops make the task hard. The projector takes the loss's blindness to what the views differ in
upon itself, so that the features below it keep more; it is thrown away.

Chen et al., 2020, arXiv:2002.05709; code: google-research/simclr.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import LARGE, info_nce
from rushlight.losses.contrastive_blocks import info_nce_by_blocks
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName


@settings
class SimCLR(JointEmbedding):
    """Features without labels: two views of an image are contrasted with all other images."""

    card: ClassVar = Card(
        id="simclr",
        title="A Simple Framework for Contrastive Learning of Visual Representations",
        paper="arXiv:2002.05709",
        code="google-research/simclr",
        family="pretrain",
        role="learner",
        serves="encoder",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet, ResNet-50: 69.3 % top-1 by a linear probe after 1000 epochs at a batch of 4096",
        tags=("contrastive", "instance discrimination"),
    )

    temperature: Positive = 0.5
    """τ (paper: 0.1 for long training at large batches, 0.5 on CIFAR-10)."""
    projector: Sequence[Count] | None = None
    """Widths of its layers; None takes the encoder's width, then 128."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.08 to 1, of 16×16 pixels at least."""
    strength: NotNegative = 1.0
    """Of the colour jitter (0.8, 0.8, 0.8, 0.2), which is multiplied by it."""
    flip: bool = True
    """Mirror half of the views."""
    batch: Several = 256
    """Images a step (two views each)."""
    optimiser: OptimiserName = "adamw"
    """`adamw`; `lars` is the paper's."""
    learning_rate: Positive | None = None  # type: ignore[assignment]
    """At its peak; None: 2e-3, for LARS 0.3 times batch/256."""
    weight_decay: NotNegative = 1e-06
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 10 of 1000 epochs)."""

    def __post_init__(self) -> None:
        self.learning_rate = self.learning_rate or (0.3 if self.optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        self.add_head("projector", MLP(widths=[width, *(self.projector or [width, 128])]))
        view = presets.self_supervised(
            size,
            scale=self.scale or crop_scale(*size),
            flip=self.flip,
            jitter=(0.8 * self.strength, 0.8 * self.strength, 0.8 * self.strength, 0.2 * self.strength),
        )
        self.policies = [view, view]

    def step(self, batch: Batch) -> Tensor:
        views = self.embed(self.views(batch))
        anchors = sum(map(len, views))
        loss = info_nce_by_blocks if anchors**2 * self.processes > LARGE else info_nce
        return loss(views, temperature=self.temperature, per_view=self.per_view)
