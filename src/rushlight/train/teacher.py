"""Teachers: a slowly moving copy of a network (an exponential moving average), without gradients."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from rushlight.train.optim import half_cosine


class Teacher(nn.Module):
    """An exponential moving average of a network: θ_t ← m·θ_t + (1 − m)·θ_s.

    Tarvainen & Valpola, 2017, arXiv:1703.01780.

    Args:
        student: the network; it is copied.
        momentum: m, in [0, 1].
        warm: let m grow as min(m, (1 + t) / (10 + t)) over the first steps t, so that the first random weights are
            soon forgotten.
        own_statistics: keep the teacher in training mode, with batch-norm statistics of its own, as the key encoders
            of MoCo, BYOL and DINO are; by default it is in evaluation mode, with the student's statistics.
    """

    step: torch.Tensor
    network: Any

    def __init__(self, student: nn.Module, *, momentum: float = 0.999, warm: bool = True, own_statistics: bool = False):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], not {momentum}")
        self.network = copy.deepcopy(student).requires_grad_(False).train(own_statistics)
        self.momentum, self.warm, self.own_statistics = momentum, warm, own_statistics
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> Teacher:
        """Set the mode by `own_statistics` alone, whatever the caller asks for."""
        self.training = mode
        self.network.train(self.own_statistics)
        return self

    def forward(self, *inputs, **named):
        with torch.no_grad():
            return self.network(*inputs, **named)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float | None = None) -> None:
        """Move towards the student: weights by the average; buffers are copied unless they are the teacher's own.

        Args:
            momentum: of this step, where it follows a schedule (see `rising`).
        """
        self.step += 1
        wanted = self.momentum if momentum is None else momentum
        if self.warm:
            step = int(self.step)
            wanted = min(wanted, (1 + step) / (10 + step))
        pairs = [(t, s) for t, s in zip(self.network.parameters(), student.parameters(), strict=True)]
        torch._foreach_lerp_([t for t, _ in pairs], [s.detach() for _, s in pairs], 1 - wanted)
        if not self.own_statistics:
            for buffer, followed in zip(self.network.buffers(), student.buffers(), strict=True):
                buffer.copy_(followed)


def rising(first: float, progress: float, last: float = 1.0) -> float:
    """Return a momentum that goes from `first` to `last` by half a cosine (BYOL, MoCo-v3, DINO)."""
    return last + (first - last) * half_cosine(progress)
