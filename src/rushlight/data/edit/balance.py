"""Draws in which no group dominates: study, then slide, then magnification, then image, each as often as its like.

Slides differ a thousandfold in their patches, and studies in their slides. Drawn evenly over images, the largest decide
what is learned. Here an image's share of the draws is 1 / (studies · its study's slides · its slide's magnifications ·
images beside it): each level is even within the one above. (Lai et al., 2023, arXiv:2310.13259, train on patches of 32
studies at three magnifications; their sampler is not released.)

In the order of the groups, each group is an interval of [0, 1] as long as its share. A batch of B draws a point from
each B-th of it (a stratified sample): a group of share s is drawn B·s times, give or take less than two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEVELS = ("study", "domain", "magnification")
"""Columns, from the outermost on; in histology the domain is the slide."""


@dataclass(frozen=True)
class Balance:
    """Rows, in the order of their groups, and the share of the draws that each has.

    Attributes:
        shares: sum to 1.
    """

    rows: Int[Tensor, "n"]
    shares: Float[Tensor, "n"]

    @classmethod
    def of(cls, levels: Sequence[Int[Tensor, "all"]], rows: Int[Tensor, "n"]) -> Balance:
        """Return shares that are even at each level within the one before, then over its rows; without levels, over
        all.

        Args:
            levels: each row's number at each level, from the outermost on; what is unknown (−1) is a group of its own.
            rows: those that are drawn from.
        """
        group, share = torch.zeros_like(rows), torch.ones(len(rows), dtype=torch.float64)
        for level in levels:
            values = level[rows] - level.min()
            width = int(values.max()) + 1
            inner, place = (group * width + values).unique(return_inverse=True)
            share /= (inner // width).bincount()[group]
            group = place
        share /= group.bincount()[group]
        order = group.argsort(stable=True)
        return cls(rows[order], share[order])

    @cached_property
    def ends(self) -> Float[Tensor, "n"]:
        """Return where each row's interval of [0, 1] ends."""
        return self.shares.cumsum(0) / self.shares.sum()

    @cached_property
    def even(self) -> bool:
        """Return whether all rows have the same share."""
        return bool(self.shares.max() - self.shares.min() < 1e-9 * self.shares.max())

    def draw(self, count: int, generator: torch.Generator) -> Int[Tensor, "count"]:
        """Draw rows by their shares, in random order; with equal shares and as many draws as rows, each occurs once."""
        point = (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count
        place = torch.searchsorted(self.ends, point, right=True).clamp(max=len(self.rows) - 1)
        return self.rows[place][torch.randperm(count, generator=generator)]
