"""DINO: a student predicts what a slow copy of itself says of another view. No negatives, no labels.

Each image is seen in two large views and several small ones; the teacher sees the large ones, the student all, so it
learns to tell the whole from a part. The centre, against which the teacher's logits are read, keeps one output from
winning everywhere; the low temperature keeps all of them from becoming equal.

Caron et al., 2021, arXiv:2104.14294; code: facebookresearch/dino.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from rushlight.augment import presets
from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.self_distillation import Centre, across_views, sharpened
from rushlight.nets.heads import prototype_head
from rushlight.nets.vit import drop_paths, is_vit
from rushlight.train.joint_embedding import crop_scale, local_scale, local_size
from rushlight.train.learner import Batch
from rushlight.train.self_distillation import SelfDistillation
from rushlight.train.teacher import Teacher

LARGE = 2
"""How many views the teacher sees."""


@settings
class DINO(SelfDistillation):
    """Self-distillation with no labels: a student predicts its slow teacher's answer to other views."""

    card: ClassVar = Card(
        id="dino",
        title="Emerging Properties in Self-Supervised Vision Transformers",
        paper="arXiv:2104.14294",
        code="facebookresearch/dino",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels (the teacher's)",
        says="ImageNet, ViT-S/16, 100 epochs: 69.3 % by k-NN and 74.0 % by a linear probe",
        tags=("self-distillation", "view distillation"),
    )
    smallest_batch = 32

    outputs: Count | None = None
    """K; None: at most 65536, one for 16 images and for two steps, 256 at least."""
    hidden: Count | None = None
    """Width of the head's MLP; None: six times the encoder's, at most the paper's 2048."""
    bottleneck: Count = 256
    """Width before the prototypes."""
    local: Whole | None = None
    """Small views; None: the paper's 8, fewer (2 at least) where they would leave under 1000 steps."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A large view's share of the image's area; None: 0.4 to 1, of 16×16 pixels at least."""
    small_scale: tuple[SomeShare, SomeShare] | None = None
    """A small view's share of the image's area; None: 0.05 to 0.4, of 8×8 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    student_temperature: Positive = 0.1
    """T_s."""
    teacher_temperature: Positive = 0.04
    """T_t (the stronger runs: 0.07)."""
    first_temperature: Positive = 0.04
    """T_t at the start."""
    warm_temperature: Share | None = None
    """Share of the training in which T_t rises; None: 0.3, in proportion less below 10,000 steps."""
    momentum: Share = 0.996
    """m at the start; it rises to 1 by a half cosine, and is at most (1 + t)/(10 + t) at step t."""
    centre_momentum: Share = 0.9
    """Of the centre."""
    freeze_last: Share = 0.01
    """Share of the training in which the prototypes rest (the paper: 1 of 100 epochs)."""
    drop_path: Share = 0.1
    """Of the student's blocks, where it is a ViT."""
    batch: Several = 256
    """Images a step."""
    learning_rate: Positive = 0.001
    """At its peak (the paper: 5e-4 · batch/256)."""
    weight_decay: NotNegative = 0.04
    """At the start."""
    last_weight_decay: NotNegative | None = 0.4
    """At the end, by a half cosine."""
    clip: Positive | None = 3.0
    """Largest norm of each parameter's gradient."""
    warm_up: Share = 0.1
    """Share of the steps in which the learning rate rises."""

    def build(self, data: Dataset) -> None:
        encoder, size = self.model.encoder, (data.height, data.width)
        local, outputs = self.settle(data, views=8, outputs=65536)
        self.add_head("projector", prototype_head(encoder.width, outputs, self.hidden, self.bottleneck))
        self.teacher = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.centre = Centre(outputs, self.centre_momentum)
        if is_vit(encoder):
            drop_paths(encoder, self.drop_path)
        self.policies: Sequence[Policy] = presets.multi_crop(
            size,
            local_size(encoder, *size),
            local=local,
            scale=self.scale or crop_scale(*size, smallest=0.4),
            local_scale=self.small_scale or local_scale(*size),
            flip=self.flip,
        )

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        taught = self.teach(views[:LARGE])
        return across_views(self.embed(views), taught, temperature=self.student_temperature)

    def teach(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Return the teacher's centred and sharpened answers; then update the centre with them."""
        logits = self.answers = [each.detach() for each in self.embed(views, network=self.teacher.network)]
        temperature = self.warmed(self.teacher_temperature)
        return [sharpened(each, self.centre.value, temperature) for each in logits]

    def after_step(self) -> None:
        self.centre.update(torch.cat(self.answers))
        super().after_step()
