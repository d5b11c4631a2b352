"""Replaying the step of a trial whose loss was not finite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.run import trial
from rushlight.run.store import Store
from rushlight.train.learner import Learner
from rushlight.train.loop import Training


def replay(file: Path) -> str:
    """Restore the state that the failed trial kept, run that step again with anomaly detection, and return what was
    found.

    Raises:
        UserError: the file is none that a failed trial left.
    """
    if not file.exists():
        raise UserError(f"{file} does not exist: name the replay.json that a failed trial wrote")
    try:
        kept = json.loads(file.read_text())
        spec, step = trial.Trial(**kept["trial"]), int(kept["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no replay.json that a failed trial wrote: name one that is") from error
    store = Store(file.parents[2])
    data = Dataset.open(store.folder / "data" / spec.data[:24])
    state = torch.load(kept["state"], weights_only=True, map_location="cpu")

    def look(training: Training) -> None:
        """Repeat the step in place of the training; the outcomes of earlier stages are found in the trial's folder."""
        learner = training.learner
        learner.load_state_dict(state["learner"])
        with torch.autograd.set_detect_anomaly(True, check_nan=True):
            raise _Seen(_once(learner, step))

    ctx = replace(spec.ctx, device="cpu", precision="32-true", folder=store.work(spec.key), on_start=look)
    try:
        trial.train(spec, data, ctx, store if (store.folder / "stages").exists() else None)
    except _Seen as seen:
        return str(seen)
    raise UserError(f"{file}: every stage of that trial has finished since; nothing is left to replay")


class _Seen(Exception):
    """What a replayed step did, in a sentence."""


def _once(learner: Learner, step: int) -> str:
    learner.step_index = step
    batch = learner.draw(learner.plan.batch, step)
    rows = {part: columns["row"].tolist()[:8] for part, columns in batch.items()}
    try:
        loss = learner.step(batch)
        loss.backward()
    except RuntimeError as error:
        return f"step {step} (first rows {rows}): {error}"
    weights = sum(not bool(p.isfinite().all()) for p in learner.parameters())
    return f"step {step} (first rows {rows}): loss {float(loss.detach()):.4g}; {weights} weights are not finite"
