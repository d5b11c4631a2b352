"""An exponential moving average of a network: its weights, its buffers, its mode."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rushlight.train.teacher import Teacher, rising


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@torch.no_grad()
def move(network: nn.Module, seed: int) -> None:
    """Train for a step, as it were: other weights, other statistics."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator))
    network.train()(torch.randn(8, 3, generator=generator))


@pytest.mark.parametrize("warm", [True, False])
def test_weights_are_the_moving_average(warm: bool) -> None:
    network = student()
    teacher = Teacher(network, momentum=0.4, warm=warm)
    expected = [parameter.detach().clone() for parameter in network.parameters()]
    for step in range(1, 8):
        move(network, step)
        m = min(0.4, (1 + step) / (10 + step)) if warm else 0.4
        expected = [m * old + (1 - m) * new.detach() for old, new in zip(expected, network.parameters(), strict=True)]
        teacher.update(network)
    for mine, value in zip(teacher.network.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, value)
        assert not mine.requires_grad
    assert int(teacher.step) == 7


def test_the_momentum_of_a_step_takes_the_place_of_its_own() -> None:
    network = student()
    teacher = Teacher(network, momentum=1.0, warm=False)
    move(network, 1)
    teacher.update(network, momentum=0.0)
    for mine, theirs in zip(teacher.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach())


@pytest.mark.parametrize("own", [True, False])
def test_statistics_are_the_students_or_its_own(own: bool) -> None:
    network = student()
    teacher = Teacher(network, own_statistics=own)
    move(network, 1)
    before = teacher.network[1].running_mean.clone()
    teacher.update(network)
    assert torch.equal(teacher.network[1].running_mean, before if own else network[1].running_mean)
    assert not torch.equal(before, network[1].running_mean)
    for mode in (True, False):
        teacher.train(mode)
        assert teacher.network[1].training is own
    before = teacher.network[1].running_mean.clone()
    teacher(torch.randn(8, 3) + 5)
    assert torch.equal(teacher.network[1].running_mean, before) is not own


def test_it_gives_no_gradient_and_is_no_alias_of_its_student() -> None:
    network = student()
    teacher = Teacher(network)
    assert not teacher(torch.randn(8, 3, requires_grad=True)).requires_grad
    move(network, 1)
    assert not torch.equal(teacher.network[0].weight, network[0].weight)


def test_its_step_is_kept_with_its_weights() -> None:
    network = student()
    teacher, again = Teacher(network), Teacher(network)
    teacher.update(network)
    again.load_state_dict(teacher.state_dict())
    assert int(again.step) == 1


def test_a_momentum_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum"):
        Teacher(student(), momentum=1.1)


def test_a_rising_momentum_follows_half_a_cosine() -> None:
    found = [rising(0.9, progress) for progress in (0, 0.25, 0.5, 1, 2)]
    assert found == pytest.approx([0.9, 0.95 - 0.05 / math.sqrt(2), 0.95, 1, 1])
