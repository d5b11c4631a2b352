"""Losses whose gradients are made on the way forward, block by block: no whole matrix waits for the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from rushlight.core.distributed import all_sum

BLOCK = 2**20
"""Values of an intermediate matrix that are held at a time."""
Make = Callable[..., tuple[Tensor, Sequence[Tensor | None]]]


def with_gradients(make: Make, *inputs: Float[Tensor, "_ _"]) -> Float[Tensor, ""]:
    """Return a loss of the joined batch whose gradients are made in the forward pass, for the backward pass.

    Args:
        make: (which inputs need a gradient, the inputs without graph) → the loss, the same on all processes, and its
            gradients with respect to this process's inputs, or None where none is needed. It gives the gradients away:
            the way back scales them where they lie. A second backward pass calls it again.
    """
    return _Made.apply(make, *inputs)


class _Made(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, make: Make, *inputs: Tensor) -> Tensor:
        ctx.make = make
        ctx.save_for_backward(*inputs)
        loss, ctx.gradients = make(ctx.needs_input_grad[1:], *(x.detach() for x in inputs))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = ctx.make(ctx.needs_input_grad[1:], *(x.detach() for x in ctx.saved_tensors))
        upstream = all_sum(upstream.contiguous())
        return None, *(None if gradient is None else gradient.mul_(upstream) for gradient in gradients)
