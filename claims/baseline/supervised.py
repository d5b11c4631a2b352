"""Supervised: what labels are worth, and that the baseline uses its budget."""

from __future__ import annotations

from rushlight.bench.claims import Claim, Effect
from rushlight.data import fashion, hide
from rushlight.data.columns import TEST, TRAIN
from rushlight.engine import hardware, scores
from rushlight.engine.budget import Budget
from rushlight.engine.model import Facts, Model
from rushlight.engine.recipe import Recipe
from rushlight.engine.stage import Setting
from rushlight.nets import encoders


def accuracy(seed: int, labels: int, passes: float) -> float:
    """Test accuracy in percent with so many labels a class."""
    data = fashion.load()
    train = hide.per_class(data.fold(TRAIN), labels, seed=seed)
    model = Model(encoders.create("conv16", image_size=28, seed=seed), {}, Facts.of(data.info, (28, 28), "class"))
    setting = Setting(seed=seed, precision=hardware.precision("cpu"))
    trained, _ = Recipe.parse("supervised").run(train, model, Budget(passes=passes), setting)
    return 100 * scores.evaluate(trained, data.fold(TEST), "class").value


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
