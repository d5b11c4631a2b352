"""Score a model on labels that no stage has seen, batch by batch on the model's device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.core.float64 import where_float64
from rushlight.data.dataset import Dataset
from rushlight.data.edit.split import groups
from rushlight.run.budget import count_flops
from rushlight.run.model import Model
from rushlight.tasks.base import Columns, Outputs, Task

GROUP = "group"
"""Beside the parts of a score: the group of each row, the unit of intervals."""


@dataclass(frozen=True)
class Scores:
    """What a model scores on a test set.

    Attributes:
        task: its id.
        value: of the task's metric.
        parts: what the value is made of, one row a test image (see `Task.parts`).
    """

    task: str
    value: float
    parts: dict[str, Tensor]

    @property
    def metric(self) -> str:
        return tasks.find(self.task).metric.name


def evaluate(model: Model, data: Dataset, task: str | None = None) -> Scores:
    """Score a model on the rows of `data` whose label is known.

    Raises:
        UserError: the model predicts nothing, or the metric is not defined on these labels.
    """
    name = task or model.info.task
    if name is None:
        raise UserError("this model predicts nothing: it is a bare encoder")
    found = tasks.find(name)
    rows = data.known(found.column).nonzero().squeeze(1)
    parts = parts_of(model, data, rows, found)
    return Scores(found.id, found.value(parts), parts)


def parts_of(model: Model, data: Dataset, rows: Int[Tensor, "n"], task: Task) -> dict[str, Tensor]:
    """Return the parts of a task's scores for some rows, on the CPU. No more than a batch of outputs exists at once.

    Raises:
        UserError: there are no rows.
    """
    if not len(rows):
        raise UserError(f"no '{task.column}' is known in the images to test on: label some of them")
    each = [task.parts(outputs, columns) for _, outputs, columns in batches(model, data, rows, task)]
    parts = {name: torch.cat([one[name].cpu() for one in each]) for name in each[0]}
    return parts | ({GROUP: groups(data)[rows]} if GROUP in data else {})


def batches(
    model: Model, data: Dataset, rows: Int[Tensor, "n"], task: Task, names: list[str] | None = None
) -> Iterator[tuple[Int[Tensor, "batch"], Outputs, Columns]]:
    """Yield some rows, the outputs of heads (by default the task's) and the columns it reads, on the model's device.

    Scores need float64: where the device has none, they are on the CPU.
    """
    device, at = where_float64(next(model.parameters())).device, 0
    read = [name for name in (*model.encoder.columns, task.column, *task.reads) if name in data]
    names = names or heads_of(model, task)
    for outputs in model.predict_batches(data, rows=rows, names=names):
        part = rows[at : at + len(next(iter(outputs.values())))]
        at += len(part)
        columns = {name: data.read(name, part).to(device) for name in read}
        yield part, {name: values.to(device) for name, values in outputs.items()}, columns


def heads_of(model: Model, task: Task) -> list[str]:
    """Return the heads that answer a task: its own, and those beside it that the model has."""
    return [task.id, *(head for head in task.beside if head in model.head_names)]


def inference_flops(model: Model, data: Dataset, task: Task) -> float:
    """Return the FLOPs of a task's answer for one row: of the encoder and the heads that it needs."""
    row, names = torch.zeros(1, dtype=torch.int64), heads_of(model, task)
    return count_flops(lambda: model.predict(data, rows=row, names=names))
