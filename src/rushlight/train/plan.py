"""A budget made concrete, and the rows of each step: both depend on the seed and the step alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from rushlight.core.seeds import mix
from rushlight.run.budget import Spent


@dataclass(frozen=True)
class Plan:
    """The scale of the batch, the number of steps, and what a step costs.

    Attributes:
        batch: images of a stream of size 1.
        steps: of the optimiser.
        step_flops, pass_flops: of one step, and of one image pass.
        rate: factor on the learning rate, below 1 where memory allowed a smaller batch than planned.
    """

    batch: int
    steps: int
    step_flops: float
    pass_flops: float
    rate: float = 1.0

    def spent(self, steps: int, seconds: float) -> Spent:
        """Return the cost of this many steps."""
        flops = steps * self.step_flops
        return Spent(flops / self.pass_flops, flops, steps, seconds)


def permuted(rows: int, batch: int, step: int, seed: int) -> Int[Tensor, "batch"]:
    """Return the positions `step·batch … (step+1)·batch` of an endless row of permutations of 0 … rows − 1."""
    first, last = step * batch, (step + 1) * batch
    epochs = range(first // rows, (last - 1) // rows + 1)
    permutations = [_permutation(rows, mix(seed, epoch)) for epoch in epochs]
    start = first - epochs[0] * rows
    return torch.cat(permutations)[start : start + batch]


def _permutation(rows: int, seed: int) -> Int[Tensor, "rows"]:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
