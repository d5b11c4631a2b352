"""Groups of a batch that share batch statistics: queries as they come, keys shuffled."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rushlight.run.stage import RunContext
from rushlight.train import shuffle
from rushlight.train.learner import Learner


def learner(*, norm: bool = True, process: int = 0, processes: int = 1) -> Any:
    """A learner that has what is read of one, and nothing else."""
    made: Any = Learner.__new__(Learner)
    nn.Module.__init__(made)
    made.model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2) if norm else nn.LayerNorm(2))
    made.process, made.processes, made.ctx = process, processes, RunContext(task=None)
    made.joint_generator = lambda number: torch.Generator().manual_seed(number)
    return made


def test_networks_without_batch_norm_are_not_divided() -> None:
    assert [len(groups) for groups in shuffle.shuffled(learner(norm=False), 256, 32)] == [1, 1]
    assert [len(groups) for groups in shuffle.shuffled(learner(), 256, 32)] == [8, 8]
    assert [len(groups) for groups in shuffle.shuffled(learner(), 20, 32)] == [1, 1]


def test_queries_come_in_order_and_keys_are_shuffled() -> None:
    queries, keys = shuffle.shuffled(learner(), 24, 8)
    assert torch.cat(queries).tolist() == list(range(24))
    assert torch.cat(keys).tolist() != list(range(24))
    assert sorted(torch.cat(keys).tolist()) == list(range(24))


def test_several_processes_divide_what_one_divides() -> None:
    found = [shuffle.shuffled(learner(process=process, processes=2), 32, 16) for process in range(2)]
    for kind, groups in enumerate(shuffle.shuffled(learner(), 64, 16)):
        assert len(groups) == 4
        for number, rows in enumerate(groups):
            both = [2 * found[process][kind][number] + process for process in range(2)]
            assert sorted(rows.tolist()) == sorted(torch.cat(both).tolist())


def test_each_group_has_a_forward_of_its_own_and_outputs_keep_the_order() -> None:
    images = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    groups = [torch.tensor([4, 0, 3]), torch.tensor([1, 5, 2])]
    expected = torch.empty(6, 12)
    for rows in groups:
        expected[rows] = images[rows].flatten(1) - images[rows].flatten(1).mean(0)
    outputs = shuffle.in_groups(lambda part: part.flatten(1) - part.flatten(1).mean(0), images, groups)
    torch.testing.assert_close(outputs, expected)
