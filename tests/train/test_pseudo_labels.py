"""Pseudo-labels, and the views that they are made of and learned on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rushlight.train.pseudo_labels import PseudoLabels, confident, forward_views


def test_a_target_counts_from_the_threshold_on() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.3, 0.3, 0.4]], requires_grad=True)
    found = confident(probabilities, 0.5)
    assert found.target.tolist() == [0, 2, 2]
    assert found.mask.tolist() == [True, True, False]
    assert float(found.kept) == pytest.approx(2 / 3)
    assert found.weight is None


def test_the_unit_is_whatever_the_target_is_of() -> None:
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, :2] = True
    assert float(PseudoLabels(torch.zeros(2, 4, 4, dtype=torch.int64), mask).kept) == 0.25


@pytest.mark.parametrize("joint", [True, False])
def test_views_go_through_the_network_together_or_the_weak_ones_apart(joint: bool) -> None:
    torch.manual_seed(0)
    network, seen = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), []
    handle = network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    x, weak, strong = torch.randn(2, 3), torch.randn(5, 3), torch.randn(5, 3)
    outputs = forward_views(network, x, weak, strong, joint=joint)
    handle.remove()
    assert sorted(seen) == ([12] if joint else [5, 7])
    assert [len(output) for output in outputs] == [2, 5, 5]
    assert [output.requires_grad for output in outputs] == [True, joint, True]
    together = network(torch.cat([x, weak, strong] if joint else [x, strong]))
    torch.testing.assert_close(outputs[0], together[:2])
    torch.testing.assert_close(outputs[2], together[-5:])
    torch.testing.assert_close(outputs[1], together[2:7] if joint else network(weak).detach())
