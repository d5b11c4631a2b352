"""Shuffled batch norm: what keeps a batch's statistics from betraying which key was made beside a query.

MoCo's keys come from a memory bank, but a query's own key comes from its own batch, whose statistics both have seen. So
queries are normalised in groups, and keys in other groups, of the batch shuffled (He et al., 2019, arXiv:1911.05722,
section 3.3). The paper's groups are its GPUs' shares. Here their size is a setting and they span all processes, so that
several processes do what one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from rushlight.train.learner import Learner

Groups = list[Int[Tensor, "_"]]


def shuffled(learner: Learner, rows: int, size: int) -> tuple[Groups, Groups]:
    """Return this process's rows of each group of queries, as they come, and of each group of keys, shuffled.

    Args:
        rows: how many this process has.
        size: of a group, at least; without batch norms in the learner's model, all rows are one group.
    """
    order = torch.arange(rows * learner.processes, device=learner.device)
    mixed = torch.randperm(len(order), generator=learner.joint_generator(1), device=learner.device)
    norms = any(isinstance(module, _BatchNorm) for module in learner.model.modules())
    count = max(len(order) // size, 1) if norms else 1
    return _local(learner, order.chunk(count)), _local(learner, mixed.chunk(count))


def _local(learner: Learner, groups: Sequence[Tensor]) -> Groups:
    """Return this process's rows of each group: joined row j is on process j modulo their number."""
    if learner.processes == 1:
        return list(groups)
    return [rows[rows % learner.processes == learner.process] // learner.processes for rows in groups]


def in_groups(
    network: Callable[[Tensor], Tensor], images: Float[Tensor, "batch 3 height width"], groups: Groups
) -> Float[Tensor, "batch dim"]:
    """Return a network's outputs in the order of the images, with a forward for each group."""
    if len(groups) == 1:
        return network(images)
    outputs = torch.cat([network(images[rows]) for rows in groups])
    return outputs[torch.cat(groups).argsort()]
