from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rushlight.core.catalogue import load_method
from rushlight.data.columns import TRAIN
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import Diverged, RunContext
from rushlight.train.loop import Training, checkpoint_path, train
from rushlight.train.watch import Watch

BUDGET = Budget(passes=400)


class Killed(Exception):
    pass


@pytest.fixture
def begin(photos: Dataset) -> Callable[..., tuple[Any, Dataset, Model]]:
    def made(**settings: Any) -> tuple[Any, Dataset, Model]:
        learner = load_method("supervised")(**settings)
        learner.smallest_batch, learner.enough_steps = 4, 8
        return learner, photos.fold(TRAIN), Model(encoders.create("conv16", image_size=photos.height, seed=0))

    return made


def same(one: Model, other: Model) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_session_is_advanced_in_any_portions(begin: Any) -> None:
    whole = train(*begin(batch=8), RunContext(budget=BUDGET))
    session = Training(*begin(batch=8), RunContext(budget=BUDGET))
    session.advance(3)
    assert (session.steps, session.done) == (3, False)
    session.advance(10**6)
    assert session.done
    assert session.spent.passes == whole.spent.passes <= BUDGET.passes
    assert same(session.finish(), whole.model)


def test_a_written_batch_is_kept_and_a_default_one_follows_the_budget(begin: Any) -> None:
    written, default = (Training(*begin(**arguments), RunContext(budget=BUDGET)) for arguments in ({"batch": 64}, {}))
    assert written.plan.batch == 64
    assert default.plan.batch < 64


def test_out_of_memory_then_killed_then_resumed_gives_the_same_bits(begin: Any, tmp_path: Path) -> None:
    """The plan that memory allowed is in the checkpoint: a resumed run does not start with the larger batch again."""

    def crowded(after: int | None) -> tuple[Any, Dataset, Model]:
        learner, data, model = begin(batch=16)
        step, steps = learner.step, [0]

        def guarded(batch: Any) -> torch.Tensor:
            if len(batch["labelled"]) > 8:
                raise RuntimeError("DefaultCPUAllocator: not enough memory")
            steps[0] += 1
            if after is not None and steps[0] > after:
                raise Killed
            return step(batch)

        learner.step = guarded
        return learner, data, model

    with pytest.warns(UserWarning, match="trained with 8"):
        whole = train(*crowded(None), RunContext(budget=BUDGET))
    ctx = RunContext(budget=BUDGET, folder=tmp_path, checkpoint_seconds=0)
    with pytest.warns(UserWarning, match="trained with 8"), pytest.raises(Killed):
        train(*crowded(6), ctx)
    assert checkpoint_path(ctx).exists()
    resumed = Training(*crowded(None), ctx)
    assert 0 < resumed.steps < resumed.plan.steps
    assert resumed.plan.rate == pytest.approx(0.5**0.5)  # AdamW: the root of the batch's share
    resumed.advance(10**6)
    assert same(resumed.finish(), whole.model)
    assert len(whole.notes) == 1
    assert "out of memory with a batch of 16" in whole.notes[0]
    assert resumed.outcome(crowded(None)[1]).notes == whole.notes


@pytest.mark.parametrize("ruined", [4, 9, 12])
def test_a_loss_that_is_looked_at_late_is_found_before_the_end_and_its_step_is_named(
    begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ruined: int
) -> None:
    """As on a GPU: a look in 5 steps, from the state of which the bad step is reached again."""
    monkeypatch.setattr("rushlight.train.loop.Watch", partial(Watch, every=5))
    training = Training(*spoiled(begin, ruined), RunContext(budget=Budget(passes=120), folder=tmp_path))
    assert ruined < training.plan.steps <= 14
    with pytest.raises(Diverged, match=f"step {ruined} ") as raised:
        training.advance(10**6)
    assert training.steps - ruined <= 5
    assert raised.value.checkpoint is not None
    state = torch.load(raised.value.checkpoint, weights_only=True)
    assert ruined - 5 <= state["steps"] <= ruined
    assert all(bool(value.isfinite().all()) for value in state["learner"].values())
    again = Training(*spoiled(begin, ruined), RunContext(budget=BUDGET))
    again.go_to(state, ruined)
    assert again.steps == ruined
    with pytest.raises(Diverged):
        again.advance(5)


def test_what_was_not_looked_at_is_not_handed_out(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rushlight.train.loop.Watch", partial(Watch, every=50))
    training = Training(*spoiled(begin, 2), RunContext(budget=BUDGET))
    training.advance(4)
    with pytest.raises(Diverged, match="step 2 "):
        training.finish()


def spoiled(begin: Any, ruined: int) -> tuple[Any, Dataset, Model]:
    """A training in which the loss, and so all that follows, is NaN from one step on."""
    learner, data, model = begin(batch=8)
    step = learner.step
    learner.step = lambda batch: step(batch) * (float("nan") if learner.step_index == ruined else 1.0)
    return learner, data, model


def test_what_a_method_prepares_takes_time_of_the_budget(begin: Any) -> None:
    learner, data, model = begin(batch=8)
    prepare = learner.prepare

    def slow(*arguments: Any) -> None:
        time.sleep(0.4)
        prepare(*arguments)

    learner.prepare = slow
    training = Training(learner, data, model, RunContext(budget=Budget(minutes=0.2 / 60)))
    assert training.spent.seconds >= 0.4
    training.advance(10)
    assert training.steps == 1  # one step is made of any budget


def test_a_curve_survives_a_kill(begin: Any, tmp_path: Path) -> None:
    ctx = RunContext(budget=BUDGET, on_snapshot=lambda model, spent: spent.passes, snapshots=5)
    whole = train(*begin(batch=8), ctx)
    kept = replace(ctx, folder=tmp_path, checkpoint_seconds=0)
    cut = Training(*begin(batch=8), kept)
    cut.advance(cut.plan.steps // 2)
    resumed = train(*begin(batch=8), kept)
    assert len(whole.curve) == 4
    assert resumed.curve == whole.curve


def test_minutes_have_a_learning_curve(begin: Any) -> None:
    ctx = RunContext(budget=Budget(minutes=1 / 60), on_snapshot=lambda model, spent: 0.0, snapshots=4)
    outcome = train(*begin(batch=8), ctx)
    passes = [passes for passes, _ in outcome.curve]
    assert len(passes) == 3
    assert passes == sorted(passes)


def test_a_head_that_fits_is_handed_on(begin: Any) -> None:
    learner, data, model = begin(batch=8)
    first = train(learner, data, model, RunContext(budget=BUDGET)).model
    again, fresh = begin(batch=8)[0], begin(batch=8)[0]
    fresh.fresh_heads = True
    for each in (again, fresh):
        each.prepare(data, first, RunContext())
    weight = first.head("class").state_dict()["linear.weight"]
    assert torch.equal(again.model.head("class").state_dict()["linear.weight"], weight)
    assert not torch.equal(fresh.model.head("class").state_dict()["linear.weight"], weight)
