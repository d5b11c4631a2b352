"""Several tags an image, each present, absent or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.core.findings import Findings
from rushlight.data.dataset import Dataset
from rushlight.losses import supervised
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Head, Linear
from rushlight.tasks import scores
from rushlight.tasks.base import Columns, Confidence, Metric, Outputs, Parts, Question, Task, by_class, ratio
from rushlight.tasks.examples import four_things

MAP = Metric("mAP")
OF1, CF1, BEST_OF1, BEST_CF1, RECALL = (
    Metric(name)
    for name in (
        "OF1 at 0.5",
        "CF1 at 0.5",
        "OF1 at its best threshold",
        "CF1 at its best threshold",
        "recall at 0.5",
    )
)


class Tag(Task):
    """Predict which tags an image has."""

    id, column, place, noun = "tags", "tags", 1, "tag"
    names_in = ("tag_names",)
    metric, also = MAP, (OF1, CF1, BEST_OF1, BEST_CF1, RECALL)
    confidence_words = ("probability", "share present")

    def outputs(self, data: Dataset) -> int:
        return data[self.column].shape[1]

    def presence(self, data: Dataset) -> Bool[Tensor, "rows tags"]:
        return data[self.column] == 1

    def renumber(self, values: Tensor, own: Sequence[str], theirs: Sequence[str]) -> Tensor:
        column = {name: values[:, i] for i, name in enumerate(own)}
        return torch.stack([column.get(name, torch.full_like(values[:, 0], -1)) for name in theirs], 1)

    def counts(self, data: Dataset) -> dict[str, list[Any]]:
        table = super().counts(data)
        absent, unknown = ((data[self.column] == value).sum(0).tolist() for value in (0, -1))
        return table | {"absent": absent, "unknown": unknown}

    def contradicts(self, data: Dataset, rows: Sequence[int]) -> bool:
        tags = data[self.column][list(rows)]
        return bool(((tags == 1).any(0) & (tags == 0).any(0)).any())

    def questions(self, data: Dataset) -> list[Question]:
        tags = data[self.column].long()
        names = self.labelled(self.names(data.info), tags.shape[1])
        rows = [(tags[:, i] >= 0).nonzero()[:, 0] for i in range(tags.shape[1])]
        return [
            Question(name, at, tags[at, i], ("absent", "present"))
            for i, (name, at) in enumerate(zip(names, rows, strict=True))
        ]

    # Learning

    def head(self, encoder: Encoder, data: Dataset) -> Head:
        return Linear(width=encoder.width, outputs=self.outputs(data))

    def loss(self, output: Float[Tensor, "batch tags"], target: Int[Tensor, "batch tags"]) -> Float[Tensor, ""]:
        return supervised.tags(output, target)

    # Scores

    def parts(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Return the probability (`scores`) and the truth of each tag."""
        return {"scores": outputs[self.id].float().sigmoid(), "true": columns[self.column].to(torch.int8)}

    def unscorable(self, data: Dataset) -> str:
        return super().unscorable(data) or _undefined(data[self.column], self.metric)

    def value(self, parts: Parts, metric: Metric | None = None) -> float:
        metric, p, true = metric or self.metric, parts["scores"], parts["true"]
        if metric == RECALL:
            return ratio(((p >= 0.5) & (true == 1)).sum(), (true == 1).sum())
        if why := _undefined(true, metric):
            raise UserError(why)
        if metric == MAP:
            return scores.mean_average_precision(p, true)
        if metric in (OF1, CF1):
            return scores.f1_at(p, true, 0.5)[0 if metric == OF1 else 1]
        best = scores.best_f1(p, true)
        return best.overall if metric == BEST_OF1 else best.per_class

    def confidence(
        self, outputs: Outputs, columns: Columns, generator: torch.Generator | None = None
    ) -> Confidence | None:
        p, true = outputs[self.id].double().sigmoid(), columns[self.column]
        known = true >= 0
        p, y = p[known], true[known].double()
        of_truth = torch.where(y == 1, p, 1 - p).clamp(min=1e-12)
        return Confidence(p, y == 1, -of_truth.log(), (p - y).square())

    def confidences(self, found: Sequence[Confidence]) -> Confidence:
        whole = super().confidences(found)
        if bool(whole.right.all()):
            raise UserError("needs tags that are known to be absent: these labels name present ones only")
        return whole

    def findings(
        self, parts: Parts, data: Dataset, rows: Int[Tensor, "n"], names: Sequence[str] = ()
    ) -> list[Findings]:
        p, true = parts["scores"], parts["true"]
        known, there, said = true >= 0, true == 1, p >= 0.5
        hits, n, says = ((known & x).sum(0) for x in (there & said, there, said))
        each = range(true.shape[1])
        table = {
            "tag": list(self.labelled(names or self.names(data.info), true.shape[1])),
            "known": known.sum(0).tolist(),
            "present": n.tolist(),
            "predicted": says.tolist(),
            "AP": [_ap(p[:, i], true[:, i]) for i in each],
            "recall": [ratio(hits[i], n[i]) for i in each],
            "precision": [ratio(hits[i], says[i]) for i in each],
            "F1": [ratio(2 * hits[i], n[i] + says[i]) for i in each],
        }
        return [replace(by_class(table), notes=(FLATTER if (true == 0).any() else ONLY_PRESENT,))]

    def worst(self, parts: Parts) -> Int[Tensor, "n"]:
        """Return the images with the surest wrong tags first."""
        p, true = parts["scores"], parts["true"]
        wrong = torch.where(true == 1, 1 - p, p).masked_fill(true < 0, 0)
        return wrong.amax(1).argsort(descending=True, stable=True)

    # Predictions

    def table(self, outputs: Outputs, info: Any) -> dict[str, Any]:
        """Return the probability of each tag."""
        p = outputs[self.id].float().sigmoid()
        return {name: one.numpy() for name, one in zip(self.labelled(self.names(info), p.shape[1]), p.T, strict=True)}

    def example(self) -> Dataset:
        """Return 300 training and 100 test scenes of one to three of four things."""
        return four_things(self.column)


FLATTER = "The best thresholds were chosen on these images, which flatters them."
ONLY_PRESENT = "No tag is known to be absent, so neither precision nor mAP is defined; recall is all that can be told."


def _undefined(true: Int[Tensor, "n tags"], metric: Metric) -> str:
    if not bool((true == 0).any()):
        return (
            f"{metric.name} needs tags that are known to be absent from some test images, and these labels name "
            "present ones only: label some absences (0 in a table of tags)"
        )
    if not bool((true == 1).any()):
        return f"{metric.name} needs a tag that is present in some test image: there is none"
    return ""


def _ap(p: Float[Tensor, "n"], true: Int[Tensor, "n"]) -> float:
    return scores.mean_average_precision(p[:, None], true[:, None]) if (true == 0).any() else float("nan")
