"""ReLabel: turn one label an image into a map of labels, from which each crop gets its own.

An image with one label often shows other things too, and a random crop of it may show only these. An annotator (a
classifier whose head is pool → linear) knows more: the same linear map on each cell of its last feature map tells what
stands where. Each image passes once, whole; the k best scores of each cell are stored, and the learner that follows
pools a crop's target from them. The annotator is the model that comes in, if it has a class head, or is trained here.

Yun et al., 2021, arXiv:2101.05022; code: naver-ai/relabel_imagenet.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from rushlight.augment import presets
from rushlight.core.arguments import Count, Positive, settings
from rushlight.core.card import Card, Needs, known
from rushlight.core.errors import UserError
from rushlight.data.columns import unknown
from rushlight.data.dataset import Dataset
from rushlight.losses import label_map, supervised
from rushlight.nets.heads import Linear
from rushlight.run.budget import Clock, Spent, count_flops, pass_flops
from rushlight.run.model import Model
from rushlight.run.stage import Outcome, RunContext, Stage
from rushlight.train.learner import Batch, Learner

SHARP = 1e6
"""Scores times this have a softmax that is their best class alone, after any pooling."""

CARD = Card(
    id="relabel",
    title="Re-labeling ImageNet: from Single to Multi-Labels, from Global to Localized Labels",
    paper="arXiv:2101.05022",
    code="naver-ai/relabel_imagenet",
    family="curate",
    role="curator",
    task=frozenset({"class"}),
    needs=Needs("image", known("class")),
    gives="label maps, from which a learner after it reads each crop's target",
    says="ImageNet, ResNet-50: 77.5 → 78.9 % top-1 with label maps, 80.2 % with CutMix too",
)


@settings
class ReLabel(Stage):
    """Localised multi-label maps from a classifier; the learner that follows pools its targets from them."""

    card = CARD

    k: Count = 5
    """Scores kept at each cell."""
    cells: Count = 15
    """Most rows (and columns) of a map; a finer feature map is first averaged in blocks."""
    multi: bool = True
    """Soft targets of several classes; else the best class alone."""
    localised: bool = True
    """A target for each crop; else the image's for all of them."""
    unlabelled: bool = True
    """Map the images without a label too; else those with a known class only."""
    annotator: Literal["auto", "given", "own"] = "auto"
    """`given`: the model that comes in, at no cost; `own`: one trained here; `auto`: the given one if it can."""
    batch: Count = 64
    """Labelled images a step, of an own annotator's training."""
    learning_rate: Positive = 2e-3
    """Of an own annotator's training."""

    def __post_init__(self) -> None:
        self.spends = self.annotator != "given"

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Return the data with label maps, and the annotator."""
        lacks = self.card.lacks(data, ctx.task)
        if lacks:
            raise UserError(f"'relabel' does not fit this data: it {lacks}")
        cost = pass_flops(model.encoder, (data.height, data.width))
        annotator = self._annotator(data, model, ctx)
        with Clock() as clock:
            mapped, flops = self._map(data, annotator.model.copy().to(ctx.device).eval())
        paid = annotator.spent + Spent(flops / cost, flops, 0, clock.seconds)
        return Outcome(mapped, annotator.model, paid, notes=annotator.notes)

    def _annotator(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        has_head = "class" in model.head_names
        if self.annotator == "given" and not has_head:
            raise UserError("relabel has no annotator: put a classifier before it, 'supervised > relabel > …'")
        if has_head and self.annotator != "own":
            return Outcome(data, model)
        learner = Annotator(batch=self.batch, learning_rate=self.learning_rate)
        return ctx.substage("annotator", share=self._share(ctx, len(data)), curve=False).run(learner, data, model)

    @staticmethod
    def _share(ctx: RunContext, images: int) -> float:
        """Return the annotator's part of the budget; the maps take the rest (a forward is about a third of a pass)."""
        if ctx.budget.passes is None:
            return 0.9
        return max(1 - images / 3 / ctx.budget.passes, 0.5)

    def _map(self, data: Dataset, annotator: Model) -> tuple[Dataset, float]:
        """Return the data with the two columns of a label map, and the FLOPs this took."""
        rows = torch.arange(len(data)) if self.unlabelled else data.known("class").nonzero().squeeze(1)
        linear = _linear(annotator, data.read("image", rows[:8]))
        flops, parts = 0.0, []
        for part in rows.split(256):
            if not flops:
                flops = count_flops(lambda: self._scores(annotator, linear, data.read("image", rows[:2]))) / 2
            scores = self._scores(annotator, linear, data.read("image", part))
            parts.append([tensor.cpu() for tensor in label_map.sparsify(scores, k=self.k)])
        values, ids = (torch.cat(column) for column in zip(*parts, strict=True))
        columns = {
            "label_map_values": torch.zeros(len(data), *values.shape[1:]),
            "label_map_ids": unknown("label_map_ids", len(data), *ids.shape[1:]),
        }
        columns["label_map_values"][rows], columns["label_map_ids"][rows] = values, ids
        return data.with_columns(**columns), flops * len(rows)

    @torch.no_grad()
    def _scores(
        self, annotator: Model, linear: torch.nn.Linear, images: UInt8[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes h w"]:
        maps = annotator.encoder.maps(images.to(linear.weight.device).float() / 255)
        block = -(-max(maps.shape[-2:]) // self.cells) if self.localised else maps.shape[-2:]
        if block != 1:
            maps = F.avg_pool2d(maps, block, ceil_mode=True, count_include_pad=False)
        scores = label_map.class_map(maps, linear.weight, linear.bias)  # S = W F + b
        return scores if self.multi else scores * SHARP


def _linear(annotator: Model, images: UInt8[Tensor, "n 3 height width"]) -> torch.nn.Linear:
    """Return the annotator's last layer.

    Raises:
        UserError: its head is not one linear layer on features pooled by the mean, so it has no map.
    """
    head = annotator.head("class")
    if isinstance(head, Linear):
        with torch.no_grad():
            seen = images.to(head.linear.weight.device).float() / 255
            pooled, maps = annotator.encoder(seen), annotator.encoder.maps(seen)
        if torch.allclose(pooled, maps.mean((2, 3)), rtol=1e-3, atol=1e-4 * float(pooled.abs().max())):
            return head.linear
    raise UserError(
        f"relabel needs an annotator that pools its last map by the mean into one linear layer; this one "
        f"({annotator.encoder.name} with {type(head).__name__}) does not: use conv16 or a ResNet with 'supervised'"
    )


@settings
class Annotator(Learner):
    """A plain classifier of weak views, for data that come without one."""

    card = CARD

    batch: Count
    """Labelled images a step."""
    learning_rate: Positive
    """Of AdamW, at its peak."""

    def build(self, data: Dataset) -> None:
        super().build(data)
        self.weak = presets.weak((data.height, data.width))

    def step(self, batch: Batch) -> Tensor:
        labelled = batch["labelled"]
        logits = self.model.logits(self.weak(labelled["image"], generator=self.generator()))
        return supervised.classes(logits, labelled["class"])
