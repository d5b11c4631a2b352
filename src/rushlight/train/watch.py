"""Whether losses are finite, without waiting for the device after each of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

LOOKS = 50
"""On a GPU losses are looked at once in so many steps: looking makes it wait."""


class Watch:
    """Counts on the device how many losses were finite before the first that was not.

    Attributes:
        every: steps between two looks; 1 on a CPU, where looking costs nothing.
        kept: a copy of the state, on the device, from which all losses up to the last look were finite.
    """

    def __init__(self, device: torch.device, every: int | None = None):
        self.every = every or (1 if device.type == "cpu" else LOOKS)
        self.kept: dict[str, Any] | None = None
        self.first, self.seen = 0, 0
        self._finite = torch.zeros((), dtype=torch.int64, device=device)

    def see(self, step: int, loss: Tensor) -> None:
        """Count the loss of a step in; nothing waits."""
        if not self.seen:
            self.first = step
        self._finite += (self._finite == self.seen) & loss.detach().isfinite()
        self.seen += 1

    @property
    def due(self) -> bool:
        """Return whether it is time to look: at the first loss (nothing is kept yet), then after so many."""
        return self.seen >= self.every or self.kept is None

    def bad(self) -> int | None:
        """Return the first step since the last state was kept whose loss was not finite; None if all were."""
        finite = int(self._finite) if self.seen else 0
        return self.first + finite if finite < self.seen else None

    def keep(self, state: dict[str, Any] | None) -> None:
        """Start to count again, from a state with which the loss was finite; it is copied."""
        self.kept, self.seen = copy.deepcopy(state), 0
        self._finite.zero_()
