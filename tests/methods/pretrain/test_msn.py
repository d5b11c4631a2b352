"""MSN: what the anchor lacks, what its target is, the pull towards equal prototypes, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lightly.loss import MSNLoss
from pretraining import disturb, follows, fresh, prepared, probed, trained

from rushlight.methods.pretrain.msn import MSN, grey_side, too_uneven


@pytest.mark.parametrize("encoder", ["conv16", "vit64-p7"])
def test_it_learns_features_without_labels(encoder: str) -> None:
    model = trained("msn(focal=0, batch=32)", encoder, 7e3)
    assert probed(model) > probed(fresh(encoder)) + 0.02
    assert probed(model) > 0.55


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
