"""Self-distillation: a student's view should be assigned like the teacher's other view of the same image.

With logits s of the student and t of the teacher over K outputs, temperatures T_s and T_t, and a centre c (DINO,
arXiv:2104.14294, equations 1 to 4):

    P_t = softmax((t − c)/T_t),  P_s = softmax(s/T_s),  H(P_t, P_s) = −Σ_k P_t log P_s

The centre, a slow mean of the teacher's logits, keeps one output from winning everywhere; the low T_t keeps all of
them from becoming equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rushlight.core.distributed import all_sum, world_size


class Centre(nn.Module):
    """A slow mean of the teacher's outputs over all processes: c ← m·c + (1 − m)·mean(t)."""

    value: Tensor

    def __init__(self, width: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(width))

    @torch.no_grad()
    def update(self, outputs: Float[Tensor, "*rows width"]) -> None:
        """Update the mean with outputs; call it after the loss that used them."""
        rows = outputs.detach().to(self.value.dtype).flatten(0, -2)
        mean = all_sum(rows.sum(0)) / (len(rows) * world_size())
        self.value.lerp_(mean, 1 - self.momentum)


def cross_entropy(
    student: Float[Tensor, "*rows width"],
    target: Float[Tensor, "*rows width"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, "*rows"]:
    """Return H(target, softmax(student/T)) of each row; the target is a distribution without gradient."""
    student = student.float() if student.dtype.itemsize < 4 else student
    return -(target.detach().to(student.dtype) * (student / temperature).log_softmax(-1)).sum(-1)


def sharpened(
    teacher: Float[Tensor, "*rows width"], centre: Float[Tensor, "width"] | None, temperature: float
) -> Float[Tensor, "*rows width"]:
    """Return softmax((t − c)/T) without gradient."""
    teacher = teacher.detach().float() if teacher.dtype.itemsize < 4 else teacher.detach()
    return ((teacher if centre is None else teacher - centre.to(teacher.dtype)) / temperature).softmax(-1)


def across_views(
    student: Sequence[Float[Tensor, "batch width"]],
    targets: Sequence[Float[Tensor, "batch width"]],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over all pairs of a target's view and a different view of the student, over the
    rows of all processes. Views are in the same order on both sides; the targets' are the first ones."""
    losses = [
        cross_entropy(seen, target, temperature=temperature)
        for i, target in enumerate(targets)
        for j, seen in enumerate(student)
        if i != j
    ]
    values = torch.stack(losses).mean(0)
    return all_sum(values.sum()) / (len(values) * world_size())
