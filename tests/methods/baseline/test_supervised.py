from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from rushlight.data.columns import TRAIN
from rushlight.data.dataset import Dataset
from rushlight.methods.baseline import supervised
from rushlight.methods.baseline.supervised import Supervised
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import Diverged, RunContext

BUDGET = Budget(passes=600)


def start(data: Dataset, origin: str = "") -> Model:
    return Model(encoders.create("conv16", image_size=data.height, seed=0)).with_info(origin=origin)


def small(**settings: Any) -> Supervised:
    learner = Supervised(**settings)
    learner.batch, learner.smallest_batch, learner.enough_steps = 8, 4, 8
    return learner


def scales(photos: Dataset, origin: str, **settings: Any) -> set[float]:
    learner = small(**settings)
    learner.prepare(photos.fold(TRAIN), start(photos, origin), RunContext())
    return {group.get("scale", 1.0) for group in learner.groups()}


def test_layers_of_an_encoder_that_comes_trained_learn_slower_towards_the_input(photos: Dataset) -> None:
    trained = scales(photos, "simclr")
    assert max(trained) == 1.0
    assert sorted(trained) == pytest.approx(sorted(0.75**depth for depth in range(len(trained))))
    assert scales(photos, "") == scales(photos, "simclr", layer_decay=1.0) == {1.0}


@pytest.mark.parametrize("best", [2e-3, 5e-4, 1e-4])
def test_the_rate_that_does_best_on_held_out_labels_is_taken(
    photos: Dataset, monkeypatch: pytest.MonkeyPatch, best: float
) -> None:
    """Whatever scores best is trained with in the end, within the budget, and no test label is looked at."""
    train, learner = photos.fold(TRAIN), small()
    order, seen = list(learner.rates), []

    def scored(model: Model, held: Dataset, task: str) -> SimpleNamespace:
        seen.append(set(held.names))
        return SimpleNamespace(value=float(order[len(seen) - 1] == best))

    monkeypatch.setattr(supervised, "evaluate", scored)
    outcome = learner.run(train, start(photos, "simclr"), RunContext(budget=BUDGET))
    assert learner.learning_rate == best
    assert len(seen) == 3
    assert set.union(*seen) <= set(train.names)
    assert 0.8 * 600 < outcome.spent.passes <= 600 + 1


def test_a_rate_that_diverges_is_dropped(photos: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be trained with, or scores nothing, is no choice; what was tried is charged all the same."""
    train, learner = photos.fold(TRAIN), small(rates=(1e30, 2e-3, 5e-4))
    values = iter([float("nan"), 0.1])
    monkeypatch.setattr(supervised, "evaluate", lambda *_: SimpleNamespace(value=next(values)))
    outcome = learner.run(train, start(photos, "simclr"), RunContext(budget=BUDGET))
    assert learner.learning_rate == 5e-4
    assert outcome.spent.passes > 0.7 * 600


def test_where_every_rate_diverges_that_is_said(photos: Dataset) -> None:
    with pytest.raises(Diverged, match="loss of step"):
        small(rates=(1e30, 1e29)).run(photos.fold(TRAIN), start(photos, "simclr"), RunContext(budget=BUDGET))


def test_scoring_the_rates_takes_time_of_the_budget(photos: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> SimpleNamespace:
        time.sleep(0.3)
        return SimpleNamespace(value=0.5)

    monkeypatch.setattr(supervised, "evaluate", slow)
    learner, ctx = small(rates=(2e-3,)), RunContext(budget=Budget(minutes=1 / 60))
    tried = ctx.substage("rate-0.002", share=0.2).budget.minutes
    _, paid = learner.best_rate(photos.fold(TRAIN), start(photos, "simclr"), ctx)
    assert paid.seconds >= 0.3 + 60 * tried


def test_a_written_rate_is_obeyed_and_a_fresh_encoder_needs_no_search(
    photos: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised.Supervised, "best_rate", lambda *_: pytest.fail("a rate was looked for"))
    train = photos.fold(TRAIN)
    small(learning_rate=1e-3).run(train, start(photos, "simclr"), RunContext(budget=BUDGET))
    small().run(train, start(photos), RunContext(budget=BUDGET))
