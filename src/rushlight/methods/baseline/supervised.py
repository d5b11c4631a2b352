"""Supervised: learn from the known labels alone; the baseline of every comparison.

Each step takes labelled images in a weak view and lowers the task's own loss of what is known. Where the data holds
localised label maps (a curator such as `relabel` made them), each image is seen in a random resized crop, and its
target is pooled from the map under that crop (Yun et al., 2021).
"""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from rushlight import tasks
from rushlight.augment import mix, policy
from rushlight.core.arguments import Count, NotNegative, Positive, Share, SomeShare, settings
from rushlight.core.card import TARGET, Card, Needs, known
from rushlight.data.dataset import Dataset
from rushlight.losses import label_map
from rushlight.losses.consistency import soft_cross_entropy
from rushlight.train.learner import Batch, Learner


@settings
class Supervised(Learner):
    """Learn from the known labels alone: the baseline of every comparison."""

    card = Card(
        id="supervised",
        title="Supervised baseline",
        family="baseline",
        role="learner",
        task=frozenset(tasks.names()),
        needs=Needs("image", known(TARGET)),
        gives="a model trained on the known labels of any task",
        says="the floor: any method for scarce labels must beat it at the same budget",
    )

    batch: Count = 64
    """Labelled images a step."""
    learning_rate: Positive = 2e-3
    """Of AdamW, at its peak."""
    weight_decay: NotNegative = 5e-4
    """Of AdamW."""
    scale: tuple[SomeShare, SomeShare] = (0.08, 1.0)
    """With label maps: a crop's share of the image's area."""
    cutmix: bool = False
    """With label maps: paste boxes of other images, and mix the targets."""
    settle: Share = 0.017
    """With `cutmix`: the last share of the steps, in which nothing is pasted (the paper: 5 of 300 epochs)."""

    def build(self, data: Dataset) -> None:
        super().build(data)
        size = (data.height, data.width)
        self.weak, _ = self.task.views(size)
        self.crop = policy.Policy(size, crop_scale=self.scale, flip=0.5, padding="border")
        self.mapped = self.task.id == "class" and bool(data.known("label_map_ids").any())
        self.classes = self.task.outputs(data)

    def rows(self, data: Dataset, part: str) -> Int[Tensor, "n"]:
        return data.known("label_map_ids").nonzero().squeeze(1) if self.mapped else super().rows(data, part)

    def step(self, batch: Batch) -> Tensor:
        labelled = batch["labelled"]
        if self.mapped:
            return self.mapped_step(batch)
        images, target = self.task.view(self.weak, labelled, self.generator())
        return self.task.loss(self.model.logits(images), target)

    def mapped_step(self, batch: Batch) -> Tensor:
        """ReLabel's step: each crop's target is what its part of the label map says."""
        labelled, generator = batch["labelled"], self.generator()
        images, view = self.crop.with_view(labelled["image"], generator=generator)
        maps = label_map.densify(labelled["label_map_values"], labelled["label_map_ids"], classes=self.classes)
        target = label_map.pooled_targets(maps, view.crop_boxes())
        if self.cutmix and self.progress < 1 - self.settle:
            mixed = mix.cutmix(len(images), view.size, generator=generator)
            images, target = mixed.images(images), mixed.targets(target)
        return soft_cross_entropy(self.model.logits(images), target).mean()
