"""One class an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.core.findings import Findings, Measure, Picture, Pictures, Table
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.losses import supervised
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Head, Linear
from rushlight.tasks import open_set, scores
from rushlight.tasks.base import (
    Columns,
    Confidence,
    Metric,
    Outputs,
    Parts,
    Question,
    Task,
    by_class,
    confused,
    names_of,
    ratio,
    renumbered,
)

ACCURACY = Metric("accuracy", mean_over_rows=True)
BALANCED, COMMONEST, TOP5 = (
    Metric(name) for name in ("balanced accuracy", "always the commonest class", "top-5 accuracy")
)
AUROC, UNSEEN, OPEN = (
    Metric(name)
    for name in (
        "AUROC of rejection",
        f"unseen recall at {open_set.SEEN_RECALL:.0%} seen recall",
        "open-set balanced accuracy",
    )
)
"""Of a test set that holds images of classes unseen in training (`hide.open_set`)."""
MOST, SHOWN = 100, 24
"""Confident errors that are listed, and shown as pictures, at most."""


class Classify(Task):
    """Predict one class of each image."""

    id, column, place = "class", "class", 0
    metric, also = ACCURACY, (BALANCED, COMMONEST, TOP5, AUROC, UNSEEN, OPEN)
    beside = ("open",)

    def outputs(self, data: Dataset) -> int:
        values = data[self.column]
        return len(self.names(data.info)) or (int(values.max()) + 1 if len(values) else 0)

    def presence(self, data: Dataset) -> Bool[Tensor, "rows classes"]:
        return data[self.column][:, None] == torch.arange(self.outputs(data))

    def keep(self, data: Dataset, n: int, seed: int = 0) -> Dataset:
        """Keep exactly n labels of each class; see `hide.per_class`."""
        return hide.per_class(data, n, self.column, seed=seed)

    def opened(self, data: Dataset) -> tuple[Dataset, tuple[str, ...]]:
        """Return the data in which classes of the test fold alone are unseen ones, to be rejected, and their names."""
        unseen = hide.only_tested(data)
        return (hide.open_set(data, unseen), tuple(unseen)) if unseen else (data, ())

    def renumber(self, values: Tensor, own: Sequence[str], theirs: Sequence[str]) -> Tensor:
        return renumbered(values, own, theirs, -1)

    def contradicts(self, data: Dataset, rows: Sequence[int]) -> bool:
        values = data[self.column][list(rows)]
        return len(values[values >= 0].unique()) > 1

    def questions(self, data: Dataset) -> list[Question]:
        rows = data.known(self.column).nonzero()[:, 0]
        names = self.labelled(self.names(data.info), self.outputs(data))
        return [Question("", rows, data[self.column][rows], names)]

    # Learning

    def head(self, encoder: Encoder, data: Dataset) -> Head:
        return Linear(width=encoder.width, outputs=self.outputs(data))

    def loss(self, output: Float[Tensor, "batch classes"], target: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        return supervised.classes(output, target)

    # Scores

    def parts(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Return `predicted` and `true` classes, the `rank` of the true one (0: predicted), and the `confidence`.

        Beside them stand what open-set scores read: whether an image is `unseen`, its `rejection` score, and the
        class `decided` by the open head, where there is one.
        """
        logits, true = outputs[self.id].float(), columns[self.column]
        confidence, predicted = logits.softmax(1).max(1)
        inside = true.clamp(max=logits.shape[1] - 1)  # what has no output (an unseen class) is never right
        of_true = logits.gather(1, inside[:, None])
        rank = torch.where(true < logits.shape[1], (logits > of_true).sum(1), logits.shape[1])
        small = {"predicted": predicted, "true": true, "rank": rank}
        opened = outputs.get("open")
        small |= {"unseen": true >= logits.shape[1], "decided": open_set.decisions(logits, opened)}
        shares = {"confidence": confidence, "rejection": open_set.rejection_scores(logits, opened)}
        return {name: values.to(torch.int16) for name, values in small.items()} | shares

    def per_row(self, parts: Parts) -> Float[Tensor, "n"]:
        return (parts["predicted"] == parts["true"]).double()

    def compared(self, parts: Parts) -> tuple[Metric, ...]:
        """Return the open-set scores where the images are of seen and of unseen classes."""
        unseen = parts["unseen"].bool()
        return (AUROC, UNSEEN, OPEN) if bool(unseen.any()) and not bool(unseen.all()) else ()

    def value(self, parts: Parts, metric: Metric | None = None) -> float:
        metric = metric or self.metric
        predicted, true = parts["predicted"].long(), parts["true"].long()
        if not len(true):
            raise UserError("accuracy needs images whose class is known: there is none")
        if metric == ACCURACY:
            return float(self.per_row(parts).mean())
        if metric == BALANCED:
            return scores.balanced_accuracy(predicted, true)
        if metric == COMMONEST:
            return float(true.bincount().max() / len(true))
        if metric in (AUROC, UNSEEN, OPEN):
            return _open_set(parts, metric)
        if int(max(true.max(), parts["rank"].max())) < 10:
            raise UserError("top-5 accuracy needs more than ten classes")
        return float((parts["rank"] < 5).double().mean())

    def confidence(
        self, outputs: Outputs, columns: Columns, generator: torch.Generator | None = None
    ) -> Confidence | None:
        p, true = outputs[self.id].double().softmax(1), columns[self.column]
        return of_choices(p, true)

    def findings(
        self, parts: Parts, data: Dataset, rows: Int[Tensor, "n"], names: Sequence[str] = ()
    ) -> list[Findings]:
        predicted, true = parts["predicted"].long(), parts["true"].long()
        names = names or self.names(data.info)
        k = max(len(names), int(torch.cat([predicted, true]).max()) + 1)
        last = ["unseen"] if hide.unknown_class(data) == len(names) else []
        names = (*names, *last, *map(str, range(len(names) + len(last), k)))
        counts = torch.bincount(true * k + predicted, minlength=k * k).view(k, k)
        errors = _errors(parts, data, rows, names)
        wrong = float(counts.sum() - counts.diagonal().sum())
        pictures = (_pictures(errors, data, wrong),) if len(errors) else ()
        found = [by_class(_classes(counts, names)), confused(counts, names, self.counted, errors, pictures=pictures)]
        opened = {metric: value for metric, value in self.measured(parts).items() if metric in (AUROC, UNSEEN, OPEN)}
        return found + ([_rejections(opened, int(parts["unseen"].sum()))] if opened else [])

    def worst(self, parts: Parts) -> Int[Tensor, "n"]:
        """Return the errors, the surest first."""
        wrong = (parts["predicted"] != parts["true"]).nonzero()[:, 0]
        return wrong[parts["confidence"][wrong].argsort(descending=True, stable=True)]

    # Predictions

    def table(self, outputs: Outputs, info: Any) -> dict[str, Any]:
        """Return the class, its probability, that of being of no known class (`unknown`), and each class's."""
        p = outputs[self.id].float().softmax(1)
        names, (confidence, chosen) = self.labelled(self.names(info), p.shape[1]), p.max(1)
        columns = {"class": [names[i] for i in chosen.tolist()], "probability": confidence.numpy()}
        if "open" in outputs:
            columns["unknown"] = outputs["open"].float().softmax(1)[:, -1].numpy()
        return columns | {f"p({name})": one.numpy() for name, one in zip(names, p.T, strict=True)}

    def example(self) -> Dataset:
        """Return 600 training and 200 test photos of clothes."""
        data = fashion.load()
        return data.select(torch.cat([torch.arange(600), 12_000 + torch.arange(200)]))


def _rejections(values: dict[Metric, float], n: int) -> Findings:
    """Return the open-set scores as findings."""
    measures = tuple(Measure(metric.name, value, kind="share", n=n) for metric, value in values.items())
    note = (
        f"{n:,} test images are of classes unseen in training. A model should reject them; accuracy counts them wrong."
    )
    return Findings("open-set", measures, notes=(note,), title="Classes unseen in training", priority=15)


def _open_set(parts: Parts, metric: Metric) -> float:
    unseen, rejection = parts["unseen"].bool(), parts["rejection"]
    if metric == AUROC:
        return open_set.rejection_auroc(rejection, unseen)
    if metric == UNSEEN:
        return open_set.unseen_recall(rejection, unseen)
    if not bool(unseen.any()):
        raise UserError("open-set balanced accuracy needs test images of a class unseen in training: there is none")
    return open_set.open_balanced_accuracy(parts["decided"].long(), parts["true"].long())


def of_choices(p: Float[Tensor, "n classes"], true: Int[Tensor, "n"]) -> Confidence:
    """Return the confidence of the likeliest of several classes, beside the true one of each."""
    confidence, predicted = p.max(1)
    of_truth = p.gather(1, true.clamp(max=p.shape[1] - 1)[:, None])[:, 0].clamp(min=1e-12)
    of_truth = torch.where(true < p.shape[1], of_truth, 1e-12)
    truth = torch.nn.functional.one_hot(true, max(p.shape[1], int(true.max()) + 1 if len(true) else 0))
    brier = (torch.nn.functional.pad(p, (0, truth.shape[1] - p.shape[1])) - truth).square().sum(1)
    return Confidence(confidence, predicted == true, -of_truth.log(), brier)


def _classes(counts: Int[Tensor, "classes classes"], names: Sequence[str]) -> dict[str, list[Any]]:
    """Return one row per class that occurs: images, recall with Wilson's interval, precision, F1."""
    from scipy.stats import binomtest

    hits, n, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    at = [i for i in range(len(counts)) if n[i] or said[i]]
    wilson = [binomtest(int(hits[i]), int(n[i])).proportion_ci(method="wilson") if n[i] else None for i in at]
    return {
        "class": [names[i] for i in at],
        "n": [int(n[i]) for i in at],
        "predicted": [int(said[i]) for i in at],
        "recall": [ratio(hits[i], n[i]) for i in at],
        "recall, low": [w.low if w else float("nan") for w in wilson],
        "recall, high": [w.high if w else float("nan") for w in wilson],
        "precision": [ratio(hits[i], said[i]) for i in at],
        "F1": [ratio(2 * hits[i], n[i] + said[i]) for i in at],
    }


def _errors(parts: Parts, data: Dataset, rows: Int[Tensor, "n"], names: Sequence[str]) -> Table:
    """Return the errors of which the model is surest."""
    at = Classify().worst(parts)[:MOST]
    values = {
        "row": rows[at].tolist(),
        "image": names_of(data, rows[at]),
        "true": [names[i] for i in parts["true"][at].tolist()],
        "predicted": [names[i] for i in parts["predicted"][at].tolist()],
        "confidence": parts["confidence"][at].tolist(),
    }
    return Table.of("confident errors", values, kinds={"confidence": "share"}, hidden=("row",), folded=True)


def _pictures(table: Table, data: Dataset, errors: float) -> Pictures:
    shown = tuple(
        Picture(
            data.read("image", row["row"]).movedim(0, -1).numpy(),
            row["image"],
            (f"{row['predicted']}, {100 * row['confidence']:.0f} %", f"is {row['true']}"),
        )
        for row in table.dicts()[:SHOWN]
    )
    caption = f"The {len(shown)} errors it is most sure of, of {errors:,.0f}. Some may be mistakes of the labels."
    return Pictures("confident errors", shown, caption)
