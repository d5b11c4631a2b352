"""VICReg: views agree, every dimension varies, and no two vary together.

Agreement alone is met by a constant. VICReg names what a constant lacks and demands it of each branch separately. No
negatives, no teacher, no normalisation of the embeddings; the branches need not even share weights.

Bardes et al., 2021, arXiv:2105.04906; code: facebookresearch/vicreg.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.redundancy import WIDE, vicreg, vicreg_by_columns
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName


@settings
class VICReg(JointEmbedding):
    """Features without labels: views agree, each dimension varies, and none varies with another."""

    card: ClassVar = Card(
        id="vicreg",
        title="VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
        paper="arXiv:2105.04906",
        code="facebookresearch/vicreg",
        family="pretrain",
        role="learner",
        serves="encoder",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its expander",
        says="ImageNet, ResNet-50, 1000 epochs: 73.2 % top-1 by a linear probe",
        tags=("redundancy reduction", "instance discrimination"),
    )

    invariance: NotNegative = 25.0
    """λ, of the views' mean squared difference."""
    variance: NotNegative = 25.0
    """μ, of the hinge on each dimension's deviation."""
    covariance: NotNegative = 1.0
    """ν, of squared covariances."""
    projector: Sequence[Count] | None = None
    """Widths of the expander; None: three of four times the encoder's, at most 8192 (the paper's for a ResNet-50)."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.08 to 1, of 16×16 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    batch: Several = 256
    """Images a step (two views each)."""
    optimiser: OptimiserName = "adamw"
    """`adamw`; `lars` is the paper's."""
    learning_rate: Positive | None = None  # type: ignore[assignment]
    """At its peak; None: 2e-3, for LARS 0.2 times batch/256."""
    weight_decay: NotNegative = 1e-06
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 10 of 1000 epochs)."""

    def __post_init__(self) -> None:
        self.learning_rate = self.learning_rate or (0.2 if self.optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        widths = self.projector or [min(4 * width, 8192)] * 3
        self.add_head("projector", MLP(widths=[width, *widths]))
        self.policies = presets.barlow_pair(size, scale=self.scale or crop_scale(*size), flip=self.flip)

    def step(self, batch: Batch) -> Tensor:
        z_a, z_b = (self.model.logits(view, "projector") for view in self.views(batch))
        weights = {"invariance": self.invariance, "variance": self.variance, "covariance": self.covariance}
        loss = vicreg_by_columns if WIDE < z_a.shape[1] > len(z_a) * self.processes else vicreg
        return loss(z_a, z_b, **weights)
