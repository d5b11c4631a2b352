"""The joint-embedding core: views → encoder → projector, and what adds itself to every method of this kind.

A method of joint embedding makes views of one image agree. `policies` define the views (those of the image's
full size first, then the smaller ones), and `look` makes them; an add-on, such as a style shared by a whole batch or
stain augmentation, replaces `look`, and with `per_view` asks the method to compare only what shares a view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor

from rushlight.augment.policy import Policy
from rushlight.core.errors import UserError
from rushlight.core.seeds import mix
from rushlight.data.dataset import Dataset
from rushlight.data.edit.balance import Balance
from rushlight.nets.encoders import Encoder
from rushlight.nets.vit import is_vit, patch_size
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Outcome, RunContext, Stage
from rushlight.train.learner import Batch, Learner

SMALLEST_CROP = 16 * 16
"""Pixels that a view looks at, at least: of smaller crops little can be said (at 224×224, 0.08 is 63×63)."""

Look = Callable[[Sequence[Policy], TensorDict, torch.Generator], list[Tensor]]
"""(policies, raw columns of the batch, generator) → one view of every image a policy."""


def plain(policies: Sequence[Policy], columns: TensorDict, generator: torch.Generator) -> list[Tensor]:
    """Return each policy's view of the images."""
    return [policy(columns["image"], generator=generator) for policy in policies]


def crop_scale(
    height: int, width: int, smallest: float = 0.08, largest: float = 1.0, *, pixels: int = SMALLEST_CROP
) -> tuple[float, float]:
    """Return a range of a crop's area; the lower end is raised where it has fewer than `pixels` (by default 16×16)."""
    return min(max(smallest, pixels / (height * width)), largest), largest


def local_size(encoder: Encoder, height: int, width: int, share: float = 96 / 224) -> tuple[int, int]:
    """Return (height, width) of multi-crop's small views: this share of the image's, in whole patches, at least two."""
    unit = patch_size(encoder) if is_vit(encoder) else 4
    rows, columns = (max(round(share * side / unit), 2) * unit for side in (height, width))
    return min(rows, height), min(columns, width)


def local_scale(height: int, width: int, smallest: float = 0.05, largest: float = 0.4) -> tuple[float, float]:
    """Return the range of a small view's area; at least 8×8 pixels of small images."""
    return crop_scale(height, width, smallest, largest, pixels=8 * 8)


def prototypes_for(images: int, largest: int) -> int:
    """Return how many outputs or prototypes suit a data set: one for about 16 images, a power of two from 256 on."""
    return min(max(2 ** round(math.log2(max(images / 16, 1))), 256), largest)


class JointEmbedding(Learner):
    """Base of methods that make views of one image agree.

    Attributes:
        policies: of the views; set in `build`.
        look: makes the views. An add-on replaces it before the training.
        per_view: compare only what shares a view (negatives, assignments to prototypes); set by an add-on whose
            views have one style each.
        balance: which images are drawn, and how often; None draws all alike. An add-on sets it before the training.
    """

    parts = {"views": 1}
    reads = ("image",)  # an add-on whose `look` needs further columns names them
    batch, smallest_batch = 256, 64
    policies: Sequence[Policy]
    per_view: bool = False
    balance: Balance | None = None
    look: Look = staticmethod(plain)

    def groups(self) -> list[dict]:
        """Return the groups; LARS's learning rate is the papers' for a batch of 256, and grows with the batch."""
        groups = super().groups()
        if self.optimiser == "lars":
            for group in groups:
                group["scale"] = self.plan.batch / 256
        return groups

    def rows(self, data: Dataset, part: str) -> Int[Tensor, "n"]:
        return super().rows(data, part) if self.balance is None else self.balance.rows

    def pick(self, part: str, batch: int, step: int, seed: int) -> Int[Tensor, "batch"]:
        """Return rows from epochs of permutations, or, where shares differ, independent draws by them."""
        if self.balance is None or self.balance.even:
            return super().pick(part, batch, step, seed)
        return self.balance.draw(batch, torch.Generator().manual_seed(mix(seed, step)))

    def expected(self, cost: float) -> tuple[int, float]:
        """Return the batch and the number of steps that the budget gives, where an image costs so many passes.

        For defaults that follow the number of steps, before the plan counts what a step really costs. Without a
        budget in passes: the batch as it is, and no end of steps.
        """
        batch, passes = self.batch, self.ctx.budget.passes
        if passes is None:
            return batch, math.inf
        while passes / (batch * cost) < self.enough_steps and batch // 2 >= self.smallest_batch:
            if "batch" in self.explicit:
                break
            batch //= 2
        return batch, passes / (batch * cost)

    def views(self, batch: Batch) -> list[Float[Tensor, "batch 3 height width"]]:
        """Return the views of this step's images, one list entry per policy."""
        return self.look(self.policies, batch["views"], self.generator())

    def embed(self, views: Sequence[Tensor], head: str = "projector", network: Model | None = None) -> list[Tensor]:
        """Return a head's output for each view; neighbouring views of one size share a forward."""
        network = network or self.model
        return forward_by_size(lambda images: network.logits(images, head), views)


def forward_by_size(network: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """Return a network's outputs for several views: one forward for all neighbouring views of one size."""
    outputs: list[Tensor] = []
    start = 0
    for end in range(1, len(views) + 1):
        if end == len(views) or views[end].shape != views[start].shape:
            joined = network(torch.cat(list(views[start:end])) if end - start > 1 else views[start])
            outputs += joined.chunk(end - start)
            start = end
    return outputs


class AddOn(Stage):
    """Something that changes how a joint-embedding learner sees, whichever learner it is.

    A subclass makes its learner with `self.learner = joint(base)` and sets the learner's `look` and `per_view`.
    """

    learner: JointEmbedding

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        lacks = self.card.lacks(data, ctx.task)
        if lacks:
            raise UserError(f"'{self.card.id}' does not fit this data: it {lacks}")
        return self.learner.run(data, model, ctx)


def joint(text: str) -> Any:
    """Return a joint-embedding learner, written as in a recipe: `"simclr(temperature=0.2)"`.

    Raises:
        UserError: it cannot be read, or is no joint-embedding learner.
    """
    steps = Recipe.parse(text).steps
    learner = steps[0].stage()
    if len(steps) > 1 or not isinstance(learner, JointEmbedding):
        raise UserError(f"'{text}' is no joint-embedding learner: simclr, swav, dino and their kind are")
    return learner
