"""SimCLR: what it builds, what its step is, and that it learns."""

from __future__ import annotations

import pretraining
import pytest
import torch
from margins import Margin
from pretraining import fresh, probed

from rushlight.data.dataset import Dataset
from rushlight.methods.pretrain.simclr import SimCLR
from rushlight.run.budget import Budget
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext


@pytest.fixture(scope="module")
def photos() -> Dataset:
    return pretraining.photos()


def prepared(photos: Dataset, **settings) -> SimCLR:
    learner = SimCLR(**settings)
    learner.prepare(photos, fresh(), RunContext(seed=3, task=None))
    learner.plan = learner.plan_for(Budget(passes=2e3))
    return learner


@pytest.mark.slow
def test_it_learns_features_without_labels_and_hands_on_the_projector(photos, margin: Margin):
    data = photos.without("class")
    trained = (
        Recipe.parse("simclr(batch=64)").run(data, fresh(), RunContext(task=None, budget=Budget(passes=14e3))).model
    )
    assert trained.head_names == ["projector"]
    before, after = probed(fresh()), probed(trained)
    margin("gain over the untrained", after - before, 0.03)
    margin("accuracy", after, 0.68)


def nt_xent(one: torch.Tensor, other: torch.Tensor, temperature: float) -> torch.Tensor:
    """Equation 1 as it stands in the paper, anchor by anchor."""
    z = [row / row.norm() for row in torch.cat([one, other])]
    n, losses = len(one), []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = sum((z[i] @ z[k] / temperature).exp() for k in range(2 * n) if k != i)
        losses.append(-((z[i] @ z[partner] / temperature).exp() / others).log())
    return sum(losses) / (2 * n)


def test_the_step_is_equation_1_on_two_views_of_one_policy_in_one_forward(photos):
    learner = prepared(photos, temperature=0.3).double()
    batch, rng = learner.draw(16, 0), learner.generator()
    first, second = learner.policies
    assert first == second
    views = torch.cat([view(batch["views"]["image"], generator=rng) for view in (first, second)])
    z = learner.model.head("projector")(learner.model.encoder(views))
    loss = nt_xent(*z.chunk(2), 0.3)
    expected = torch.autograd.grad(loss, list(learner.model.parameters()))
    torch.testing.assert_close(learner.step(batch), loss)
    found = torch.autograd.grad(learner.step(batch), list(learner.model.parameters()))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-6)


def test_its_views_are_the_papers(photos):
    view = prepared(photos).policies[0]
    assert (view.jitter, view.grayscale, view.blur, view.flip, view.solarize) == (0.8, 0.2, 0.5, 0.5, 0.0)
    assert (view.brightness, view.contrast, view.saturation, view.hue) == pytest.approx((0.8, 0.8, 0.8, 0.2))
    weak = prepared(photos, strength=0.5, flip=False, scale=(0.5, 1.0)).policies[0]
    assert (weak.brightness, weak.hue, weak.flip, weak.crop_scale) == (0.4, 0.1, 0.0, (0.5, 1.0))


@pytest.mark.parametrize(("given", "widths"), [(None, [64, 64, 128]), ([96, 40], [64, 96, 40])])
def test_the_projector_has_one_hidden_layer_and_128_outputs_unless_told(photos, given, widths):
    assert prepared(photos, projector=given).model.head("projector").config["widths"] == widths


def test_compared_view_by_view_no_negative_comes_from_the_other_view(photos):
    """What an add-on asks for whose views have one style each."""
    learner, alike = prepared(photos), prepared(photos)
    alike.per_view = True
    batch = learner.draw(16, 0)
    assert learner.step(batch) > alike.step(batch)


def test_lars_is_the_papers(photos):
    learner = prepared(photos, optimiser="lars", batch=128)
    weights, plain = learner.make_optimiser().param_groups
    assert weights["lr"] == plain["lr"] == pytest.approx(0.3 * learner.plan.batch / 256)
    assert (weights["weight_decay"], plain["weight_decay"]) == (1e-6, 0.0)
    assert plain["plain"]
