"""Supervised: learn from the known labels alone.

The baseline of every comparison. Each step takes a batch of labelled images in a weak view (crop and flip; for masks
scale, crop and flip) and lowers the loss of what is known: cross-entropy for classes and pixels, binary cross-entropy
for tags. Unlabelled images are not looked at.

Where the data holds localised label maps (a curator such as `relabel` made them), each view's target is pooled from
the map under the view's crop instead (Yun et al., 2021).

The encoder, views, losses and label maps are shared parts.
"""

from __future__ import annotations

from torch import Tensor

from rushlight.augment import policy
from rushlight.card import TARGET, Card, Needs, known
from rushlight.data.dataset import Dataset
from rushlight.engine.learner import Batch, Learner
from rushlight.objectives import supervised


class Supervised(Learner):
    """Learn from the known labels alone: the baseline of every comparison."""

    card = Card(
        id="supervised",
        title="Supervised baseline",
        family="baseline",
        role="learner",
        task=frozenset({"class", "tags", "mask"}),
        needs=Needs("image", known(TARGET)),
        gives="a classifier, tagger or segmenter trained on the known labels",
        says="the floor: any method for scarce labels must beat it at the same budget",
    )

    def __init__(self, *, batch: int = 64, learning_rate: float = 2e-3, weight_decay: float = 5e-4):
        """
        Args:
            batch: labelled images a step.
            learning_rate: of AdamW, at its peak.
            weight_decay: of AdamW.
        """
        super().__init__()
        self.batch, self.learning_rate, self.weight_decay = batch, learning_rate, weight_decay

    def build(self, data: Dataset) -> None:
        super().build(data)
        size = (data.height, data.width)
        self.weak = policy.dense_weak(size) if self.task == "mask" else policy.weak(size)

    def step(self, batch: Batch) -> Tensor:
        labelled = batch["labelled"]
        images, view = self.weak.with_view(labelled["image"], generator=self.generator())
        target = view.masks(labelled["mask"]) if self.task == "mask" else labelled[self.task]
        return supervised.LOSSES[self.task](self.model.logits(images), target)
