"""One trial: a pure function from a spec to a result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rushlight import tasks
from rushlight._version import VERSION
from rushlight.core.errors import UserError
from rushlight.core.files import file_hash, write_whole
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders
from rushlight.run.budget import Budget, Spent
from rushlight.run.evaluate import Scores, evaluate, inference_flops
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Diverged, Outcome, Progress, RunContext
from rushlight.run.store import Store

SNAPSHOTS = 5
"""Points of a stage's learning curve, its end among them."""


@dataclass(frozen=True)
class Trial:
    """Everything that a trial's result depends on.

    Attributes:
        recipe, seed, budget: what is run.
        data: the data set's content hash.
        task: the id of what is predicted; `none` where nothing is.
        keep: known labels a class, drawn by the seed; None keeps all that are known.
        encoder: its name; weights: a safetensors file to start from, with pretrained: fetch timm's.
        device, precision: where and how.
        version: of this library.
    """

    recipe: str
    seed: int
    budget: str
    data: str
    task: str
    keep: int | None = None
    encoder: str = "conv16"
    weights: str | None = None
    pretrained: bool = False
    device: str = "cpu"
    precision: str = "32-true"
    version: str = field(default_factory=lambda: VERSION)

    @property
    def key(self) -> str:
        """Return a hash of the whole spec: equal specs have equal results, and no other spec has this key."""
        spec = {**dataclasses.asdict(self), "weights": file_hash(self.weights)}  # the file's content, not its place
        text = json.dumps(spec, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def ctx(self) -> RunContext:
        """Return the part of the spec that the stages see."""
        task = None if self.task == "none" else self.task
        budget = Budget.parse(self.budget)
        return RunContext(seed=self.seed, task=task, budget=budget, device=self.device, precision=self.precision)

    def stage_key(self, prefix: str, budgets: Sequence[Budget | float]) -> str:
        """Return a hash of all that the outcome of a recipe's first stages depends on.

        Args:
            budgets: of each of them.
        """
        parts = ", ".join(map(str, budgets))
        spec = {**dataclasses.asdict(self), "weights": file_hash(self.weights), "recipe": prefix, "budget": parts}
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True, eq=False)  # told apart by identity: what is computed from one can be kept beside it
class Result:
    """What a trial gave.

    Attributes:
        trial: the spec.
        value: the metric on the test fold, 0 … 1; NaN if the trial failed.
        parts: the value's parts, one row a test image (see `Task.parts`).
        curve: (image passes, value) at a few moments.
        spent: passes, FLOPs, steps and seconds, of all stages, as if none had been shared with another recipe.
        failed: why it failed, in a sentence; empty if it did not.
        inference_flops: of one image's answer by the final model, encoder and heads; NaN where it was not counted.
        beside: the task's further scores for comparisons (see `Task.compared`), by name.
        notes: what its stages say of their training, such as that memory ran out and the batch was halved.
    """

    trial: Trial
    value: float
    parts: dict[str, Tensor]
    curve: list[tuple[float, float]]
    spent: Spent
    failed: str = ""
    inference_flops: float = float("nan")
    beside: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def run(
    trial: Trial,
    data: Dataset,
    store: Store,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    snapshots: int = SNAPSHOTS,
    checkpoint_seconds: float = 30.0,
) -> Result:
    """Run a trial, or load its result where it has been run; go on where a killed one stopped.

    The stages get the training fold alone; the test fold's labels are read here, after them and beside them.
    """
    if store.has(trial.key):
        return load(trial.key, store)
    ctx = dataclasses.replace(
        trial.ctx,
        folder=store.work(trial.key),
        checkpoint_seconds=checkpoint_seconds,
        on_progress=on_progress,
        on_snapshot=snapshots_of(trial, data),
        snapshots=snapshots,
    )
    try:
        outcome = train(trial, data, ctx, store)
    except Diverged as error:
        return diverged(trial, error, store)
    test, task = data.fold(TEST), tasks.find(trial.task)
    scored = _score(outcome.model, test, trial)
    result = Result(
        trial,
        scored.value,
        scored.parts,
        curve=[*outcome.curve, (outcome.spent.passes, scored.value)],
        spent=outcome.spent,
        inference_flops=inference_flops(outcome.model, test, task),
        beside={metric.name: task.value(scored.parts, metric) for metric in task.compared(scored.parts)},
        notes=outcome.notes,
    )
    keep(result, store, outcome.model)
    return result


def train(
    trial: Trial, data: Dataset, ctx: RunContext, store: Store | None = None, *, stop: int | None = None
) -> Outcome:
    """Run a trial's recipe on the training fold; stages that another recipe of the store began with are found there.

    Args:
        stop: how many stages are run; None runs all.
    """
    shelf = (lambda prefix, budgets: store.stage(trial.stage_key(prefix, budgets))) if store is not None else None
    return Recipe.parse(trial.recipe).run(prepare(trial, data), initial(trial, data), ctx, shelf=shelf, stop=stop)


def snapshots_of(trial: Trial, data: Dataset) -> Callable[[Model, Spent], float | None]:
    """Return a function that scores the snapshots of a trial's trainings on the test fold."""
    test = data.fold(TEST)
    return lambda model, spent: evaluate(model, test, trial.task).value if trial.task in model.head_names else None


def common_starts(trials: Sequence[Trial]) -> list[tuple[Trial, int]]:
    """Return the first stages that several of the trials have in common: one of these trials, and how many stages."""
    begun: dict[str, list[tuple[Trial, int]]] = {}
    for trial in (each for each in trials if ">" in each.recipe):
        recipe = Recipe.parse(trial.recipe)
        for number in range(len(recipe.steps) - 1):
            key = trial.stage_key(recipe.prefix(number), [trial.ctx.budget, *recipe.shares()[: number + 1]])
            begun.setdefault(key, []).append((trial, number + 1))
    shared = [starts for starts in begun.values() if len(starts) > 1]
    longest: dict[Trial, int] = {}
    for starts in shared:
        longest[starts[0][0]] = max(longest.get(starts[0][0], 0), starts[0][1])
    return list(longest.items())


def run_start(
    trial: Trial,
    data: Dataset,
    store: Store,
    *,
    stages: int,
    on_progress: Callable[[Progress], None] | None = None,
    snapshots: int = SNAPSHOTS,
) -> None:
    """Run a trial's first stages, whose outcomes stay in the store for every recipe that begins with them."""
    tell: dict[str, Any] = {
        "on_progress": on_progress,
        "on_snapshot": snapshots_of(trial, data),
        "snapshots": snapshots,
    }
    train(trial, data, dataclasses.replace(trial.ctx, **tell), store, stop=stages)


def _score(model: Model, test: Dataset, trial: Trial) -> Scores:
    if trial.task not in model.head_names:
        raise UserError(headless(trial.recipe, trial.task))
    return evaluate(model, test, trial.task)


def headless(recipe: str, task: str) -> str:
    """Return the sentence on a recipe that learns no head for the task."""
    return (
        f"the recipe '{recipe}' ends without a head for '{task}': end it with a learner of labels, "
        f"for instance '{recipe} > supervised'"
    )


def prepare(trial: Trial, data: Dataset) -> Dataset:
    """Return the data for the stages: the training fold, `keep` labels per class of the task, drawn by the seed."""
    train = data.fold(TRAIN)
    return train if trial.keep is None else tasks.find(trial.task).keep(train, trial.keep, seed=trial.seed)


def initial(trial: Trial, data: Dataset) -> Model:
    """Return the model that every recipe of this seed starts from."""
    encoder = encoders.create(
        trial.encoder,
        image_size=max(data.height, data.width),
        seed=trial.seed,
        pretrained=trial.pretrained,
        weights=trial.weights,
    )
    info = ModelInfo.of(data.info, (data.height, data.width), trial.task)
    origin = "weights" if trial.weights or trial.pretrained else ""
    return Model(encoder, {}, dataclasses.replace(info, origin=origin))


def keep(result: Result, store: Store, model: Model | None) -> None:
    """Write a result (and its model) into the store."""
    exact = dataclasses.asdict(dataclasses.replace(result.spent, seconds=0.0))
    record = {
        "trial": dataclasses.asdict(result.trial),
        "value": result.value,
        "curve": result.curve,
        "spent": exact,
        "failed": result.failed,
        "inference_flops": result.inference_flops,
        "beside": result.beside,
        "notes": result.notes,
    }
    measured = {"seconds": result.spent.seconds, "finished": time.strftime("%Y-%m-%d %H:%M:%S"), **machine()}
    store.put(result.trial.key, record, result.parts, measured, model)


def load(key: str, store: Store) -> Result:
    """Return a finished trial's result."""
    record, parts, measured = store.get(key)
    spent = Spent(**{**record["spent"], "seconds": measured["seconds"]})
    curve = [(passes, value) for passes, value in record["curve"]]
    further = {name: record[name] for name in ("inference_flops", "beside") if name in record}
    further["notes"] = tuple(record.get("notes", ()))
    return Result(Trial(**record["trial"]), record["value"], parts, curve, spent, record["failed"], **further)


def machine() -> dict[str, Any]:
    """Return what a run was measured on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def diverged(trial: Trial, error: Diverged, store: Store) -> Result:
    """Record a loss that was not finite: keep the state before the step, and give a command that replays the step."""
    spec = store.work(trial.key) / "replay.json"
    kept = {
        "trial": dataclasses.asdict(trial),
        "stage": error.stage,
        "step": error.step,
        "state": str(error.checkpoint),
    }
    write_whole(spec, json.dumps(kept, indent=1).encode())
    reason = f"{error}; replay that step with: rushlight replay {spec}"
    return Result(trial, float("nan"), {}, [], Spent(), reason)
