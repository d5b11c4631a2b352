from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from margins import Margin

from rushlight.core.catalogue import load_method
from rushlight.core.errors import UserError
from rushlight.core.seeds import mix
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Diverged, Progress, RunContext
from rushlight.train.learner import Learner
from rushlight.train.plan import permuted


def start(data: Dataset) -> Model:
    encoder = encoders.create("conv16", image_size=data.height, seed=0)
    return Model(encoder, {}, ModelInfo.of(data.info, (data.height, data.width), "class"))


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**31))
def test_every_row_comes_once_an_epoch(rows: int, batch: int, seed: int) -> None:
    """Whatever the batch, the stream of drawn rows is a row of permutations."""
    steps = 3 * rows // batch + 1
    stream = torch.cat([permuted(rows, batch, step, seed) for step in range(steps)])
    for epoch in range(len(stream) // rows):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows].tolist()) == list(range(rows))


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_seeds_that_differ_in_a_word_differ(words: list[int]) -> None:
    other = [*words[:-1], words[-1] + 1]
    assert mix(*words) == mix(*words)
    assert mix(*words) != mix(*other)
    assert 0 <= mix(*words) < 2**63


def test_it_learns(photos: Dataset, margin: Margin) -> None:
    """6,000 passes on 100 labels: far above chance (10 %) and above its untrained self."""
    train, test = photos.fold(0), photos.fold(1)

    def accuracy(model: Model) -> float:
        return float((model.predict(test["image"])["class"].argmax(1) == test["class"]).float().mean())

    stage = load_method("supervised")()
    ctx = RunContext(precision=hardware.precision("cpu"))
    outcome = stage.run(train, start(train), replace(ctx, budget=Budget(passes=6000)))
    model = outcome.model
    untrained = load_method("supervised")()
    untrained.prepare(train, start(train), ctx)
    margin("accuracy", accuracy(model), 0.5)
    margin("gain over the untrained", accuracy(model) - accuracy(untrained.finish()), 0.3)


def test_a_budget_in_minutes_ends_in_time(photos: Dataset) -> None:
    train = photos.fold(0)
    stage = load_method("supervised")()
    outcome = stage.run(train, start(train), RunContext(budget=Budget(minutes=1 / 60)))
    assert 0.9 < outcome.spent.seconds < 30  # a busy machine may take long over one step
    assert outcome.spent.steps > 3


def test_the_batch_shrinks_until_the_budget_buys_enough_steps(photos: Dataset) -> None:
    train = photos.fold(0)
    stage = load_method("supervised")()
    stage.prepare(train, start(train), RunContext())
    plans = [stage.plan_for(Budget(passes=passes)) for passes in (1e6, 40_000, 100)]
    assert [plan.batch for plan in plans] == [stage.batch, 32, stage.smallest_batch]
    assert plans[1].steps >= stage.enough_steps


def test_progress_is_told(photos: Dataset) -> None:
    train, told = photos.fold(0), []
    stage = load_method("fixmatch")()
    stage.run(train, start(train), RunContext(on_progress=told.append, budget=Budget(passes=4000)))
    assert told
    assert all(isinstance(progress, Progress) and 0 < progress.done <= 1 for progress in told)
    assert {"loss", "kept"} <= told[0].logged.keys()


def test_a_loss_that_is_not_finite_keeps_the_state_before_it(photos: Dataset, tmp_path: Path) -> None:
    train = photos.fold(0)
    stage = load_method("supervised")()
    assert isinstance(stage, Learner)
    step = stage.step
    stage.step = lambda batch: step(batch) * (float("nan") if stage.step_index == 3 else 1.0)  # type: ignore[method-assign]
    with pytest.raises(Diverged, match="step 3 is not finite") as raised:
        stage.run(train, start(train), RunContext(folder=tmp_path, budget=Budget(passes=400)))
    state = torch.load(raised.value.checkpoint, weights_only=True)["learner"]
    assert all(bool(values.isfinite().all()) for values in state.values())


def test_what_does_not_fit_is_said(photos: Dataset) -> None:
    labelled = photos.select(photos.known("class"))
    with pytest.raises(UserError, match="'fixmatch' does not fit this data: it needs images whose 'class' is unknown"):
        load_method("fixmatch")().run(labelled, start(labelled), RunContext(budget=Budget(passes=100)))


def test_draws_are_fair_over_unlabelled_rows(photos: Dataset) -> None:
    train = photos.fold(0)
    stage = load_method("fixmatch")()
    stage.prepare(train, start(train), RunContext())
    seen: Counter[int] = Counter()
    for step in range(20):
        seen.update(stage.draw(16, step)["unlabelled"]["row"].tolist())
    assert max(seen.values()) - min(seen.values()) <= 1
    assert all(bool(train.known("class")[row]) for row in stage.draw(16, 0)["labelled"]["row"])
