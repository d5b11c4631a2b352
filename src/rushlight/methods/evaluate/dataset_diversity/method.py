"""Does more, or more varied, unlabelled data help here? A study of pretraining pools, on your own images.

In a narrow domain one may pretrain on the images of the task itself, on those of related domains too, or not at all.
The paper's three pools (generic, the target's own, all procedures) differ in size and in variety at once, and the
larger ones train longer. Here further pools (`CELLS`, `FURTHER`) tell these apart: each is pretrained by one learner,
from one start, for equally many steps, then fine-tuned end to end, alike, on the target's few labels, over several
seeds; `CONTRASTS` compares them. Test images, and images that look like one, are in no pool.

Jaspers et al., 2024, arXiv:2407.17904; code: TimJaspers0801/SurgeNet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rushlight.core.arguments import Count, Positive, settings
from rushlight.core.card import TARGET, Card, Needs, known
from rushlight.core.errors import UserError, nearest
from rushlight.core.findings import Findings, Kind, Measure, Table, measures
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.sources.read import load
from rushlight.measure.stats import over_seeds
from rushlight.methods.evaluate.dataset_diversity import pools
from rushlight.nets.dense.decoders import FPN
from rushlight.run.budget import Budget, Spent
from rushlight.run.context import Progress, RunContext
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Judge
from rushlight.tasks import scores
from rushlight.train.learner import Batch, Learner

EPOCHS = ", equal epochs"
CELLS = ("start", "target", "few of all", "all")
FURTHER = ("foreign", "few of others", *(f"{pool}{EPOCHS}" for pool in ("target", "few of all", "foreign")))
CONTRASTS = (
    ("target", "start", "Pretraining on the target's own images"),
    ("target", "foreign", "Own images rather than foreign ones"),
    ("few of all", "target", "More varied images, as many"),
    ("all", "few of all", "More images, as varied"),
    ("all", "target", "More and more varied images"),
    ("few of others", "target", "Images of the other domains in place of the target's own"),
    ("target", f"target{EPOCHS}", "More steps on the same images"),
)
METRIC = {"mask": "Dice", "class": "accuracy"}
CARD = Card(
    id="dataset-diversity",
    title="Exploring the Effect of Dataset Diversity in Self-Supervised Learning for Surgical Computer Vision",
    paper="arXiv:2407.17904",
    code="TimJaspers0801/SurgeNet",
    family="evaluate",
    role="judge",
    task=frozenset({"mask", "class"}),
    needs=Needs("image", known(TARGET), known("domain")),
    gives="whether more, or more varied, unlabelled images help on your domain, with intervals",
    says="procedure-specific pretraining over ImageNet: +13.8, +9.5, +36.8 %; more varied surgical data: a further "
    "+5.0, +5.2, +2.5 %",
)


@settings
class DatasetDiversity(Judge):
    """Pools of one domain, of all, and of as few of all, pretrained alike and asked alike."""

    card = CARD
    audits = False

    target: str | None = None
    """The domain in question; None takes the one with most known labels."""
    learner: str = "dino"
    """A recipe that learns without labels."""
    passes: Positive = 40_000
    """The budget of each pretraining in image passes; 0 trains none."""
    tuning: Positive = 10_000
    """Image passes of each fine-tuning."""
    labels: Count | None = None
    """Labelled images of the target to fine-tune on, drawn by the seed; None takes all."""
    seeds: Count = 3
    """How often everything is repeated."""
    cells: Sequence[str] | None = None
    """Which to run, of `CELLS` and `FURTHER`; None takes `CELLS`, with `foreign` where one is given."""
    foreign: Dataset | str | None = None
    """A pool of generic images: data, or what `load` reads."""
    pyramid: Count = 64
    """Channels of the pyramid of the head for masks (the paper: 256)."""
    segment: Count = 32
    """Channels of its segmentation branches (the paper: 128)."""

    def __post_init__(self) -> None:
        self.recipe = Recipe.parse(self.learner)
        self.chosen = tuple(self.cells or (*CELLS, *(["foreign"] if self.foreign is not None else [])))
        for cell in self.chosen:
            if cell not in CELLS + FURTHER:
                raise UserError(f"the study has no cell '{cell}'.{nearest(cell, CELLS + FURTHER)}")
        if self.foreign is None and any(cell.startswith("foreign") for cell in self.chosen):
            raise UserError("the cell 'foreign' needs a pool: foreign='a folder of other images'")

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Pretrain every cell from the model's encoder, fine-tune it on the target's labels, and compare.

        Raises:
            UserError: there are no domains, or too few labels.
        """
        task = _task(data, ctx)
        target = pools.target_of(data, task, self.target)
        data = pools.divided(data, target, task, ctx.seed)
        test = data.select((data["domain"] == target) & (data["fold"] == TEST) & data.known(task))
        runs: list[dict[str, Any]] = []
        for seed in range(ctx.seed, ctx.seed + self.seeds):
            here = RunContext(seed=seed, task=task, device=ctx.device, precision=ctx.precision)
            given = {**pools.pools(data, target, seed), **self._foreign(data)}
            few = pools.labelled(data, target, task, self.labels, seed)
            for cell in self.chosen:
                if ctx.on_progress is not None:
                    ctx.on_progress(Progress(f"{cell}, seed {seed}", len(runs) / (self.seeds * len(self.chosen))))
                start, spent = self._pretrained(cell, given, model, here)
                value, parts = self._asked(start, few, test, here)
                n = 0 if cell == "start" else len(given[cell.removesuffix(EPOCHS)])
                runs.append({"cell": cell, "seed": seed, "images": n, "steps": spent.steps, "passes": spent.passes,
                             METRIC[task]: value, "parts": parts})  # fmt: skip
        about = (
            f"Target '{pools.name_of(data, target)}': {len(few)} labelled images, {len(test)} test images, "
            f"{self.seeds} seeds, {self.recipe}; no test image in a pool. "
            "Intervals cover seeds, not the choice of test images."
        )
        return self._findings(runs, task, data, about)

    def _foreign(self, data: Dataset) -> dict[str, Dataset]:
        if self.foreign is None:
            return {}
        size = (data.height, data.width)
        pool = self.foreign if isinstance(self.foreign, Dataset) else load(self.foreign, size=size)
        return {"foreign": pool.hide()}

    def _pretrained(self, cell: str, given: dict[str, Dataset], model: Model, ctx: RunContext) -> tuple[Model, Spent]:
        if cell == "start" or not self.passes:
            return model, Spent()
        pool = given[cell.removesuffix(EPOCHS)]
        share = len(pool) / len(given["all"]) if cell.endswith(EPOCHS) else 1.0
        there = replace(ctx, task=None, budget=Budget(passes=self.passes * share))
        pretrained = self.recipe.run(pool, model, there)
        return pretrained.model, pretrained.spent

    def _asked(self, model: Model, train: Dataset, test: Dataset, ctx: RunContext) -> tuple[float, list[float]]:
        """Return the metric after fine-tuning; for masks the mean Dice, and that of each class."""
        learner = Tuned(pyramid=self.pyramid, segment=self.segment)
        tuned = learner.run(train, model, replace(ctx, budget=Budget(passes=self.tuning)))
        scored = evaluate(tuned.model, test, ctx.task)
        if ctx.task != "mask":
            return scored.value, []
        each = scores.dice(scored.parts["confusion"].sum(0))
        return float(each[~each.isnan()].mean()), each.tolist()

    def _findings(self, runs: list[dict[str, Any]], task: str, data: Dataset, about: str) -> Findings:
        metric = METRIC[task]
        by_cell = {cell: [run[metric] for run in runs if run["cell"] == cell] for cell in self.chosen}
        means = {f"{cell}: {metric}": sum(values) / len(values) for cell, values in by_cell.items()}
        measured = list(measures(means, "share"))
        gains: list[dict[str, Any]] = []
        for a, b, words in CONTRASTS:
            if a in by_cell and b in by_cell:
                pairs = list(zip(by_cell[a], by_cell[b], strict=True))
                gain, low, high = over_seeds([(x - y) / y if y else math.nan for x, y in pairs])
                points = 100 * sum(x - y for x, y in pairs) / len(pairs)
                gains.append({"what": words, "of": a, "over": b, "gain": gain, "low": low, "high": high,
                              "points": points})  # fmt: skip
                measured.append(Measure(f"{a} over {b}", gain, low, high, kind="share"))
        shown = [{name: value for name, value in run.items() if name != "parts"} for run in runs]
        shares: dict[str, Kind] = dict.fromkeys((metric, "gain", "low", "high"), "share")
        tables = [
            Table.of_rows("runs", shown, kinds=shares),
            Table.of_rows("gains", gains, kinds=shares, intervals={"gain": ("low", "high")}),
        ]
        if task == "mask":
            classes = _per_class(runs, self.chosen, data)
            tables.append(Table.of("classes", classes, kinds=dict.fromkeys(self.chosen, "share")))
        return Findings("dataset-diversity", tuple(measured), tuple(tables), notes=(*map(_sentence, gains), about))


@settings
class Tuned(Learner):
    """Fine-tuning, end to end and alike for every start: a pyramid head for masks, a linear one for classes."""

    card = CARD

    pyramid: Count
    """Channels of the pyramid of the head for masks."""
    segment: Count
    """Channels of its segmentation branches."""

    def build(self, data: Dataset) -> None:
        size, encoder = (data.height, data.width), self.model.encoder
        self.weak, _ = self.task.views(size)
        if self.task.id != "mask":
            super().build(data)
            return
        shape: dict[str, Any] = {
            "channels": encoder.channels,
            "strides": encoder.strides,
            "outputs": self.task.outputs(data),
        }
        self.add_head("mask", FPN(**shape, pyramid=self.pyramid, segment=self.segment))

    def step(self, batch: Batch) -> Tensor:
        labelled = batch["labelled"]
        images, target = self.task.view(self.weak, labelled, self.generator())
        return self.task.loss(self.model.logits(images), target)


def _task(data: Dataset, ctx: RunContext) -> str:
    wanted = [ctx.task] if ctx.task in CARD.task else []
    for task in (*wanted, "mask", "class"):
        if data.known(task).any():
            return task
    raise UserError("the study asks for masks or classes, and none is known: label some images of the target domain")


def _per_class(runs: list[dict[str, Any]], cells: Sequence[str], data: Dataset) -> dict[str, list[Any]]:
    """Return the mean Dice of each class, one column per cell."""
    parts = {cell: torch.tensor([run["parts"] for run in runs if run["cell"] == cell]).nanmean(0) for cell in cells}
    names = data.info.mask_names or data.info.class_names
    labels = [names[i] if i < len(names) else str(i) for i in range(len(runs[0]["parts"]))]
    return {"class": labels, **{cell: values.tolist() for cell, values in parts.items()}}


def _sentence(gain: dict[str, Any]) -> str:
    low, high = gain["low"], gain["high"]
    said = "help" if low > 0 else "hurt" if high < 0 else "show no difference"
    between = f" ({100 * low:+.1f} to {100 * high:+.1f})" if low == low else ""
    said = said if low == low else "were tried with one seed"
    return f"{gain['what']} ({gain['of']} over {gain['over']}): {said}, {100 * gain['gain']:+.1f} %{between}."
