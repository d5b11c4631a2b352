"""Replaying the step of a trial whose loss was not finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from rushlight.data.dataset import Dataset
from rushlight.engine import trial
from rushlight.engine.budget import Budget
from rushlight.engine.learner import Learner
from rushlight.engine.recipe import Recipe
from rushlight.engine.stage import Setting
from rushlight.engine.store import Store, finished_stage
from rushlight.errors import UserError


def replay(file: Path) -> str:
    """Restore the state that the failed trial kept, run that one step again with anomaly detection, and say what
    was found.

    Raises:
        UserError: the file is none that a failed trial left.
    """
    try:
        kept = json.loads(file.read_text())
        spec, step = trial.Trial(**kept["trial"]), int(kept["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no replay.json of a failed trial ({type(error).__name__})") from error
    store = Store(file.parents[2])
    data = Dataset.open(store.folder / "data" / spec.data[:24])
    learner = _restored(spec, data, store, kept)
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        return _once(learner, step)


def _restored(spec: trial.Trial, data: Dataset, store: Store, kept: dict[str, Any]) -> Learner:
    """The learner of the failed stage as it was before the step."""
    recipe, setting = Recipe.parse(spec.recipe), Setting(seed=spec.seed, task=spec.task)
    train, model = trial.prepare(spec, data), trial.initial(spec, data)
    number = 0
    while (done := finished_stage(store.work(spec.key) / f"stage-{number}", train)) is not None:
        train, model, _ = done
        number += 1
    learner = recipe.steps[number].stage()
    assert isinstance(learner, Learner)
    learner.prepare(train, model, Setting(seed=spec.seed * 64 + number, task=setting.task))
    learner.plan = learner.plan_for(Budget.parse(spec.budget).share(recipe.shares()[number]))
    state = torch.load(kept["state"], weights_only=True, map_location="cpu")
    learner.load_state_dict(state["state_dict"])
    return learner


def _once(learner: Learner, step: int) -> str:
    learner.at = step
    batch = learner.draw(learner.plan.batch, step)
    rows = {part: columns["row"].tolist()[:8] for part, columns in batch.items()}
    try:
        loss = learner.step(batch)
        loss.backward()
    except RuntimeError as error:
        return f"step {step} (first rows {rows}): {error}"
    weights = sum(not bool(p.isfinite().all()) for p in learner.parameters())
    return f"step {step} (first rows {rows}): loss {float(loss.detach()):.4g}; {weights} weights are not finite"
