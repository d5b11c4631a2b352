"""FixMatch: 100 labels and 12,000 unlabelled photos, against the labels alone at the same budget."""

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


def accuracy(recipe: str, seed: int, labels: int = 10, passes: float = 100e3) -> float:
    """Return the test accuracy in percent of a recipe with so many labels per class."""
    data = fashion.load()
    train = hide.per_class(data.fold(TRAIN), labels, seed=seed)
    model = Model(encoders.create("conv16", image_size=28, seed=seed), {}, ModelInfo.of(data.info, (28, 28), "class"))
    ctx = RunContext(seed=seed, precision=hardware.precision("cpu"))
    trained = Recipe.parse(recipe).run(train, model, replace(ctx, budget=Budget(passes=passes))).model
    return 100 * evaluate(trained, data.fold(TEST), "class").value


def run(seed: int) -> dict[str, float]:
    arms = {recipe: accuracy(recipe, seed) for recipe in ("supervised", "fixmatch")}
    return {"gain": arms["fixmatch"] - arms["supervised"], **arms}


CLAIM = Claim(
    id="fixmatch",
    headline="CIFAR-10: 94.93 % with 250 labels (the labels alone: about 40 to 60 %)",
    data="12,000 embedded Fashion-MNIST photos, 10 labels a class drawn by the seed; 2,000 test photos",
    baseline="the same encoder on the labels alone (crop and flip), with the same 100,000 image passes and optimiser",
    metric="test accuracy",
    effects=(Effect("gain", "unlabelled photos raise accuracy over the labels alone"),),
    seeds=5,
    run=run,
)
