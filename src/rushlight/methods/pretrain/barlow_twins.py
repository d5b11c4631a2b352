"""Barlow Twins: features without labels, from views that agree and dimensions that do not repeat each other.

Two views of an image should have the same embedding; but a constant embedding agrees perfectly. Most methods
dodge it with negatives, predictors, stopped gradients or averaged twins. Here the loss itself forbids it. Two
different policies T and T′ see each image of a batch of N; encoder f and projector g give z_A = g(f(T(x))),
z_B = g(f(T′(x))), each dimension is standardised over the batch (ẑ), and their cross-correlation must be the
identity:

    C = ẑ_Aᵀ ẑ_B / N                                            (D×D; eq. 2)
    ℓ = Σᵢ (1 − Cᵢᵢ)² + λ Σᵢ Σⱼ≠ᵢ Cᵢⱼ²                          (eq. 1)

The first term asks for invariance, the second for little redundancy. Gradients flow through both views; the
network is one. Each view has a forward of its own, and so its own batch statistics, as published.

Shared: the two policies, the loss (exact over all processes), the projector's MLP, LARS. What is handed on is
the encoder, with the projector beside it (RankMe measures its outputs); the next learner takes the encoder
alone.
Zbontar et al., 2021, arXiv:2103.03230; code: facebookresearch/barlowtwins.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.redundancy import barlow_twins
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName

LARS_RATE, LARS_PLAIN = 0.2, 0.0048
"""The paper's learning rates at a batch of 256: of weights, and of biases and norms."""


class BarlowTwins(JointEmbedding):
    """Features without labels: two views' embeddings agree, and no dimension repeats another."""

    card = Card(
        id="barlow-twins",
        title="Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
        paper="arXiv:2103.03230",
        code="facebookresearch/barlowtwins",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet: 73.2 % top-1 by a linear probe; 55.0 % when fine-tuned on 1 % of the labels",
        tags=("redundancy reduction", "instance discrimination"),
    )

    def __init__(
        self,
        *,
        weight: NotNegative = 0.0051,
        projector: Sequence[Count] | None = None,
        scale: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        batch: Several = 256,
        optimiser: OptimiserName = "adamw",
        learning_rate: Positive | None = None,
        weight_decay: NotNegative = 1e-6,
        warm_up: Share = 0.05,
    ):
        """
        Args:
            weight: λ, the price of redundancy.
            projector: widths of its layers; None takes three of four times the encoder's width, at most 8192
                (the paper's 8192-8192-8192 for a ResNet-50).
            scale: share of the image's area that a view shows; None takes the paper's 0.08 to 1, but no crop of
                less than 16×16 pixels' area.
            flip: mirror half of the views.
            batch: images a step (two views each).
            optimiser: `adamw`; `lars` is the paper's.
            learning_rate: at its peak; None takes 2e-3, and for LARS 0.2, which is multiplied by batch/256,
                and for biases and norms by 0.024 besides (the paper's 0.0048).
            weight_decay: of weights.
            warm_up: share of the steps in which the learning rate rises (the paper: 10 of 1000 epochs).
        """
        super().__init__()
        self.weight, self.scale, self.flip = weight, scale, flip
        self.projector = list(projector) if projector is not None else None
        self.batch, self.smallest_batch = batch, min(batch, 64)
        self.optimiser, self.weight_decay, self.warm_up = optimiser, weight_decay, warm_up
        self.learning_rate = learning_rate or (LARS_RATE if optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        width = self.model.encoder.width
        widths = self.projector or projector_widths(width)
        self.add_head("projector", MLP(widths=[width, *widths], bias=False))
        scale = self.scale or crop_scale(data.height, data.width)
        self.policies = policy.barlow_pair((data.height, data.width), scale=scale, flip=self.flip)

    def step(self, batch: Batch) -> Tensor:
        one, other = (self.model.logits(view, "projector") for view in self.views(batch))
        return barlow_twins(one, other, weight=self.weight)

    def groups(self) -> list[dict]:
        weights, plain = super().groups()
        if self.optimiser == "lars":
            plain["scale"] *= LARS_PLAIN / LARS_RATE
        return [weights, plain]


def projector_widths(encoder: int) -> list[int]:
    """The default projector on an encoder of this width: the paper's 8192-8192-8192 for a ResNet-50's 2048."""
    return [min(4 * encoder, 8192)] * 3
