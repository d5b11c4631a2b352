"""Sums and concatenations over all workers through which gradients flow.

A loss over the global batch is computed by every worker as the same number, from its own share of the
graph. If the backward pass of a sum over workers is again a sum over workers, then the average that
DistributedDataParallel takes of the workers' gradients is the exact gradient of that loss.
`torch.distributed.all_reduce` itself is not differentiable: a loss built on it trains with the true
gradient divided by the number of workers. Without a process group both functions return their argument.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Return how many workers share a batch; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)


def all_sum(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the sum of `x` over all workers, on each worker. Its gradient is the sum of the workers' gradients."""
    return _Sum.apply(x) if world_size() > 1 else x


def share_of_count(counted: Shaped[Tensor, ""]) -> Float[Tensor, ""]:
    """Return a worker's part of the count over all workers (at least one in total): dividing each worker's sum by it
    makes the average over workers equal to the mean of the joined batch."""
    return all_sum(counted.detach().float()).clamp(min=1) / world_size()


def all_gather(x: Shaped[Tensor, "rows *shape"]) -> Shaped[Tensor, "all_rows *shape"]:
    """Return all workers' `x`, concatenated by row in order of rank; each worker must hold equally many rows."""
    return _Gather.apply(x) if world_size() > 1 else x


@torch.no_grad()
def all_max(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the elementwise maximum of `x` over all workers, without gradient."""
    if world_size() == 1:
        return x
    largest = x.contiguous().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def rank() -> int:
    """Return this worker's number; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0
