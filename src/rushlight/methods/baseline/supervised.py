"""Supervised: learn from the known labels alone; the baseline of every comparison.

Each step takes labelled images in a weak view and lowers the task's own loss of what is known. Where the data holds
localised label maps (a curator such as `relabel` made them), each image is seen in a random resized crop, and its
target is pooled from the map under that crop (Yun et al., 2021).
"""

from __future__ import annotations

import copy
import math
from contextlib import suppress

from jaxtyping import Int
from torch import Tensor

from rushlight import tasks
from rushlight.augment import mix
from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, NotNegative, Part, Positive, Share, SomeShare, settings
from rushlight.core.card import TARGET, Card, Needs, known
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.losses import label_map
from rushlight.losses.consistency import soft_cross_entropy
from rushlight.nets.layers import decayed_groups
from rushlight.run.budget import Clock, Spent
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model
from rushlight.run.stage import Diverged, Outcome, RunContext
from rushlight.train.learner import Batch, Learner

FEWEST = 40
"""Labelled images below which none are held out to find a rate."""


@settings
class Supervised(Learner):
    """Learn from the known labels alone: the baseline of every comparison."""

    card = Card(
        id="supervised",
        title="Supervised baseline",
        family="baseline",
        role="learner",
        serves="reference",
        task=frozenset(tasks.names()),
        needs=Needs("image", known(TARGET)),
        gives="a model trained on the known labels of any task",
        says="the floor: any method for scarce labels must beat it at the same budget",
    )

    several_columns = True

    batch: Count = 64
    """Labelled images a step."""
    learning_rate: Positive = 2e-3
    """Of AdamW, at its peak; for an encoder that comes trained the best of `rates`, unless it is written."""
    weight_decay: NotNegative = 5e-4
    """Of AdamW."""
    layer_decay: SomeShare | None = None
    """Rate of each layer of that of the one above; None takes 0.75 for an encoder that comes trained, else 1."""
    rates: tuple[Positive, ...] = (2e-3, 5e-4, 1e-4)
    """Learning rates that are tried on held-out training labels, where the encoder comes trained."""
    trying: Part = 0.2
    """Share of the budget that trying them takes."""
    scale: tuple[SomeShare, SomeShare] = (0.08, 1.0)
    """With label maps: a crop's share of the image's area."""
    cutmix: bool = False
    """With label maps: paste boxes of other images, and mix the targets."""
    settle: Share = 0.017
    """With `cutmix`: the last share of the steps, in which nothing is pasted (the paper: 5 of 300 epochs)."""

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Train on the known labels; an already trained encoder is fine-tuned, at a rate found on these labels."""
        known = int(data.known(tasks.find(ctx.task).column).sum()) if ctx.task else 0
        if not model.info.origin or "learning_rate" in self.explicit or known < FEWEST:
            return super().run(data, model, ctx)
        self.check(data, model, ctx)
        self.learning_rate, paid = self.best_rate(data, model, ctx)
        return super().run(data, model, ctx.after(paid)).charged(paid)

    def best_rate(self, data: Dataset, model: Model, ctx: RunContext) -> tuple[float, Spent]:
        """Return the rate that does best on a quarter of the labels when trained on the others, and what that cost.

        Raises:
            Diverged: the training does with each of the rates.
        """
        task = tasks.find(ctx.task or "")
        parted = task.split(data, 0.25, ctx.seed)
        held, spent = parted.fold(TEST), Spent()
        values: dict[float, float] = {}
        diverged: list[Diverged] = []
        for rate in self.rates:
            candidate = copy.deepcopy(self)
            candidate.learning_rate, candidate.explicit = rate, self.explicit | {"learning_rate"}
            here = ctx.substage(f"rate-{rate:g}", share=self.trying / len(self.rates), curve=False)
            try:
                tried = here.run(candidate, parted.fold(TRAIN), model)
            except Diverged as error:
                diverged, spent = [*diverged, error], spent + error.spent
                continue
            with Clock() as clock, suppress(UserError):  # a metric that these few labels do not define
                values[rate] = evaluate(tried.model, held, task.id).value * (1 if task.metric.higher else -1)
            forward = Spent(passes=len(held) / 3, seconds=clock.seconds)  # of an image: about a third of a pass
            spent = spent + tried.spent + forward
        if len(diverged) == len(self.rates) > 0:
            raise diverged[-1]
        finite = {rate: value for rate, value in values.items() if math.isfinite(value)}
        return max(finite, key=lambda rate: finite[rate], default=self.learning_rate), spent

    def groups(self) -> list[dict]:
        """Return one group; for an encoder that is already trained, one per layer, slower towards the input."""
        decay = self.layer_decay or (0.75 if self.source_model.info.origin else 1.0)
        if decay == 1:
            return super().groups()
        return decayed_groups(self, self.model.encoder, decay=decay, weight_decay=self.weight_decay)

    def build(self, data: Dataset) -> None:
        super().build(data)
        size = (data.height, data.width)
        self.weak, _ = self.task.views(size)
        self.crop = Policy(size, crop_scale=self.scale, flip=0.5, padding="border")
        self.mapped = self.task.id == "class" and bool(data.known("label_map_ids").any())
        self.classes = self.task.outputs(data)

    def rows(self, data: Dataset, part: str) -> Int[Tensor, "n"]:
        return data.known("label_map_ids").nonzero().squeeze(1) if self.mapped else super().rows(data, part)

    def step(self, batch: Batch) -> Tensor:
        labelled = batch["labelled"]
        if self.mapped:
            return self.mapped_step(batch)
        images, view = self.weak.with_view(labelled["image"], generator=self.generator())
        target = self.task.moved(view, labelled[self.task.column])
        return self.task.loss(self.model.logits(self.in_view(view, images, labelled)), target)

    def mapped_step(self, batch: Batch) -> Tensor:
        """Return the loss of ReLabel's step: each crop's target is its part of the label map."""
        labelled, generator = batch["labelled"], self.generator()
        images, view = self.crop.with_view(labelled["image"], generator=generator)
        maps = label_map.densify(labelled["label_map_values"], labelled["label_map_ids"], classes=self.classes)
        target = label_map.pooled_targets(maps, view.crop_boxes())
        seen = self.in_view(view, images, labelled)
        if self.cutmix and self.progress < 1 - self.settle:
            mixed = mix.cutmix(len(images), view.size, generator=generator)
            seen, target = pasted(mixed, seen), mixed.targets(target)
        return soft_cross_entropy(self.model.logits(seen), target).mean()


def pasted(mixed: mix.Mix, seen: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Return images with a box of another image pasted in, and further values of the same pixels pasted alike."""
    if isinstance(seen, Tensor):
        return mixed.images(seen)
    return {name: mixed.images(one) if name == "image" else mixed.masks(one) for name, one in seen.items()}
