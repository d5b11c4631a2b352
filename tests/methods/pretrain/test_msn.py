"""MSN: what the anchor lacks, what its target is, the pull towards equal prototypes, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lightly.loss import MSNLoss
from margins import Margin
from pretraining import disturb, follows, fresh, photos, prepared, probed, trained

from rushlight.methods.pretrain.msn import MSN, grey_side, too_uneven
from rushlight.run.budget import Budget
from rushlight.run.stage import RunContext


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["conv16", "vit64-p7"])
def test_it_learns_features_without_labels(encoder: str, margin: Margin) -> None:
    model = trained("msn(focal=0, batch=32)", encoder, 7e3)
    before, after = probed(fresh(encoder)), probed(model)
    margin("gain over the untrained", after - before, 0.02)
    margin("accuracy", after, 0.55)


@pytest.mark.parametrize("per_view", [False, True])
def test_the_step_is_lightlys_loss_of_the_same_embeddings(per_view: bool) -> None:
    learner = prepared(MSN, focal=2, prototypes=32, temperature=0.2, sharpening=0.5, entropy_weight=3.0).double()
    learner.per_view = per_view
    disturb(learner.teacher.network)
    batch = learner.draw(16, 0)
    target, anchor, *focal = learner.views(batch)
    wanted = learner.teacher(target)["projector"]
    anchors = torch.cat([learner.masked(anchor), *learner.embed(focal)])
    theirs = MSNLoss(temperature=0.2, sinkhorn_iterations=3, regularization_weight=0.0)
    expected = theirs(anchors, wanted, learner.centres.weight, target_sharpen_temperature=0.5)
    scores = torch.nn.functional.normalize(anchors, dim=1) @ torch.nn.functional.normalize(learner.centres.weight).T
    columns = scores.chunk(3) if per_view else [scores]
    for column in columns:
        mean = (column / 0.2).softmax(1).mean(0)
        expected = expected + 3 * (math.log(32) + (mean * mean.log()).sum()) / len(columns)
    loss = learner.step(batch)
    torch.testing.assert_close(loss, expected)
    parameters = [*learner.model.parameters(), *learner.centres.parameters()]
    gradients = torch.autograd.grad(expected, parameters, retain_graph=True)
    for mine, their in zip(torch.autograd.grad(loss, parameters), gradients, strict=True):
        torch.testing.assert_close(mine, their)


def test_one_target_one_anchor_and_small_focal_views() -> None:
    learner = prepared(MSN, focal=3)
    assert [policy.size for policy in learner.policies] == [(28, 28)] * 2 + [(12, 12)] * 3
    assert learner.policies[0].crop_scale == pytest.approx((256 / 784, 1.0))
    assert learner.policies[2].crop_scale == pytest.approx((64 / 784, 0.3))


def test_the_teachers_momentum_rises_to_one_in_a_straight_line_and_its_statistics_are_its_own() -> None:
    learner = prepared(MSN, focal=0, momentum=0.8)
    learner.plan, learner.teacher.warm = replace(learner.plan, steps=100), False
    learner.step(learner.draw(8, 0))
    assert all(module.training for module in learner.teacher.network.modules())
    for at, share in ((0, 0.2), (25, 0.15), (100, 0.0)):
        learner.step_index = at
        follows(learner, learner.teacher, share)


def test_unevenness_is_nothing_for_equal_shares_and_the_logarithm_for_one() -> None:
    assert float(too_uneven(torch.full((5, 8), 1 / 8))) == pytest.approx(0, abs=1e-6)
    assert float(too_uneven(torch.eye(8)[:1].expand(5, 8))) == pytest.approx(math.log(8), abs=1e-6)


def test_the_networks_gradients_are_clipped_together_and_the_prototypes_are_not() -> None:
    """As the official `clip_grad_norm_(encoder.parameters(), clip_grad)`: one norm, of encoder and head."""
    learner = prepared(MSN, focal=0, clip=1e-3)
    learner.step(learner.draw(16, 0)).backward()
    network = list(learner.model.parameters())
    before = [each.grad.clone() for each in network]
    own = learner.centres.weight.grad.clone()
    norm = torch.stack([each.norm() for each in before]).norm()
    learner.clip_gradients(learner.groups())
    for each, old in zip(network, before, strict=True):
        torch.testing.assert_close(each.grad, old * 1e-3 / norm, rtol=1e-3, atol=1e-9)
    assert torch.equal(learner.centres.weight.grad, own)


def test_prototypes_are_not_decayed() -> None:
    learner = prepared(MSN, focal=0)
    decayed, plain = learner.groups()
    prototypes = learner.centres.weight
    assert not any(each is prototypes for each in decayed["params"])
    assert any(each is prototypes for each in plain["params"])
    assert (plain["weight_decay"], plain["plain"]) == (0.0, True)


def test_prototypes_are_no_more_than_the_images_of_a_step_unless_the_user_says_so() -> None:
    def count(passes: float, **settings) -> int:
        learner = MSN(focal=0, **settings)
        ctx = RunContext(task=None, budget=Budget(passes=passes))
        learner.prepare(photos().without("class"), fresh(), ctx)
        learner.plan = learner.plan_for(ctx.budget)
        return len(learner.centres.weight)

    assert count(1e6) == 256  # 1,500 images ask for 256, and a step has as many
    assert count(2e3) == 32  # a small budget has steps of 32
    assert count(2e3, prototypes=1024) == 1024
    assert count(2e3, batch=64) == 64


def test_targets_carry_no_gradient_also_not_to_the_prototypes() -> None:
    learner = prepared(MSN, focal=0, prototypes=32, entropy_weight=0.0)
    target = learner.target(torch.randn(16, 256, requires_grad=True))
    assert not target.requires_grad
    torch.testing.assert_close(target.sum(1), torch.ones(16))


def test_a_vits_anchor_lacks_patches_the_same_ones_in_the_whole_batch() -> None:
    learner = prepared(MSN, encoder="vit64-p7", drop=0.5, focal=0)
    tokens = []
    learner.model.encoder.model.blocks.register_forward_hook(lambda m, given, out: tokens.append(out.shape[1]))
    learner.masked(torch.rand(4, 3, 28, 28))
    assert tokens == [1 + 8]


def test_a_convolutional_anchor_is_grey_in_places() -> None:
    learner = prepared(MSN, drop=0.5, focal=0)
    seen = []
    learner.model.encoder.register_forward_hook(lambda m, given, out: seen.append(given[0]))
    learner.masked(torch.ones(4, 3, 28, 28))
    grey = (seen[0] == 0.5).all(1)
    assert grey[0].float().mean() == pytest.approx(0.5, abs=0.05)
    assert bool((grey == grey[0]).all())
    assert (grey_side(28, 28), grey_side(224, 224), grey_side(30, 17)) == (4, 32, 1)
