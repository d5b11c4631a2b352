"""Score a model on labels that no stage has seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushlight.core.card import METRICS
from rushlight.data.dataset import Dataset
from rushlight.run.model import Model
from rushlight.tasks.scores import confusion, mean_average_precision, mean_iou


@dataclass(frozen=True)
class Scores:
    """What a model scores on a test set.

    Attributes:
        task: `class`, `tags` or `mask`.
        value: accuracy, mean average precision, or mean intersection over union; 0 … 1.
        parts: what the value is made of, one row a test image: `predicted` and `true` classes; `scores` and `true`
            tags; or `confusion` (true × predicted pixels).
    """

    task: str
    value: float
    parts: dict[str, Tensor]

    @property
    def metric(self) -> str:
        return METRICS[self.task]


def evaluate(model: Model, data: Dataset, task: str | None = None) -> Scores:
    """Score a model on the rows of `data` whose label is known."""
    task = task or model.info.task or "class"
    data = data.select(data.known(task))
    outputs = model.predict(data["image"], names=[task])[task]
    parts = {"class": _class_parts, "tags": _tag_parts, "mask": _mask_parts}[task](outputs, data[task])
    return Scores(task, value(task, parts), parts)


def value(task: str, parts: dict[str, Tensor]) -> float:
    """The metric of a task from its parts, over all rows given."""
    if task == "class":
        return float((parts["predicted"] == parts["true"]).double().mean())
    if task == "tags":
        return mean_average_precision(parts["scores"], parts["true"])
    return mean_iou(parts["confusion"].sum(0))


def _class_parts(logits: Float[Tensor, "n classes"], true: Int[Tensor, "n"]) -> dict[str, Tensor]:
    confidence, predicted = logits.softmax(1).max(1)
    return {"predicted": predicted.to(torch.int16), "true": true.to(torch.int16), "confidence": confidence}


def _tag_parts(logits: Float[Tensor, "n tags"], true: Int[Tensor, "n tags"]) -> dict[str, Tensor]:
    return {"scores": logits.sigmoid(), "true": true.clone()}


def _mask_parts(logits: Float[Tensor, "n classes h w"], true: Tensor) -> dict[str, Tensor]:
    return {"confusion": confusion(logits.argmax(1), true, logits.shape[1])}
