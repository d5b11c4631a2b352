"""BYOL: a network predicts its own slow copy's embedding of another view. No negatives.

A constant would solve it, and is not found: no gradient flows into the target, and the predictor, which the target
lacks, keeps the online network ahead of it.

Grill et al., 2020, arXiv:2006.07733; code: google-deepmind/deepmind-research.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import global_mean
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName
from rushlight.train.teacher import Teacher, rising


@settings
class BYOL(JointEmbedding):
    """Features without labels: a network predicts its own slow copy's view of the same image."""

    card: ClassVar = Card(
        id="byol",
        title="Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
        paper="arXiv:2006.07733",
        code="google-deepmind/deepmind-research",
        family="pretrain",
        role="learner",
        serves="encoder",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet, ResNet-50, 1000 epochs: 74.3 % top-1 by a linear probe",
        tags=("self-distillation", "view distillation"),
    )
    smallest_batch = 32

    hidden: Count | None = None
    """Of projector and predictor; None: four times the encoder's width, at most the paper's 4096."""
    outputs: Count = 256
    """Width of the embeddings."""
    momentum: Share = 0.996
    """m at the start; it rises to 1 by a half cosine, and is at most (1 + t)/(10 + t) at step t."""
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
    weight_decay: NotNegative = 1.5e-06
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 10 of 1000 epochs)."""

    def __post_init__(self) -> None:
        self.learning_rate = self.learning_rate or (0.2 if self.optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        hidden = self.hidden or min(4 * width, 4096)
        self.add_head("projector", MLP(widths=[width, hidden, self.outputs]))
        self.target = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.predictor = MLP(widths=[self.outputs, hidden, self.outputs])
        self.policies = presets.barlow_pair(size, scale=self.scale or crop_scale(*size), flip=self.flip)

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        targets = [self.target(view)["projector"] for view in views]
        predicted = [self.predictor(self.model.logits(view, "projector")) for view in views]
        return apart(predicted[0], targets[1]) + apart(predicted[1], targets[0])

    def after_step(self) -> None:
        self.target.update(self.model, rising(self.momentum, self.progress))


def apart(predicted: Float[Tensor, "batch dim"], target: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Return 2 − 2·cosine, the mean over all processes' images (eq. 2); the target without gradient."""
    predicted = predicted.float() if predicted.dtype.itemsize < 4 else predicted
    return global_mean(2 - 2 * F.cosine_similarity(predicted, target.detach().to(predicted.dtype), dim=1))
