"""Predict images with a model: batch by batch, on its device, as the model's task writes them down."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.sources.read import Cache, load
from rushlight.run import hardware
from rushlight.run.model import Model
from rushlight.tasks.base import Outputs, Task, some

if TYPE_CHECKING:
    import pandas as pd

Folder = str | os.PathLike[str] | None
ModelLike = Model | str | os.PathLike[str]
"""A model, or the folder of one."""


def predict(
    model: ModelLike,
    images: Any,
    *,
    depth: Folder = None,
    device: str = "auto",
    batch: int | None = None,
    cache: Cache = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return predictions as a table: one row per image, and the columns of the model's task.

    Args:
        model: a `Model` or the folder of one.
        images: a `Dataset`, or anything that `load` takes; they are brought to the size that the model knows.
        depth: the folder with a depth map for each image, for a model that reads depth.
        device: `auto`, `cpu`, `cuda`, `mps`.
        batch: images at a time; None takes as many as their size allows.
        cache, workers, progress: as for `load`.

    Raises:
        UserError: the model predicts nothing, or the images cannot be read.
    """
    import pandas as pd

    model, task = ready(model, device)
    data = pictures(model, images, depth=depth, cache=cache, workers=workers, progress=progress)
    names, parts = data.names, []
    for rows, outputs in batches(model, data, batch):
        said = {"image": [names[row] for row in rows.tolist()], **task.table(outputs, model.info)}
        parts.append(pd.DataFrame(said))
    return pd.concat(parts, ignore_index=True)


def ready(model: ModelLike, device: str = "auto") -> tuple[Model, Task]:
    """Return a model on the device (a copy, where it is elsewhere), and what it predicts.

    Raises:
        UserError: it predicts nothing, or the device is not on this machine.
    """
    given = isinstance(model, Model)
    model = model if isinstance(model, Model) else Model.load(model)
    if model.info.task is None or model.info.task not in model.head_names:
        raise UserError(
            "this model predicts nothing: it is a bare encoder; `rushlight fit` a recipe that ends in a learner"
        )
    wanted = torch.device(hardware.device(device))
    if next(model.parameters()).device.type != wanted.type:
        model = (model.copy() if given else model).to(wanted)
    return model, tasks.find(model.info.task)


def pictures(
    model: Model,
    images: Any,
    *,
    depth: Folder = None,
    cache: Cache = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    tell: bool = True,
) -> Dataset:
    """Return the images as the model knows them: a data set unchanged, all other sources by `load`.

    Args:
        tell: warn of files that are left out.
    """
    if isinstance(images, Dataset):
        return images
    data = load(images, **model.info.canvas, depth=depth, cache=cache, workers=workers, progress=progress)
    if tell and (said := left_out(data)):
        warnings.warn(said, stacklevel=3)
    return data


def left_out(data: Dataset) -> str:
    """Return which files were left out and why, in a sentence; empty where none was."""
    entries = [f"{entry.name} ({entry.reason})" for entry in data.info.quarantined]
    return f"{len(entries):,} left out: {some(entries)}" if entries else ""


def batches(
    model: Model, data: Dataset, batch: int | None = None, names: list[str] | None = None
) -> Iterator[tuple[Int[Tensor, "batch"], Outputs]]:
    """Yield some rows of the data and the heads' outputs for them, on the CPU; no more than a batch is held."""
    at = 0
    for outputs in model.predict_batches(data, batch=batch, names=names):
        rows = torch.arange(at, at + len(next(iter(outputs.values()))))
        at += len(rows)
        yield rows, {name: values.cpu() for name, values in outputs.items()}
