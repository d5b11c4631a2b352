"""Train one recipe on all the labels that are known, and hand out the model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rushlight import tasks
from rushlight._version import VERSION
from rushlight.core.catalogue import cards
from rushlight.core.errors import UserError
from rushlight.data.columns import TRAIN
from rushlight.data.dataset import Dataset
from rushlight.jobs.source import no_label
from rushlight.run import choose, hardware, trial
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Diverged, Progress
from rushlight.run.store import Store
from rushlight.run.trial import Trial


def fit(
    data: Dataset,
    recipe: str | Recipe,
    *,
    budget: str | float | Budget = "200k",
    seed: int = 0,
    out: Path | None = None,
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    task: str | None = None,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> Model:
    """Return the model that the recipe makes of the training fold, and write it into `out`.

    A training that was killed goes on when it is started again: its checkpoints lie beside `out`.

    Raises:
        UserError: the recipe cannot be read or does not fit the data, or a loss was not finite.
    """
    data, recipe = data.fold(TRAIN), Recipe.parse(recipe)
    task = tasks.chosen(data, task)
    learner = next((step.name for step in recipe.steps if cards()[step.name].task), None)
    if task is None and learner is not None:
        raise UserError(f"{no_label(data)}; '{learner}' learns from labels, and pretraining alone needs none")
    recipe.check(data, task)
    device = hardware.device(device)
    if encoder == "auto":
        choice = choose.encoder(max(data.height, data.width), device, recipes=[recipe])
        encoder, weights = choice.name, weights or choice.weights
    spec = Trial(
        recipe=str(recipe),
        seed=seed,
        budget=str(Budget.parse(budget)),
        data=data.content_hash,
        task=task or "none",
        encoder=encoder,
        weights=weights,
        pretrained=pretrained,
        device=device,
        precision=hardware.precision(device, encoder),
    )
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(_work_folder(out, spec) if out is not None else Path(scratch))
        model = _trained(spec, data, store, on_progress, kept=out is not None).with_info(version=VERSION)
        if out is not None:
            _hand_out(model, out, store)
    return model


def _trained(
    spec: Trial, data: Dataset, store: Store, on_progress: Callable[[Progress], None] | None, *, kept: bool
) -> Model:
    ctx = replace(spec.ctx, folder=store.work(spec.key), on_progress=on_progress)
    try:
        return trial.train(spec, data, ctx).model
    except Diverged as error:
        if not kept:
            raise UserError(f"{error}: lower the learning rate; with --out the step can be replayed") from error
        folder = store.folder / "data" / spec.data[:24]
        if not folder.exists():
            data.save(folder)
        raise UserError(trial.diverged(spec, error, store).failed) from error


def _work_folder(out: Path, spec: Trial) -> Path:
    """Return the folder of a training's checkpoints: beside its model, named by all that its result depends on."""
    return out.parent / f".{out.name}.{spec.key[:12]}.work"


def _hand_out(model: Model, out: Path, store: Store) -> None:
    try:
        model.save(out)
    except OSError as error:
        raise UserError(f"{out} could not be written ({error.strerror}): make room, or name another --out") from error
    shutil.rmtree(store.folder, ignore_errors=True)
