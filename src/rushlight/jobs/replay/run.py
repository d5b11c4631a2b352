"""Replaying the step of a trial whose loss was not finite."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.run import trial
from rushlight.run.stage import Diverged
from rushlight.run.store import Store
from rushlight.train.loop import Training


def replay(file: Path) -> str:
    """Go from the state that the failed trial kept to the step whose loss was not finite, run that one again with
    anomaly detection, and say what was found.

    It runs on the CPU, by the plan and in the precision of the trial.

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
    store, place = Store(file.parents[2]), Path(kept["state"])
    data = Dataset.open(store.folder / "data" / spec.data[:24])
    state = torch.load(place, weights_only=True, map_location="cpu")
    precision = PRECISIONS.get(spec.precision, spec.precision)

    def look(training: Training) -> None:
        """Repeat the step in place of the training; the outcomes of earlier stages are found in the trial's folder."""
        if not _same(training.ctx.folder, place.parent):
            return _diverged_too(training)
        raise _Seen(_replayed(training, state, step) + f"; replayed on the CPU in {precision}{_other(spec, precision)}")

    ctx = replace(spec.ctx, device="cpu", precision=precision, folder=store.work(spec.key), on_start=look)
    ctx = replace(ctx, checkpoint_seconds=math.inf)
    try:
        trial.train(spec, data, ctx, store if (store.folder / "stages").exists() else None)
    except _Seen as seen:
        return str(seen)
    raise UserError(f"{file}: every stage of that trial has finished since; nothing is left to replay")


PRECISIONS = {"16-mixed": "bf16-mixed", "16-true": "bf16-true"}
"""What stands for precisions that a CPU does not have."""


class _Seen(Exception):
    """What a replayed step did, in a sentence."""


def _same(one: Path | None, other: Path) -> bool:
    return one is not None and one.resolve() == other.resolve()


def _diverged_too(training: Training) -> None:
    """Skip a training before the one that is looked for, which the stage could do without."""
    folder = training.ctx.folder
    for file in sorted(folder.glob("diverged-step-*.ckpt")) if folder is not None else ():
        raise Diverged(training.learner.name, int(file.stem.rsplit("-", 1)[1]), file)


def _other(spec: trial.Trial, precision: str) -> str:
    """Return what was otherwise in the trial."""
    was = [spec.device] if spec.device != "cpu" else []
    was += [spec.precision] if spec.precision != precision else []
    return f" (the trial: {', '.join(was)})" if was else ""


def _replayed(training: Training, state: dict[str, Any], step: int) -> str:
    """Say what one step does."""
    try:
        training.go_to(state, step)
    except Diverged as error:  # another device rounds otherwise: what comes earlier there is the answer
        step = error.step
        training.at(step)
    learner = training.learner
    batch = learner.draw(learner.plan.batch, step)
    rows = {part: columns["row"].tolist()[:8] for part, columns in batch.items()}
    said = f"step {step} (first rows {rows})"
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        loss = training.module(step)
        try:
            training.fabric.backward(loss)
        except RuntimeError as error:
            return f"{said}: loss {float(loss.detach()):.4g}; {error}"
    weights = sum(not bool(p.isfinite().all()) for p in learner.parameters())
    return f"{said}: loss {float(loss.detach()):.4g}; {weights} weights are not finite"
