"""What DINO and its successors share: a slow teacher, a temperature that rises, prototypes that rest at first."""

from __future__ import annotations

import math
from typing import Any

from rushlight.data.dataset import Dataset
from rushlight.train.joint_embedding import JointEmbedding, local_size, prototypes_for
from rushlight.train.teacher import Teacher, rising

LARGE_COST = 2 + 2 / 3
"""Image passes that two large views cost: the student's forward and backward, the teacher's forward."""
LONG = 10_000
"""Steps of a training in which temperatures rise as published, over 30 % of it."""


class SelfDistillation(JointEmbedding):
    """Base of learners whose student predicts a slow teacher of its own form, through prototypes.

    A subclass sets `self.teacher` in `build`, and gives the model a `projector` whose last part are the prototypes.
    What the user leaves open (None) follows the number of steps.

    Attributes:
        local: small views of an image.
        outputs: K.
        momentum: of the teacher at the start; it rises to 1 by a half cosine.
        teacher_temperature: it goes there from `first_temperature` over the share `warm_temperature` of the training.
        freeze_last: share of the training in which the prototypes rest.
    """

    teacher: Teacher
    local: int | None = None
    outputs: int | None = None
    momentum: float = 0.996
    first_temperature: float = 0.04
    teacher_temperature: float = 0.04
    warm_temperature: float | None = None
    freeze_last: float = 0.01

    def settle(self, data: Dataset, *, views: int, outputs: int) -> tuple[int, int]:
        """Return the number of small views and K; both, and the temperature's rise, follow the number of steps.

        Small views: as many as leave `enough_steps`, 2 at least. K: a power of two, one for about 16 images and for
        two steps, 256 at least. The temperature rises over 30 % of the training, in proportion less below 10,000 steps.

        Args:
            views, outputs: the paper's, at most.
        """
        size = (data.height, data.width)
        share = math.prod(local_size(self.model.encoder, *size)) / math.prod(size)
        counts = range(views, 1, -1) if self.local is None else [self.local]
        for local in counts:
            steps = self.expected(LARGE_COST + local * share)[1]
            if steps >= self.enough_steps:
                break
        self.rise = 0.3 * min(steps / LONG, 1.0) if self.warm_temperature is None else self.warm_temperature
        least = prototypes_for(len(data), outputs)
        by_steps = least if math.isinf(steps) else max(2 ** int(math.log2(max(steps / 2, 1))), 256)
        return local, self.outputs or min(least, by_steps)

    def warmed(self, last: float) -> float:
        """Return a teacher's temperature on its way from `first_temperature` to `last`."""
        risen = min(self.progress / self.rise, 1.0) if self.rise else 1.0
        return self.first_temperature + risen * (last - self.first_temperature)

    def clip_gradients(self, groups: list[dict]) -> None:
        if self.progress < self.freeze_last:
            head: Any = self.model.head("projector")
            for parameter in head.heads[-1].parameters():
                parameter.grad = None
        super().clip_gradients(groups)

    def after_step(self) -> None:
        self.teacher.update(self.model, rising(self.momentum, self.progress))
