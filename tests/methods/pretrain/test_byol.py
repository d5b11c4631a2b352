"""BYOL: the loss of both orders of the views, where gradients flow, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from margins import Margin
from pretraining import disturb, follows, fresh, prepared, probed, trained

from rushlight.methods.pretrain.byol import BYOL, apart


@pytest.mark.slow
def test_it_learns_features_without_labels(margin: Margin) -> None:
    model = trained("byol(batch=32)", passes=14e3)
    assert model.head_names == ["projector"]
    before, after = probed(fresh()), probed(model)
    margin("gain over the untrained", after - before, 0.04)
    margin("accuracy", after, 0.63)


def test_apart_is_two_more_than_twice_lightlys_negative_cosine() -> None:
    one = torch.randn(7, 12, dtype=torch.float64, requires_grad=True)
    other = torch.randn(7, 12, dtype=torch.float64, requires_grad=True)
    loss, expected = apart(one, other), 2 + 2 * NegativeCosineSimilarity()(one, other)
    torch.testing.assert_close(loss, expected)
    mine, theirs = (torch.autograd.grad(each, one)[0] for each in (apart(one, other), expected))
    torch.testing.assert_close(mine, theirs)
    assert torch.autograd.grad(loss, other, allow_unused=True) == (None,)


def test_the_step_is_the_paper_in_both_orders() -> None:
    learner = prepared(BYOL).double()
    disturb(learner.target.network)
    batch = learner.draw(16, 0)
    views = learner.views(batch)
    total = torch.zeros((), dtype=torch.float64)
    for one, other in ((0, 1), (1, 0)):
        q = learner.predictor(learner.model.head("projector")(learner.model.encoder(views[one])))
        target = learner.target.network
        z = target.head("projector")(target.encoder(views[other]))
        for row in range(16):
            distance = q[row] / q[row].norm() - z[row] / z[row].norm()
            total = total + distance.square().sum() / 16
    torch.testing.assert_close(learner.step(batch), total)


def test_gradients_reach_the_online_network_and_the_predictor_alone() -> None:
    learner = prepared(BYOL)
    learner.step(learner.draw(16, 0)).backward()
    assert all(parameter.grad is not None for parameter in learner.predictor.parameters())
    assert all(parameter.grad is not None for parameter in learner.model.parameters())
    assert all(parameter.grad is None for parameter in learner.target.parameters())


def test_the_target_keeps_its_own_statistics_and_momentum_one_leaves_it() -> None:
    learner = prepared(BYOL, momentum=1.0)
    learner.target.warm = False
    weights = [parameter.clone() for parameter in learner.target.network.parameters()]
    norm = next(m for m in learner.target.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    learner.step(learner.draw(16, 0)).backward()
    assert norm.training
    assert norm.running_mean.any()
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.add_(1.0)
    learner.after_step()
    for before, after in zip(weights, learner.target.network.parameters(), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_the_targets_momentum_rises_to_one_by_half_a_cosine() -> None:
    learner = prepared(BYOL, momentum=0.9)
    learner.plan, learner.target.warm = replace(learner.plan, steps=100), False
    for at, share in ((0, 0.1), (50, 0.05), (100, 0.0)):
        learner.step_index = at
        follows(learner, learner.target, share)


def test_the_hidden_layers_are_four_times_as_wide_as_the_encoder() -> None:
    learner = prepared(BYOL)
    assert learner.model.head("projector").config["widths"] == [64, 256, 256]
    assert learner.predictor.config["widths"] == [256, 256, 256]
