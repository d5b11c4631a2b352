"""What a task is: the one place that knows its labels, its head, its scores and its predictions."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor

from rushlight.augment import presets
from rushlight.augment.policy import Policy
from rushlight.augment.view import View
from rushlight.core.errors import UserError
from rushlight.core.findings import Findings, Kind, Matrix, Measure, Picture, Table
from rushlight.data.columns import TEST, decode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit import split
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Head

Columns = Mapping[str, Tensor] | TensorDict
"""Columns of some rows, by name, on one device."""
Outputs = Mapping[str, Tensor]
"""The outputs of a model's heads for some images, by the heads' names."""
Parts = Mapping[str, Tensor]
"""What a score is made of: tensors with one row an image."""


CAPTION = (
    "Recall: the share of a class's images that are found. Precision: the share of its predictions that are right."
)
PAIRS = "What is taken for what, the commonest first; the share is of the true class."


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        name: as it is printed.
        higher: whether more is better.
        scale, unit: what a value is multiplied with to be printed, and what it is then called.
        bounds: its least and greatest value; None where it has none.
        mean_over_rows: whether it is a mean over images; else its interval comes from blocks of images.
    """

    name: str
    higher: bool = True
    scale: float = 100.0
    unit: str = "points"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    mean_over_rows: bool = False


@dataclass(frozen=True)
class Confidence:
    """Probabilities beside the truth, one entry a known label (or sampled pixel, or box).

    Attributes:
        p: the probability that was given; right: whether what it was given to is true.
        nll, brier: negative log-likelihood (nats) and Brier score of the label.
    """

    p: Float[Tensor, "n"]
    right: Bool[Tensor, "n"]
    nll: Float[Tensor, "n"]
    brier: Float[Tensor, "n"]


@dataclass(frozen=True)
class Question:
    """Labels of which each can be right or wrong by itself, to be searched for mistakes.

    Attributes:
        about: the tag in question; empty where there is one question alone.
        rows: the rows that are labelled; labels: 0 … K−1 of each; names: of the K answers.
    """

    about: str
    rows: Int[Tensor, "n"]
    labels: Int[Tensor, "n"]
    names: tuple[str, ...]


class Task(ABC):
    """What is predicted.

    Attributes:
        id: its name, also that of its head. column: the labels' column.
        reads: further columns that `parts` looks at where the data has them.
        beside: further heads whose outputs `parts` looks at where a model has them.
        names_in: fields of `Info` that name the outputs; the first that is not empty counts.
        place: tasks of smaller numbers are tried first where none is named.
        noun: what a name names (`class`, `tag`); counted: what a table of counts counts.
        metric: what recipes are ranked by; also: what stands beside it.
        confidence_words: axes of the reliability diagram.
        independent: whether the entries of `confidence` are drawn independently of each other.
    """

    id: ClassVar[str]
    column: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    beside: ClassVar[tuple[str, ...]] = ()
    names_in: ClassVar[tuple[str, ...]] = ("class_names",)
    place: ClassVar[float] = 100
    noun: ClassVar[str] = "class"
    counted: ClassVar[str] = "images"
    metric: ClassVar[Metric]
    also: ClassVar[tuple[Metric, ...]] = ()
    confidence_words: ClassVar[tuple[str, str]] = ("confidence", "share right")
    independent: ClassVar[bool] = True

    # The labels -------------------------------------------------------------------------------------------------------

    def names(self, info: Any) -> tuple[str, ...]:
        """Return the names of the outputs from an `Info` or a `ModelInfo`; empty where they have none."""
        found = (tuple(getattr(info, field, None) or ()) for field in self.names_in)
        return next((names for names in found if names), ())

    @abstractmethod
    def outputs(self, data: Dataset) -> int:
        """Return how many classes (tags, joints) are predicted."""

    def labelled(self, names: Sequence[str], outputs: int) -> tuple[str, ...]:
        """Return one name per output: the given ones if their number fits, else numbers."""
        return tuple(names) if len(names) == outputs else tuple(map(str, range(outputs)))

    @abstractmethod
    def presence(self, data: Dataset) -> Bool[Tensor, "rows classes"]:
        """Return which classes are known to be in which image."""

    def keep(self, data: Dataset, n: int, seed: int = 0) -> Dataset:
        """Keep the labels of enough training images to have each class in n of them at least; hide the others.

        What a smaller n keeps, a larger one keeps too.

        Raises:
            UserError: a class occurs in fewer than n training images.
        """
        training = data["fold"] != TEST if "fold" in data else torch.ones(len(data), dtype=torch.bool)
        there = self.presence(data) & training[:, None]
        kept = torch.zeros(len(data), dtype=torch.bool)
        for number, counts in enumerate(there.sum(0).tolist()):
            if 0 < counts < n:
                raise UserError(self._too_few(data, n, number, counts))
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1_000_003 * seed + number))
            kept[order[there[order, number]][:n]] = True
        return data.hide(training & ~kept, [self.column])

    def _too_few(self, data: Dataset, n: int, number: int, counts: int) -> str:
        name = self.labelled(self.names(data.info), self.outputs(data))[number]
        return (
            f"{n} labels a {self.noun} were asked for, but the {self.noun} '{name}' is in only {counts} of the "
            f"training images: ask for at most {counts}"
        )

    def split(self, data: Dataset, share: float, seed: int = 0, **settings: Any) -> Dataset:
        """Hold out a share of the labelled images as a test fold, every class in proportion; see `hold_out`."""
        presence = self.presence(data) if len(data) else None
        return split.hold_out(data, share, seed, column=self.column, presence=presence, **settings)

    def opened(self, data: Dataset) -> tuple[Dataset, tuple[str, ...]]:
        """Return the data with what occurs in the test fold alone as unseen, and its names; most tasks know no such."""
        return data, ()

    def align(self, data: Dataset, info: Any) -> tuple[Dataset, tuple[str, ...]]:
        """Return the data with its labels in the model's numbers, matched by name, and what did not match.

        A class that the model does not know becomes unknown. Data or models without names are taken as they are.

        Raises:
            UserError: not one name is common to both.
        """
        own, theirs = self.names(data.info), self.names(info)
        if self.column not in data or not own or not theirs or own == theirs:
            return data, ()
        strange = [name for name in own if name not in theirs]
        if len(strange) == len(own):
            raise UserError(
                f"the model answers with {some(theirs)}, and {data.info.source} is labelled {some(own)}: "
                "not one name is common to both; rename the labels"
            )
        notes = (f"The model does not know {some(strange)}: these labels were passed over.",) if strange else ()
        changed = data.with_columns(**{self.column: self.renumber(data[self.column], own, theirs)})
        return changed.with_info(**{self.names_in[0]: theirs}), notes

    def renumber(self, values: Tensor, own: Sequence[str], theirs: Sequence[str]) -> Tensor:
        """Return labels that number `own` names, in the numbers of `theirs`; unknown where these lack one."""
        raise NotImplementedError

    def counts(self, data: Dataset) -> dict[str, list[Any]]:
        """Return a table: how many images are known to show each class, and how many of those are test images."""
        there, known = self.presence(data), data.known(self.column)
        test = data["fold"] == TEST if "fold" in data else torch.zeros(len(data), dtype=torch.bool)
        return {
            self.noun: list(self.labelled(self.names(data.info), there.shape[1])),
            "present": there.sum(0).tolist(),
            "in test": there[test].sum(0).tolist(),
            "unknown": [int((~known).sum())] * there.shape[1],
        }

    def contradicts(self, data: Dataset, rows: Sequence[int]) -> bool:
        """Return whether these equal images, which should be labelled alike, have different labels."""
        return False

    def questions(self, data: Dataset) -> list[Question]:
        """Return the labels that can be searched for mistakes.

        Raises:
            UserError: there is no such search for this task.
        """
        raise UserError(f"label mistakes are not looked for in {self.column}")

    # Learning ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def head(self, encoder: Encoder, data: Dataset) -> Head:
        """Return a new head for these labels on this encoder."""

    def of(self, info: Any) -> Task:
        """Return the task as it learns data of this `Info`: keypoints mirror where they know left and right."""
        return self

    def views(self, size: tuple[int, int]) -> tuple[Policy, Policy]:
        """Return the weak and the strong view; both carry the target along (see `view`)."""
        return presets.weak(size), presets.strong(size)

    def view(
        self, views: Policy, columns: Columns, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch 3 height width"], Tensor]:
        """Draw a view of the images, and the labels as they are in it."""
        images, view = views.with_view(columns["image"], generator=generator)
        return images, self.moved(view, columns[self.column])

    def moved(self, view: View, target: Tensor) -> Tensor:
        """Return the labels as they are in a view."""
        return target

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Float[Tensor, ""]:
        """Return the plain supervised loss of what is known; 0 where nothing is."""

    # Scores -----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def parts(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Return the parts that scores are computed from, for some images, one row per image."""

    @abstractmethod
    def value(self, parts: Parts, metric: Metric | None = None) -> float:
        """Return a metric (by default the task's) over all rows of the parts.

        Raises:
            UserError: it is not defined on these labels.
        """

    def unscorable(self, data: Dataset) -> str:
        """Return why the task's metric is not defined on these labels, in a sentence; empty where it is."""
        return "" if bool(data.known(self.column).any()) else f"no '{self.column}' is known in the images to test on"

    def per_row(self, parts: Parts) -> Float[Tensor, "n"] | None:
        """Return one number per image whose mean is the task's metric; None where there are no such numbers."""
        return None

    def compared(self, parts: Parts) -> tuple[Metric, ...]:
        """Return the metrics that a comparison shows beside the task's, as far as they are defined on these labels."""
        return ()

    def left_out(self, parts: Parts, block: Int[Tensor, "n"], metric: Metric | None = None) -> Float[Tensor, "blocks"]:
        """Return a metric (by default the task's) without the rows of each block 0 … B−1, for intervals.

        NaN stands where it is not defined on the others.
        """
        blocks = range(int(block.max()) + 1)
        return torch.tensor([self._defined(parts, block != one, metric) for one in blocks], dtype=torch.float64)

    def _defined(self, parts: Parts, rows: Bool[Tensor, "n"], metric: Metric | None) -> float:
        with contextlib.suppress(UserError):
            return self.value({name: values[rows] for name, values in parts.items()}, metric)
        return float("nan")

    def measured(self, parts: Parts) -> dict[Metric, float]:
        """Return the metric and those beside it, as far as they are defined on these labels."""
        found: dict[Metric, float] = {}
        for metric in (self.metric, *self.also):
            with contextlib.suppress(UserError):
                found[metric] = self.value(parts, metric)
        return found

    def confidence(
        self, outputs: Outputs, columns: Columns, generator: torch.Generator | None = None
    ) -> Confidence | None:
        """Return each known label's probability beside the truth; None for a task that gives none.

        Args:
            generator: of what is drawn, where a sample stands for all.
        """
        return None

    def confidences(self, found: Sequence[Confidence]) -> Confidence:
        """Join the confidences of several batches.

        Raises:
            UserError: these labels cannot tell whether a probability is right.
        """
        return Confidence(
            *(torch.cat([getattr(one, name) for one in found]) for name in ("p", "right", "nll", "brier"))
        )

    def findings(
        self, parts: Parts, data: Dataset, rows: Int[Tensor, "n"], names: Sequence[str] = ()
    ) -> list[Findings]:
        """Return `classes` (a table with one row per class) and further findings on where a model errs.

        Args:
            rows: of the data, in the order of the parts.
            names: of the outputs; by default those of the data.
        """
        return []

    def worst(self, parts: Parts) -> Int[Tensor, "n"]:
        """Return positions in the parts, the most worth looking at first."""
        rows = self.per_row(parts)
        return torch.arange(len(next(iter(parts.values())))) if rows is None else rows.argsort(stable=True)

    def pictures(self, outputs: Outputs, columns: Columns, info: Any) -> list[Picture]:
        """Return a few images with predictions and labels drawn on them."""
        return []

    # Predictions ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def table(self, outputs: Outputs, info: Any) -> dict[str, Any]:
        """Return the predictions for some images as columns of a table, one row per image."""

    def write(
        self, batches: Iterable[tuple[Int[Tensor, "n"], Outputs]], data: Dataset, folder: Path, info: Any
    ) -> list[Path]:
        """Write predictions as files, in the pixels of the user's own images.

        Args:
            batches: rows of the data, and the outputs for their images.

        Raises:
            UserError: there is no such file for this task.
        """
        raise UserError(f"a model that predicts '{self.id}' writes tables alone: give --out a .csv or .parquet file")

    @abstractmethod
    def example(self) -> Dataset:
        """Return a small data set with true labels, training and test rows, that a small model can learn."""


def names_of(data: Dataset, rows: Int[Tensor, "n"]) -> list[str]:
    """Return the file names of some rows."""
    return decode_text(data["name"][rows]) if "name" in data else [str(row) for row in rows.tolist()]


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names of a list, for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def ratio(part: Any, whole: Any) -> float:
    """Return a quotient; NaN where the whole is 0."""
    return float(part) / float(whole) if whole else float("nan")


SHARES = ("AP", "AP50", "IoU", "recall", "recall, low", "recall, high", "precision", "F1", "share of pixels")
"""Columns of `by_class` that hold shares."""


def by_class(values: dict[str, list[Any]], caption: str = CAPTION) -> Findings:
    """Return a table with one row per class, as findings."""
    kinds: dict[str, Kind] = {name: "share" for name in SHARES if name in values}
    intervals = {"recall": ("recall, low", "recall, high")} if "recall, low" in values else {}
    table = Table.of("classes", values, kinds=kinds, intervals=intervals, caption=caption)
    return Findings("classes", tables=(table,), title="Class by class", priority=5)


def confused(
    counts: Int[Tensor, "classes classes"], names: Sequence[str], what: str, *more: Table, **others: Any
) -> Findings:
    """Return which classes are confused with which, as findings.

    Args:
        counts: true × predicted; what: is counted.
        more, others: tables and other parts of the findings.
    """
    errors = Measure("errors", int(counts.sum() - counts.diagonal().sum()), kind="count")
    table = Table.of("confusions", _pairs(counts, names), kinds={"share": "share"}, caption=PAIRS, shown=12)
    matrix = Matrix("confusion matrix", counts.numpy(), tuple(names), what)
    settings: dict[str, Any] = {"title": "What it gets wrong", "priority": 20} | others
    return Findings("confusions", (errors,), (table, *more), matrices=(matrix,), **settings)


def _pairs(counts: Int[Tensor, "classes classes"], names: Sequence[str], most: int = 100) -> dict[str, list[Any]]:
    """Return the commonest confusions; `share` is of the true class."""
    off = counts - torch.diag(counts.diagonal())
    order = off.flatten().argsort(descending=True, stable=True)[:most].tolist()
    pairs = [divmod(cell, len(counts)) for cell in order if off.flatten()[cell] > 0]
    return {
        "true": [names[t] for t, _ in pairs],
        "predicted": [names[p] for _, p in pairs],
        "count": [int(off[t, p]) for t, p in pairs],
        "share": [ratio(off[t, p], counts[t].sum()) for t, p in pairs],
    }


def renumbered(values: Tensor, own: Sequence[str], theirs: Sequence[str], unknown: int) -> Tensor:
    """Return class numbers by `own` names as numbers by `theirs`; `unknown` where these lack the name."""
    number = {name: i for i, name in enumerate(theirs)}
    table = torch.tensor([number.get(name, unknown) for name in own], dtype=values.dtype)
    known = values != unknown
    return torch.where(known, table[torch.where(known, values, 0).long().clamp(max=len(own) - 1)], unknown)
