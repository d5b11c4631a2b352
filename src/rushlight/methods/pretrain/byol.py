"""BYOL: features without labels, from predicting a slow copy's embedding of another view. No negatives.

An online network (encoder f, projector g, predictor q) sees one view of an image, a target network (f′, g′: a moving
average of the online one) the other. The online network predicts the target's embedding:

    ℓ(x, x′) = ‖ q(g(f(x)))‾ − g′(f′(x′))‾ ‖² = 2 − 2·cos( q(g(f(x))), g′(f′(x′)) )          (eq. 2)
    θ′ ← m·θ′ + (1 − m)·θ                                                                  (eq. 1)

for both orders of the two views. A constant would solve it, and is not found: gradients do not flow into the target,
and the predictor, which the target lacks, keeps the online network ahead of it.

Shared: the two policies, the moving average (of parameters; the target's batch statistics are its own), MLPs, LARS.
Grill et al., 2020, arXiv:2006.07733; code: google-deepmind/deepmind-research.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import global_mean
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName
from rushlight.train.teacher import Teacher, rising


class BYOL(JointEmbedding):
    """Features without labels: a network predicts its own slow copy's view of the same image."""

    card = Card(
        id="byol",
        title="Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
        paper="arXiv:2006.07733",
        code="google-deepmind/deepmind-research",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet, ResNet-50, 1000 epochs: 74.3 % top-1 by a linear probe",
        tags=("self-distillation", "view distillation"),
    )

    def __init__(
        self,
        *,
        hidden: Count | None = None,
        outputs: Count = 256,
        momentum: Share = 0.996,
        scale: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        batch: Several = 256,
        optimiser: OptimiserName = "adamw",
        learning_rate: Positive | None = None,
        weight_decay: NotNegative = 1.5e-6,
        warm_up: Share = 0.05,
    ):
        """
        Args:
            hidden: width of the projector's and the predictor's hidden layer; None takes four times the encoder's, at
                most the paper's 4096.
            outputs: width of the embeddings.
            momentum: m at the start; it rises to 1 by a half cosine, and is no more than (1 + t)/(10 + t) at step t.
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
        self.hidden, self.outputs, self.momentum = hidden, outputs, momentum
        self.scale, self.flip = scale, flip
        self.batch, self.smallest_batch = batch, min(batch, 32)
        self.optimiser, self.weight_decay, self.warm_up = optimiser, weight_decay, warm_up
        self.learning_rate = learning_rate or (0.2 if optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        hidden = self.hidden or min(4 * width, 4096)
        self.add_head("projector", MLP(widths=[width, hidden, self.outputs]))
        self.target = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.predictor = MLP(widths=[self.outputs, hidden, self.outputs])
        self.policies = policy.barlow_pair(size, scale=self.scale or crop_scale(*size), flip=self.flip)

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        targets = [self.target(view)["projector"] for view in views]
        predicted = [self.predictor(self.model.logits(view, "projector")) for view in views]
        return apart(predicted[0], targets[1]) + apart(predicted[1], targets[0])

    def after_step(self) -> None:
        self.target.update(self.model, rising(self.momentum, self.progress))


def apart(predicted: Float[Tensor, "batch dim"], target: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """2 − 2·cosine, the mean over all processes' images (eq. 2); the target without gradient."""
    predicted = predicted.float() if predicted.dtype.itemsize < 4 else predicted
    return global_mean(2 - 2 * F.cosine_similarity(predicted, target.detach().to(predicted.dtype), dim=1))
