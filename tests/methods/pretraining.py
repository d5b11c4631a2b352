"""What the tests of pretraining methods share: photos, a prepared learner, and how much its features gain."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion
from rushlight.measure import linear
from rushlight.measure.features import pooled
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext
from rushlight.train.learner import Learner
from rushlight.train.teacher import Teacher


@cache
def photos(n: int = 1500) -> Dataset:
    return fashion.load().select(torch.arange(n))


def fresh(encoder: str = "conv16", seed: int = 0) -> Model:
    return Model(encoders.create(encoder, image_size=28, seed=seed))


def prepared(kind: type[Learner], encoder: str = "conv16", budget: float = 2e3, **settings: Any) -> Any:
    """A learner that is ready for its first step on photos without labels."""
    learner = kind(**settings)
    data = photos().without("class")
    learner.prepare(data, fresh(encoder), RunContext(seed=3, task=None))
    learner.plan = learner.plan_for(Budget(passes=budget))
    return learner


@torch.no_grad()
def disturb(network: torch.nn.Module) -> None:
    """A teacher that differs from its student, as it does after some steps."""
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def follows(learner: Learner, teacher: Teacher, share: float) -> None:
    """Assert that after a step the teacher has gone this share of the way to its student."""
    pairs = list(zip(teacher.network.parameters(), learner.model.parameters(), strict=True))
    before = [mine.clone() for mine, _ in pairs]
    for mine, theirs in pairs:
        theirs.copy_(mine + 1)
    learner.after_step()
    for (mine, _), old in zip(pairs, before, strict=True):
        torch.testing.assert_close(mine - old, torch.full_like(old, share), atol=1e-5, rtol=0)


def trained(recipe: str, encoder: str = "conv16", passes: float = 8e3) -> Model:
    data = photos().without("class")
    return Recipe.parse(recipe).run(data, fresh(encoder), RunContext(task=None, budget=Budget(passes=passes))).model


def probed(model: Model) -> float:
    """Accuracy of a linear probe with 500 labels on the other photos."""
    data = photos()
    features, labels = pooled(model, data["image"]), data["class"]
    return linear.accuracy(features[:500], labels[:500], features[500:], labels[500:], c=0.1)
