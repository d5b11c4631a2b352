"""SwAV: the swapped prediction, equal shares, the memory bank, prototypes of length 1, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightly.loss import SwaVLoss
from margins import Margin
from pretraining import fresh, prepared, probed, trained

from rushlight.losses.transport import sinkhorn
from rushlight.methods.pretrain.swav import SwAV


@pytest.mark.slow
def test_it_learns_features_without_labels(margin: Margin) -> None:
    model = trained("swav(local=0, batch=32)", passes=14e3)
    assert model.head_names == ["projector"]
    before, after = probed(fresh()), probed(model)
    margin("gain over the untrained", after - before, 0.05)
    margin("accuracy", after, 0.65)


def test_the_step_is_lightlys_loss_of_the_same_scores() -> None:
    learner = prepared(SwAV, local=2, prototypes=32, temperature=0.2, epsilon=0.08, iterations=2).double()
    batch = learner.draw(16, 0)
    scores = [learner.centres(each) for each in learner.embed(learner.views(batch))]
    expected = SwaVLoss(temperature=0.2, sinkhorn_iterations=2, sinkhorn_epsilon=0.08)(scores[:2], scores[2:])
    loss = learner.step(batch)
    torch.testing.assert_close(loss, expected.squeeze())
    parameters = [*learner.model.parameters(), *learner.centres.parameters()]
    wanted = torch.autograd.grad(expected, parameters, retain_graph=True)
    for mine, theirs in zip(torch.autograd.grad(loss, parameters), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_memory_bank_joins_the_assignment_once_it_is_full_and_its_time_has_come() -> None:
    learner = prepared(SwAV, local=0, prototypes=32, memory_bank_size=32, memory_bank_from=0.5, batch=16)
    learner.plan = replace(learner.plan, batch=16, steps=10)
    scores = torch.randn(16, 32)
    alone = learner.code(0, scores)
    for at in range(3):
        learner.step_index = at
        learner.step(learner.draw(16, at))
        learner.after_step()
    assert learner.memory_banks[0].full
    torch.testing.assert_close(learner.code(0, scores), alone)
    learner.step_index = 5
    for view in range(2):
        past = learner.memory_banks[view].values @ learner.centres.weight.T
        expected = sinkhorn(torch.cat([scores, past]))[:16]
        torch.testing.assert_close(learner.code(view, scores), expected)
        assert not torch.allclose(expected, alone)
    learner.memory_banks[0].pushed.fill_(31)
    torch.testing.assert_close(learner.code(0, scores), alone)


def test_views_of_one_style_each_are_assigned_without_the_past_of_other_styles() -> None:
    learner = prepared(SwAV, local=0, prototypes=32, memory_bank_size=32, memory_bank_from=0.0, batch=16)
    learner.memory_banks[0].pushed.fill_(32)
    scores = torch.randn(16, 32)
    assert not torch.allclose(learner.code(0, scores), sinkhorn(scores))
    learner.per_view = True
    torch.testing.assert_close(learner.code(0, scores), sinkhorn(scores))


def test_what_waits_in_the_memory_bank_are_this_views_embeddings_of_length_one() -> None:
    learner = prepared(SwAV, local=0, prototypes=32, memory_bank_size=32, batch=16)
    batch = learner.draw(16, 0)
    embeddings = learner.embed(learner.views(batch))
    learner.step(batch)
    learner.after_step()
    for bank, each in zip(learner.memory_banks, embeddings, strict=True):
        torch.testing.assert_close(bank.values[:16], torch.nn.functional.normalize(each, dim=1))


def test_prototypes_have_length_one_after_each_step_and_rest_at_first() -> None:
    learner = prepared(SwAV, local=0, prototypes=32, freeze=0.5)
    learner.plan = replace(learner.plan, steps=10)
    optimiser = learner.make_optimiser()
    for at, rests in ((0, True), (8, False)):
        learner.step_index = at
        learner.step(learner.draw(16, at)).backward()
        learner.clip_gradients(optimiser.param_groups)
        assert (learner.centres.weight.grad is None) is rests
    learner.after_step()
    torch.testing.assert_close(learner.centres.weight.norm(dim=1), torch.ones(32))


def test_large_views_are_assigned_and_all_views_predict() -> None:
    learner = prepared(SwAV, local=4, prototypes=32)
    assert [policy.size for policy in learner.policies] == [(28, 28)] * 2 + [(12, 12)] * 4
    strengths = {(p.brightness, p.contrast, p.saturation, p.hue, p.blur) for p in learner.policies}
    assert strengths == {(0.8, 0.8, 0.8, 0.2, 0.5)}
    assert learner.policies[0].crop_scale == pytest.approx((256 / 784, 1.0))
    assert learner.policies[2].crop_scale == pytest.approx((64 / 784, 0.14))
    assert prepared(SwAV, memory_bank_size=0).memory_banks.__len__() == 0
