"""Supervised: what labels are worth, and that the baseline uses its budget."""

from __future__ import annotations

from dataclasses import replace

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext


def accuracy(seed: int, labels: int, passes: float) -> float:
    """Return the test accuracy in percent with so many labels per class."""
    data = fashion.load()
    train = hide.per_class(data.fold(TRAIN), labels, seed=seed)
    model = Model(encoders.create("conv16", image_size=28, seed=seed), {}, ModelInfo.of(data.info, (28, 28), "class"))
    ctx = RunContext(seed=seed, precision=hardware.precision("cpu"))
    trained = Recipe.parse("supervised").run(train, model, replace(ctx, budget=Budget(passes=passes))).model
    return 100 * evaluate(trained, data.fold(TEST), "class").value


def run(seed: int) -> dict[str, float]:
    few, many, early = accuracy(seed, 10, 40e3), accuracy(seed, 100, 40e3), accuracy(seed, 10, 4e3)
    return {"labels": many - few, "budget": few - early, "few": few, "many": many, "early": early}


CLAIM = Claim(
    id="supervised",
    headline="more labels help: the learning curve that methods for few labels promise to shift",
    data="12,000 embedded Fashion-MNIST photos, 10 or 100 labels a class drawn by the seed; 2,000 test photos",
    baseline="the same training with 10 labels a class; and with a tenth of the budget",
    metric="test accuracy",
    effects=(
        Effect("labels", "100 labels a class beat 10 at 40,000 image passes"),
        Effect("budget", "with 10 labels a class, 40,000 image passes beat 4,000"),
    ),
    seeds=5,
    run=run,
)
