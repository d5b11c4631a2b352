"""VICReg: its three terms, and that it learns."""

from __future__ import annotations

import pytest
import torch
from margins import Margin
from pretraining import fresh, prepared, probed, trained

from rushlight.losses.redundancy import vicreg
from rushlight.methods.pretrain.vicreg import VICReg
from rushlight.run.stage import RunContext


@pytest.mark.slow
def test_it_learns_features_without_labels(margin: Margin) -> None:
    model = trained("vicreg(batch=64)", passes=14e3)
    assert model.head_names == ["projector"]
    before, after = probed(fresh()), probed(model)
    margin("gain over the untrained", after - before, 0.02)
    margin("accuracy", after, 0.65)


def test_the_step_is_the_loss_of_two_different_views() -> None:
    learner = prepared(VICReg, invariance=10.0, variance=20.0, covariance=2.0)
    batch = learner.draw(32, 0)
    first, second = learner.policies
    assert (first.blur, second.blur, second.solarize) == (1.0, 0.1, 0.2)
    z = [learner.model.head("projector")(learner.model.encoder(view)) for view in learner.views(batch)]
    expected = vicreg(*z, invariance=10.0, variance=20.0, covariance=2.0)
    torch.testing.assert_close(learner.step(batch), expected)


def test_the_expander_is_four_times_as_wide_as_the_encoder_unless_told() -> None:
    assert prepared(VICReg).model.head("projector").config["widths"] == [64, 256, 256, 256]
    assert prepared(VICReg, projector=[96, 40]).model.head("projector").config["widths"] == [64, 96, 40]


def test_larss_rate_grows_with_the_batch() -> None:
    learner = prepared(VICReg, optimiser="lars", batch=64)
    assert learner.ctx == RunContext(seed=3, task=None)
    assert [group["scale"] for group in learner.groups()] == [learner.plan.batch / 256] * 2
