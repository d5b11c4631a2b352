"""Barlow Twins: two views' embeddings agree, and no dimension repeats another.

A constant embedding agrees with itself perfectly. Most methods avoid it with negatives, predictors, stopped gradients
or averaged twins; here the loss forbids it: the cross-correlation of the two views must be the identity.

Zbontar et al., 2021, arXiv:2103.03230; code: facebookresearch/barlowtwins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.redundancy import WIDE, barlow_twins, barlow_twins_by_columns
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName

LARS_RATE, LARS_PLAIN = 0.2, 0.0048
"""The paper's learning rates at a batch of 256: of weights, and of biases and norms."""


@settings
class BarlowTwins(JointEmbedding):
    """Features without labels: two views' embeddings agree, and no dimension repeats another."""

    card: ClassVar = Card(
        id="barlow-twins",
        title="Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
        paper="arXiv:2103.03230",
        code="facebookresearch/barlowtwins",
        family="pretrain",
        role="learner",
        serves="pretraining",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet: 73.2 % top-1 by a linear probe; 55.0 % when fine-tuned on 1 % of the labels",
        tags=("redundancy reduction", "instance discrimination"),
    )

    weight: NotNegative = 0.0051
    """λ, the price of redundancy."""
    projector: Sequence[Count] | None = None
    """Widths of its layers; None: three of four times the encoder's, at most 8192 (the paper's for a ResNet-50)."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.08 to 1, of 16×16 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    batch: Several = 256
    """Images a step (two views each)."""
    optimiser: OptimiserName = "adamw"
    """`adamw`; `lars` is the paper's."""
    learning_rate: Positive | None = None  # type: ignore[assignment]
    """At its peak; None: 2e-3, for LARS 0.2 (biases and norms 0.0048), times batch/256."""
    weight_decay: NotNegative = 1e-06
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 10 of 1000 epochs)."""

    def __post_init__(self) -> None:
        self.learning_rate = self.learning_rate or (LARS_RATE if self.optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        width = self.model.encoder.width
        widths = self.projector or projector_widths(width)
        self.add_head("projector", MLP(widths=[width, *widths], bias=False))
        scale = self.scale or crop_scale(data.height, data.width)
        self.policies = presets.barlow_pair((data.height, data.width), scale=scale, flip=self.flip)

    def step(self, batch: Batch) -> Tensor:
        z_a, z_b = (self.model.logits(view, "projector") for view in self.views(batch))
        loss = barlow_twins_by_columns if WIDE < z_a.shape[1] > len(z_a) * self.processes else barlow_twins
        return loss(z_a, z_b, weight=self.weight)

    def groups(self) -> list[dict]:
        weights, plain = super().groups()
        if self.optimiser == "lars":
            plain["scale"] *= LARS_PLAIN / LARS_RATE
        return [weights, plain]


def projector_widths(encoder: int) -> list[int]:
    """Return the default projector on an encoder of this width: the paper's 8192-8192-8192 for a ResNet-50's 2048."""
    return [min(4 * encoder, 8192)] * 3
