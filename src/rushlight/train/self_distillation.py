"""What DINO and its successors share: a slow teacher, a temperature that rises, prototypes that rest at first."""

from __future__ import annotations

from typing import Any

from rushlight.train.joint_embedding import JointEmbedding
from rushlight.train.teacher import Teacher, rising


class SelfDistillation(JointEmbedding):
    """Base of learners whose student predicts a slow teacher of its own form, through prototypes.

    A subclass sets `self.teacher` in `build`, and gives the model a `projector` whose last part are the prototypes.

    Attributes:
        momentum: of the teacher at the start; it rises to 1 by a half cosine.
        teacher_temperature: it goes there from `first_temperature` over the share `warm_temperature` of the training.
        freeze_last: share of the training in which the prototypes rest.
    """

    teacher: Teacher
    momentum: float = 0.996
    first_temperature: float = 0.04
    teacher_temperature: float = 0.04
    warm_temperature: float = 0.3
    freeze_last: float = 0.01

    def warmed(self, last: float) -> float:
        """A teacher's temperature on its way from `first_temperature` to `last`."""
        risen = min(self.progress / self.warm_temperature, 1.0) if self.warm_temperature else 1.0
        return self.first_temperature + risen * (last - self.first_temperature)

    def clip_gradients(self, groups: list[dict]) -> None:
        if self.progress < self.freeze_last:
            head: Any = self.model.head("projector")
            for parameter in head.heads[-1].parameters():
                parameter.grad = None
        super().clip_gradients(groups)

    def after_step(self) -> None:
        self.teacher.update(self.model, rising(self.momentum, self.progress))
