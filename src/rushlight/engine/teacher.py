"""Teachers: a slowly moving copy of a network (an exponential moving average), without gradients."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Teacher(nn.Module):
    """An exponential moving average of a network: θ_t ← m·θ_t + (1 − m)·θ_s after each step.

    Tarvainen & Valpola, 2017, arXiv:1703.01780.

    Args:
        student: the network; it is copied.
        momentum: m, in [0, 1).
        warm: let m grow as min(m, (1 + t) / (10 + t)) over the first steps t, so that the first random weights are
            soon forgotten.
    """

    step: torch.Tensor

    def __init__(self, student: nn.Module, *, momentum: float = 0.999, warm: bool = True):
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {momentum}")
        self.network = copy.deepcopy(student).requires_grad_(False).eval()
        self.momentum, self.warm = momentum, warm
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> Teacher:
        """A teacher always runs in evaluation mode."""
        return super().train(False)

    def forward(self, *inputs, **named):
        with torch.no_grad():
            return self.network(*inputs, **named)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move towards the student: weights by the average, buffers (batch-norm statistics) copied."""
        self.step += 1
        step = int(self.step) if self.step.device.type == "cpu" else self.step
        momentum = min(self.momentum, (1 + step) / (10 + step)) if self.warm else self.momentum
        pairs = [(t, s) for t, s in zip(self.network.parameters(), student.parameters(), strict=True)]
        torch._foreach_lerp_([t for t, _ in pairs], [s.detach() for _, s in pairs], float(1 - momentum))
        for mine, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)
