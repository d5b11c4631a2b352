"""VICReg: features without labels, from views that agree while every dimension varies for itself.

Two views' embeddings should be alike; that alone is met by a constant. VICReg names what a constant lacks, and asks
each branch for it, separately: every dimension must vary over the batch, and no two may vary together. With z, z′ the
expander's outputs of N images, D wide, and C(z) their covariance over the batch:

    s(z, z′) = 1/(N·D) Σᵢ ‖zᵢ − z′ᵢ‖²                                                    (eq. 5)
    v(z)     = 1/D Σⱼ max(0, 1 − √(Var(zʲ) + ε))                                         (eq. 1)
    c(z)     = 1/D Σ_{i≠j} C(z)²ᵢⱼ                                                        (eq. 4)
    ℓ = λ·s(z, z′) + μ·[v(z) + v(z′)]/2 + ν·[c(z) + c(z′)]                                (eq. 6)

No negatives, no teacher, no normalisation of the embeddings; the branches need not even share weights.

Shared: the two policies, the loss (exact over all processes), the expander's MLP, LARS.
Bardes et al., 2021, arXiv:2105.04906; code: facebookresearch/vicreg.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.redundancy import vicreg
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName


class VICReg(JointEmbedding):
    """Features without labels: views agree, each dimension varies, and none varies with another."""

    card = Card(
        id="vicreg",
        title="VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
        paper="arXiv:2105.04906",
        code="facebookresearch/vicreg",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its expander",
        says="ImageNet, ResNet-50, 1000 epochs: 73.2 % top-1 by a linear probe",
        tags=("redundancy reduction", "instance discrimination"),
    )

    def __init__(
        self,
        *,
        invariance: NotNegative = 25.0,
        variance: NotNegative = 25.0,
        covariance: NotNegative = 1.0,
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
            invariance: λ.
            variance: μ.
            covariance: ν.
            projector: widths of the expander's layers; None takes three of four times the encoder's width, at most
                8192 (the paper's 8192-8192-8192 for a ResNet-50).
            scale: share of the image's area that a view shows; None takes the paper's 0.08 to 1, but no crop of
                less than 16×16 pixels' area.
            flip: mirror half of the views.
            batch: images a step (two views each).
            optimiser: `adamw`; `lars` is the paper's.
            learning_rate: at its peak; None takes 2e-3, and for LARS 0.2, which is multiplied by batch/256.
            weight_decay: of weights.
            warm_up: share of the steps in which the learning rate rises (the paper: 10 of 1000 epochs).
        """
        super().__init__()
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        self.projector = list(projector) if projector is not None else None
        self.scale, self.flip = scale, flip
        self.batch, self.smallest_batch = batch, min(batch, 64)
        self.optimiser, self.weight_decay, self.warm_up = optimiser, weight_decay, warm_up
        self.learning_rate = learning_rate or (0.2 if optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        widths = self.projector or [min(4 * width, 8192)] * 3
        self.add_head("projector", MLP(widths=[width, *widths]))
        self.policies = policy.barlow_pair(size, scale=self.scale or crop_scale(*size), flip=self.flip)

    def step(self, batch: Batch) -> Tensor:
        one, other = (self.model.logits(view, "projector") for view in self.views(batch))
        return vicreg(one, other, **self.weights)
