"""Barlow Twins: what it builds, what its step is, and that it learns."""

from __future__ import annotations

import pytest
import torch
from margins import Margin
from sklearn.linear_model import LogisticRegression

from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion
from rushlight.losses.redundancy import barlow_twins
from rushlight.measure.spectrum import effective_rank, singular_values
from rushlight.methods.pretrain.barlow_twins import BarlowTwins, projector_widths
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext
from rushlight.train.joint_embedding import crop_scale


@pytest.fixture(scope="module")
def photos() -> Dataset:
    return fashion.load().select(torch.arange(1500))


def fresh() -> Model:
    return Model(encoders.create("conv16", seed=0, image_size=28))


def prepared(photos: Dataset, **settings) -> BarlowTwins:
    learner = BarlowTwins(**settings)
    learner.prepare(photos, fresh(), RunContext(seed=3, task=None))
    learner.plan = learner.plan_for(Budget(passes=2e3))
    return learner


def probe(model: Model, photos: Dataset) -> float:
    """Accuracy of a linear probe with 500 labels on the other photos."""
    features = model.predict(photos["image"], names=["features"])["features"]
    features = ((features - features.mean(0)) / features.std(0).clamp(min=1e-6)).numpy()
    labels = photos["class"].numpy()
    return LogisticRegression(C=0.1, max_iter=300).fit(features[:500], labels[:500]).score(features[500:], labels[500:])


@pytest.mark.slow
def test_it_learns_features_without_labels_and_hands_on_the_projector(photos, margin: Margin):
    data = photos.without("class")
    trained = (
        Recipe.parse("barlow-twins(batch=64)")
        .run(data, fresh(), RunContext(task=None, budget=Budget(passes=14e3)))
        .model
    )
    assert trained.head_names == ["projector"]
    before, after = probe(fresh(), photos), probe(trained, photos)
    margin("gain over the untrained", after - before, 0.03)
    margin("accuracy", after, 0.68)


@pytest.mark.slow
def test_without_the_price_of_redundancy_dimensions_copy_each_other(photos, margin: Margin):
    data, ranks = photos.without("class"), {}
    for weight in (0.0, 0.0051):
        recipe = Recipe.parse(f"barlow-twins(batch=64, weight={weight})")
        trained = recipe.run(data, fresh(), RunContext(task=None, budget=Budget(passes=6e3))).model
        embeddings = trained.predict(photos["image"], names=["projector"])["projector"]
        ranks[weight] = effective_rank(singular_values(embeddings))
    margin("effective rank, without over with", ranks[0.0] / ranks[0.0051], 0.6, below=True)


def test_the_step_is_the_papers_loss_of_two_different_policies_each_in_its_own_forward(photos):
    learner = prepared(photos)
    batch = learner.draw(32, 0)
    rng = learner.generator()
    first, second = learner.policies
    assert (first.blur, first.solarize) == (1.0, 0.0)
    assert (second.blur, second.solarize) == (0.1, 0.2)
    views = [view(batch["views"]["image"], generator=rng) for view in (first, second)]
    z = [learner.model.head("projector")(learner.model.encoder(view)) for view in views]
    torch.testing.assert_close(learner.step(batch), barlow_twins(*z, weight=0.0051))


def test_both_views_carry_gradients(photos):
    learner = prepared(photos)
    seen = []
    learner.model.head("projector").register_forward_hook(lambda *call: seen.append(call[2]))
    loss = learner.step(learner.draw(32, 0))
    assert len(seen) == 2
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, seen))


@pytest.mark.parametrize(("given", "widths"), [(None, [256, 256, 256]), ([96, 40], [96, 40])])
def test_the_projector_is_four_times_as_wide_as_the_encoder_unless_told(photos, given, widths):
    head = prepared(photos, projector=given).model.head("projector")
    assert head.config == {
        "widths": [64, *widths],
        "norm": True,
        "last_norm": False,
        "bias": False,
        "activation": "relu",
    }


def test_wide_encoders_get_the_papers_projector():
    assert projector_widths(2048) == projector_widths(4096) == [8192, 8192, 8192]


def test_no_default_view_of_a_small_image_looks_at_less_than_sixteen_pixels_square():
    assert crop_scale(224, 224) == crop_scale(64, 64) == (0.08, 1.0)
    assert crop_scale(32, 32) == (0.25, 1.0)
    assert crop_scale(12, 12) == (1.0, 1.0)


def test_lars_has_the_papers_two_rates(photos):
    learner = prepared(photos, optimiser="lars", batch=128)
    group, plain = learner.make_optimiser().param_groups
    assert group["lr"] == pytest.approx(0.2 * learner.plan.batch / 256)
    assert plain["lr"] == pytest.approx(0.0048 * learner.plan.batch / 256)
    assert (group["weight_decay"], plain["weight_decay"]) == (1e-6, 0.0)
    assert plain["plain"]
    assert not group.get("plain")


def test_a_small_budget_buys_smaller_batches_down_to_its_limit(photos):
    assert prepared(photos).plan.batch == 64
    assert prepared(photos, batch=32).plan.batch == 32
