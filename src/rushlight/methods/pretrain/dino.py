"""DINO: features without labels, from a student that predicts what a slow copy of itself says of another view.

No negatives and no labels: a student network is taught by a teacher of the same form, whose weights are a moving
average of the student's. Each image is seen in two large views and several small ones. The teacher sees the large
ones, the student all of them, so the student learns to tell the whole from a part. With logits s and t over K
outputs, temperatures T_s and T_t and a centre c:

    P_t = softmax((t − c)/T_t),  P_s = softmax(s/T_s)                                     (eq. 1)
    ℓ = mean over x ∈ {large}, x′ ∈ all views, x′ ≠ x of  −Σₖ P_t(x)ₖ log P_s(x′)ₖ          (eq. 3)
    θ_t ← m·θ_t + (1 − m)·θ_s        c ← 0.9·c + 0.1·mean(t), after the loss               (eq. 4)

What keeps it from collapse: the centre, so that no output wins everywhere, against the low T_t, so that they do not
all become equal. The head is an MLP to a bottleneck of length 1, then cosines with K prototypes. What is handed on is
the teacher's encoder.

Shared: multi-crop's policies, the losses and the centre, the moving average, the head's parts, one forward for all
views of one size.
Caron et al., 2021, arXiv:2104.14294; code: facebookresearch/dino.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.self_distillation import Centre, across_views, sharpened
from rushlight.nets.heads import prototype_head
from rushlight.nets.vit import drop_paths, is_vit
from rushlight.train.joint_embedding import crop_scale, local_scale, local_size, prototypes_for
from rushlight.train.learner import Batch
from rushlight.train.self_distillation import SelfDistillation
from rushlight.train.teacher import Teacher

LARGE = 2
"""How many views the teacher sees."""


class DINO(SelfDistillation):
    """Self-distillation with no labels: a student predicts its slow teacher's answer to other views."""

    card = Card(
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

    def __init__(
        self,
        *,
        outputs: Count | None = None,
        hidden: Count | None = None,
        bottleneck: Count = 256,
        local: Whole = 8,
        scale: tuple[SomeShare, SomeShare] | None = None,
        small_scale: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.04,
        first_temperature: Positive = 0.04,
        warm_temperature: Positive = 0.3,
        momentum: Share = 0.996,
        centre_momentum: Share = 0.9,
        freeze_last: Share = 0.01,
        drop_path: Share = 0.1,
        batch: Several = 256,
        learning_rate: Positive = 1e-3,
        weight_decay: NotNegative = 0.04,
        last_weight_decay: NotNegative | None = 0.4,
        clip: Positive | None = 3.0,
        warm_up: Share = 0.1,
    ):
        """
        Args:
            outputs: K; None takes the paper's 65536 for 1.3 million images, one for about 16 images below, 256 at
                least.
            hidden: width of the head's MLP; None takes six times the encoder's, at most the paper's 2048.
            bottleneck: width before the prototypes.
            local: small views.
            scale, small_scale: a large and a small view's share of the image's area; None takes the paper's 0.4 to 1
                and 0.05 to 0.4, but no large crop of less than 16×16 pixels' area, and no small one of less than 8×8.
            flip: mirror half of the views.
            student_temperature: T_s.
            teacher_temperature: T_t; it goes there from `first_temperature` over the share `warm_temperature` of the
                training (the stronger runs: 0.07).
            momentum: m at the start; it rises to 1 by a half cosine, and is no more than (1 + t)/(10 + t) at step t.
            centre_momentum: of the centre.
            freeze_last: share of the training in which the prototypes rest (the paper: 1 of 100 epochs).
            drop_path: of the student's blocks, where it is a ViT.
            batch: images a step.
            learning_rate: at its peak (the paper: 5e-4 · batch/256).
            weight_decay, last_weight_decay: at the start and at the end, by a half cosine.
            clip: largest norm of each parameter's gradient.
            warm_up: share of the steps in which the learning rate rises.
        """
        super().__init__()
        self.outputs, self.hidden, self.bottleneck, self.local = outputs, hidden, bottleneck, local
        self.scale, self.small_scale, self.flip = scale, small_scale, flip
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.first_temperature, self.warm_temperature = first_temperature, warm_temperature
        self.momentum, self.centre_momentum, self.freeze_last = momentum, centre_momentum, freeze_last
        self.drop_path, self.batch, self.smallest_batch = drop_path, batch, min(batch, 32)
        self.learning_rate, self.weight_decay, self.last_weight_decay = learning_rate, weight_decay, last_weight_decay
        self.clip, self.warm_up = clip, warm_up

    def build(self, data: Dataset) -> None:
        encoder, size = self.model.encoder, (data.height, data.width)
        outputs = self.outputs or prototypes_for(len(data), 65536)
        self.model.heads.update(
            {"projector_head": prototype_head(encoder.width, outputs, self.hidden, self.bottleneck)}
        )
        self.teacher = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.centre = Centre(outputs, self.centre_momentum)
        if is_vit(encoder):
            drop_paths(encoder, self.drop_path)
        self.policies: Sequence[policy.Policy] = policy.multi_crop(
            size,
            local_size(encoder, *size),
            local=self.local,
            scale=self.scale or crop_scale(*size, smallest=0.4),
            local_scale=self.small_scale or local_scale(*size),
            flip=self.flip,
        )

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        taught = self.teach(views[:LARGE])
        return across_views(self.embed(views), taught, temperature=self.student_temperature)

    def teach(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The teacher's centred and sharpened answers; the centre takes them in afterwards."""
        logits = self.answers = [each.detach() for each in self.embed(views, network=self.teacher.network)]
        temperature = self.warmed(self.teacher_temperature)
        return [sharpened(each, self.centre.value, temperature) for each in logits]

    def after_step(self) -> None:
        self.centre.update(torch.cat(self.answers))
        super().after_step()
