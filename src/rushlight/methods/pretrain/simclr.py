"""SimCLR: features without labels, from telling images apart by two views of each.

Two random views of each of N images pass the encoder f and a small projector g. The two embeddings of one image
should be closer to each other than to both views of all other images. With z = g(f(x)) normalised, for each of the
2N anchors i with its partner p (eq. 1):

    ℓᵢ = −log exp(⟨zᵢ, z_p⟩/τ) / Σ_{k ≠ i} exp(⟨zᵢ, z_k⟩/τ)

and the loss is their mean. The projector takes the loss's blindness to what views differ in upon itself, so the
features below it keep more; it is thrown away. Strong colour jitter and crops are what makes the task hard.

Shared: the views' family, the masked log-softmax (over all processes' views), the projector's MLP, LARS.
Chen et al., 2020, arXiv:2002.05709; code: google-research/simclr.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import info_nce
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName


class SimCLR(JointEmbedding):
    """Features without labels: two views of an image are told from all other images."""

    card = Card(
        id="simclr",
        title="A Simple Framework for Contrastive Learning of Visual Representations",
        paper="arXiv:2002.05709",
        code="google-research/simclr",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet, ResNet-50: 69.3 % top-1 by a linear probe after 1000 epochs at a batch of 4096",
        tags=("contrastive", "instance discrimination"),
    )

    def __init__(
        self,
        *,
        temperature: Positive = 0.5,
        projector: Sequence[Count] | None = None,
        scale: tuple[SomeShare, SomeShare] | None = None,
        strength: NotNegative = 1.0,
        flip: bool = True,
        batch: Several = 256,
        optimiser: OptimiserName = "adamw",
        learning_rate: Positive | None = None,
        weight_decay: NotNegative = 1e-6,
        warm_up: Share = 0.05,
    ):
        """
        Args:
            temperature: τ (the paper: 0.1 for long training at large batches, 0.5 on CIFAR-10).
            projector: widths of its layers; None takes the encoder's width, then 128.
            scale: share of the image's area that a view shows; None takes the paper's 0.08 to 1, but no crop of
                less than 16×16 pixels' area.
            strength: of the colour jitter (0.8, 0.8, 0.8, 0.2), which is multiplied by it.
            flip: mirror half of the views.
            batch: images a step (two views each).
            optimiser: `adamw`; `lars` is the paper's.
            learning_rate: at its peak; None takes 2e-3, and for LARS 0.3, which is multiplied by batch/256.
            weight_decay: of weights.
            warm_up: share of the steps in which the learning rate rises (the paper: 10 of 1000 epochs).
        """
        super().__init__()
        self.temperature, self.scale, self.strength, self.flip = temperature, scale, strength, flip
        self.projector = list(projector) if projector is not None else None
        self.batch, self.smallest_batch = batch, min(batch, 64)
        self.optimiser, self.weight_decay, self.warm_up = optimiser, weight_decay, warm_up
        self.learning_rate = learning_rate or (0.3 if optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        self.add_head("projector", MLP(widths=[width, *(self.projector or [width, 128])]))
        view = policy.self_supervised(
            size,
            scale=self.scale or crop_scale(*size),
            flip=self.flip,
            jitter=(0.8 * self.strength, 0.8 * self.strength, 0.8 * self.strength, 0.2 * self.strength),
        )
        self.policies = [view, view]

    def step(self, batch: Batch) -> Tensor:
        views = self.embed(self.views(batch))
        return info_nce(views, temperature=self.temperature, per_view=self.per_view)
