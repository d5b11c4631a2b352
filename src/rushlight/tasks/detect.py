"""Boxes around objects, each with a class.

The head is anchor-free: at each cell of one map it says which class is centred there and where the box's sides are.
Training is TTFNet's (Liu et al., AAAI 2020): a heat map of centres under CornerNet's focal loss, and generalised IoU at
the cells around each centre, weighted by a Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.augment import presets
from rushlight.augment.policy import Policy
from rushlight.augment.view import View
from rushlight.core.distributed import share_of_count
from rushlight.core.errors import UserError
from rushlight.core.files import plain_json, write_whole
from rushlight.core.findings import Findings, Picture
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.losses.detection import area, centre_focal, gaussians, giou, iou
from rushlight.nets.detect.boxes import Boxes
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Head
from rushlight.tasks import coco
from rushlight.tasks.base import (
    Columns,
    Confidence,
    Metric,
    Outputs,
    Parts,
    Task,
    by_class,
    names_of,
    ratio,
    renumbered,
)
from rushlight.tasks.draw import boxes_on
from rushlight.tasks.examples import four_things
from rushlight.tasks.precision import IOUS, Matches, matched

AP, AP50, AP75 = Metric("AP"), Metric("AP50"), Metric("AP75")
SPREAD = 0.54
"""A bump's extent as a share of its box: three standard deviations to each side of the centre."""
MOST = 100
"""Boxes an image, at most, as COCO counts them."""
SAME = 0.6
"""Of two boxes of one class with a greater IoU, the surer one stays."""
AT_ONCE = 256
"""Images whose boxes are matched at once."""
SHOWN, LISTED = 0.3, 0.05
"""Boxes at least so sure are counted and drawn; are written into files."""


class Detect(Task):
    """Predict boxes with their classes."""

    id, column, place, counted = "boxes", "boxes", 3, "boxes"
    names_in = ("box_names", "class_names")
    metric, also = AP, (AP50, AP75)
    confidence_words = ("confidence", "share of boxes that are right")

    def outputs(self, data: Dataset) -> int:
        there = data[self.column][data[self.column][..., 5] > 0]
        return len(self.names(data.info)) or (int(there[:, 4].max()) + 1 if len(there) else 1)

    def presence(self, data: Dataset) -> Bool[Tensor, "rows classes"]:
        boxes, k = data[self.column], self.outputs(data)
        found = torch.zeros(len(data), k + 1, dtype=torch.bool)
        return found.scatter(1, torch.where(boxes[..., 5] > 0, boxes[..., 4].long(), k), True)[:, :k]

    def counts(self, data: Dataset) -> dict[str, list[Any]]:
        """Return a table of how many boxes there are of each class, and how many of them are in test images."""
        boxes, k = data[self.column], self.outputs(data)
        test = data["fold"] == TEST if "fold" in data else torch.zeros(len(data), dtype=torch.bool)
        every, tested = (
            torch.bincount(part[part[..., 5] > 0][:, 4].long(), minlength=k) for part in (boxes, boxes[test])
        )
        return super().counts(data) | {"present": every.tolist(), "in test": tested.tolist()}

    def renumber(self, values: Tensor, own: Sequence[str], theirs: Sequence[str]) -> Tensor:
        """Return the boxes in the other numbers; those of a class without a number are left out."""
        label = renumbered(values[..., 4], own, theirs, -1)
        gone = (label < 0) & (values[..., 5] > 0)
        changed = torch.cat([values[..., :4], label.clamp(min=0)[..., None], values[..., 5:]], -1)
        return changed.masked_fill(gone[..., None], 0)

    # Learning

    def head(self, encoder: Encoder, data: Dataset) -> Head:
        return Boxes(channels=encoder.channels, strides=encoder.strides, outputs=self.outputs(data))

    def views(self, size: tuple[int, int]) -> tuple[Policy, Policy]:
        """Return views that enlarge or shrink by a quarter and mirror; the strong one changes the colours too."""
        scale = (0.8, 1.25)
        return presets.dense_weak(size, scale=scale), presets.dense_strong(size, scale=scale)

    def moved(self, view: View, target: Tensor) -> Tensor:
        return view.boxes(target)

    def loss(
        self, output: Float[Tensor, "batch six_and_classes h w"], target: Float[Tensor, "batch slots 6"]
    ) -> Float[Tensor, ""]:
        """Return the focal loss of the centres plus five times the boxes' 1 − GIoU, per object, of the known images."""
        known = (target[..., 5] >= 0).any(1)
        boxes, at, logits = output[:, :4], output[0, 4:6].detach(), output[:, 6:]
        there, size = target[..., 5] > 0, (target[..., 2:4] - target[..., :2]).clamp(min=1.0)
        bumps = gaussians(at, (target[..., :2] + target[..., 2:4]) / 2, SPREAD * size / 6, there)
        objects = share_of_count(there.sum())
        focal = (centre_focal(logits, heat_of(bumps, target[..., 4].long(), logits.shape[1])) * known).sum() / objects
        weight = owned(bumps, area(target[..., :4]))
        weight = weight / weight.sum((2, 3), keepdim=True).clamp(min=1e-9)
        overlap = giou(boxes.movedim(1, -1)[:, None], target[:, :, None, None, :4])
        return focal + 5 * (weight * (1 - overlap)).sum() / objects

    # Scores

    def parts(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Return the `found` boxes (x1, y1, x2, y2, class, score), the surest first, and the `true` ones."""
        return {"found": decode(outputs[self.id]), "true": columns[self.column]}

    def value(self, parts: Parts, metric: Metric | None = None) -> float:
        """Return COCO's average precision, over IoUs of 0.5 … 0.95, at 0.5, or at 0.75."""
        metric = metric or self.metric
        if not bool((parts["true"][..., 5] > 0).any()):
            raise UserError(f"{metric.name} needs images with boxes to test on: there is none")
        return float(_evaluated(parts).stats[(AP, AP50, AP75).index(metric)])

    def left_out(self, parts: Parts, block: Int[Tensor, "n"], metric: Metric | None = None) -> Float[Tensor, "blocks"]:
        found, true = parts["found"], parts["true"]
        thresholds = {AP50: IOUS[:1], AP75: IOUS[5:6]}.get(metric or self.metric, IOUS)
        matches = Matches.of(
            *(each.numpy() for each in (found[..., 4:], true[..., 4:], hit_at(found, true, thresholds)))
        )
        return torch.from_numpy(matches.left_out(block.numpy()))

    def confidence(
        self, outputs: Outputs, columns: Columns, generator: torch.Generator | None = None
    ) -> Confidence | None:
        """Return the score of each box that is at least 5 % sure, and whether it is right (an IoU of 0.5)."""
        found = decode(outputs[self.id]).cpu()
        right = hits(found, columns[self.column].cpu())
        told = found[..., 5] >= LISTED
        p, y = found[..., 5][told].double(), right[told]
        of_truth = torch.where(y, p, 1 - p).clamp(min=1e-12)
        return Confidence(p, y, -of_truth.log(), (p - y.double()).square())

    def findings(
        self, parts: Parts, data: Dataset, rows: Int[Tensor, "n"], names: Sequence[str] = ()
    ) -> list[Findings]:
        evaluated, right = _evaluated(parts), hits(parts["found"], parts["true"])
        found, true = parts["found"], parts["true"]
        there, said = true[..., 5] > 0, found[..., 5] >= SHOWN
        k = int(max(true[..., 4].max(), found[..., 4].max())) + 1
        names = names or self.names(data.info)
        names = (*names, *map(str, range(len(names), k)))
        precision = evaluated.eval["precision"][..., 0, -1]  # IoU × recall × class
        table: dict[str, list[Any]] = {
            "class": list(names),
            "boxes": [int((there & (true[..., 4] == i)).sum()) for i in range(len(names))],
            "AP": [_mean(precision, i, slice(None), evaluated) for i in range(len(names))],
            "AP50": [_mean(precision, i, slice(1), evaluated) for i in range(len(names))],
            "recall": [ratio((right & said & (found[..., 4] == i)).sum(), (there & (true[..., 4] == i)).sum())
                       for i in range(len(names))],
            "precision": [ratio((right & said & (found[..., 4] == i)).sum(), (said & (found[..., 4] == i)).sum())
                          for i in range(len(names))],
        }  # fmt: skip
        return [by_class(table, CAPTION)]

    def worst(self, parts: Parts) -> Int[Tensor, "n"]:
        """Return the images with the lowest F1 first (boxes of a score of 0.3, an IoU of 0.5)."""
        said = parts["found"][..., 5] >= SHOWN
        right = (hits(parts["found"], parts["true"]) & said).sum(1)
        both = said.sum(1) + (parts["true"][..., 5] > 0).sum(1)
        return torch.where(both > 0, 2 * right / both.clamp(min=1), 1.0).argsort(stable=True)

    def pictures(self, outputs: Outputs, columns: Columns, info: Any) -> list[Picture]:
        """Return each image with the predicted boxes in their classes' colours and the true ones in white."""
        found, images = decode(outputs[self.id]).cpu(), columns["image"].cpu()
        true = columns[self.column].cpu() if self.column in columns.keys() else torch.zeros(len(images), 0, 6)  # noqa: SIM118
        return [self._picture(*one, info) for one in zip(images, found, true, strict=True)]

    def _picture(self, image: Tensor, found: Tensor, true: Tensor, info: Any) -> Picture:
        kept, names = found[found[:, 5] >= SHOWN], self.names(info)
        image = boxes_on(image, true[true[:, 5] > 0][:, :4], None)
        image = boxes_on(image, kept[:, :4], kept[:, 4].long())
        labels = [names[int(i)] if int(i) < len(names) else str(int(i)) for i in kept[:, 4]]
        lines = tuple(f"{label}, {100 * p:.0f} %" for label, p in zip(labels, kept[:, 5].tolist(), strict=True))
        return Picture(image.movedim(0, -1).numpy(), "", lines[:4])

    # Predictions

    def table(self, outputs: Outputs, info: Any) -> dict[str, Any]:
        """Return how many boxes of each class are at least 30 % sure, and the highest score."""
        found, k = decode(outputs[self.id]), outputs[self.id].shape[1] - 6
        said = found[..., 5] >= SHOWN
        names = self.labelled(self.names(info), k)
        counted = {f"boxes of {n}": (said & (found[..., 4] == i)).sum(1).numpy() for i, n in enumerate(names)}
        return {"boxes": said.sum(1).numpy(), "highest score": found[..., 5].amax(1).numpy(), **counted}

    def write(
        self, batches: Iterable[tuple[Int[Tensor, "n"], Outputs]], data: Dataset, folder: Path, info: Any
    ) -> list[Path]:
        """Write `predictions.json`, in COCO's form, with the boxes that are at least 5 % sure and their scores."""
        images, annotations, k = [], [], 1
        for rows, outputs in batches:
            k = outputs[self.id].shape[1] - 6
            for row, name, found in zip(
                rows.tolist(), names_of(data, rows), decode(outputs[self.id]).cpu(), strict=True
            ):
                images.append(coco.image(data, row, name))
                annotations += coco.boxes(data, row, found[found[:, 5] >= LISTED])
        names = self.labelled(self.names(info), k)
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
        path = Path(folder) / coco.FILE
        write_whole(path, plain_json(coco.dataset(images, annotations, categories), indent=None))
        return [path]

    def example(self) -> Dataset:
        """Return 300 training and 100 test scenes of one to three of four things."""
        return four_things(self.column)


CAPTION = (
    "AP: COCO's average precision, over IoUs of 0.5 to 0.95. Recall and precision: of boxes with a score of 0.3, "
    "at an IoU of 0.5."
)


def heat_of(
    bumps: Float[Tensor, "batch slots h w"], label: Int[Tensor, "batch slots"], classes: int
) -> Float[Tensor, "batch classes h w"]:
    """Return each class's heat map: the highest of its objects' bumps."""
    heat = bumps.new_zeros(len(bumps), classes, *bumps.shape[-2:])
    index = label.clamp(0, classes - 1)[..., None, None].expand_as(bumps)
    return heat.scatter_reduce(1, index, bumps, "amax")


def owned(
    bumps: Float[Tensor, "batch slots h w"], size: Float[Tensor, "batch slots"], floor: float = 0.01
) -> Float[Tensor, "batch slots h w"]:
    """Return the bumps where they are above a floor, each cell being left to the smallest object that covers it."""
    covers = bumps > floor
    ranked = torch.where(covers, size[..., None, None], torch.inf)
    return bumps * (
        covers & (torch.arange(bumps.shape[1], device=bumps.device)[:, None, None] == ranked.argmin(1, True))
    )


def decode(output: Float[Tensor, "batch six_and_classes h w"]) -> Float[Tensor, "batch most 6"]:
    """Return the boxes (x1, y1, x2, y2, class, score) at the peaks of the heat maps, the surest first.

    Of boxes of one class that overlap, the surest stays; empty places are 0.
    """
    heat = output[:, 6:].sigmoid()
    peaks = heat * (torch.nn.functional.max_pool2d(heat, 3, 1, 1) == heat)
    score, place = peaks.flatten(1).topk(min(MOST, peaks[0].numel()))
    cells = heat.shape[2] * heat.shape[3]
    label, cell = place // cells, place % cells
    boxes = output[:, :4].flatten(2).gather(2, cell[:, None].expand(-1, 4, -1)).mT
    score = score * unsuppressed(boxes, label)
    found = torch.cat([boxes, label[..., None], score[..., None]], 2)
    found = found.gather(1, score.argsort(dim=1, descending=True, stable=True)[..., None].expand_as(found))
    found = found * (found[..., 5:] > 0)
    return torch.nn.functional.pad(found, (0, 0, 0, MOST - found.shape[1]))


def unsuppressed(
    boxes: Float[Tensor, "batch n 4"], label: Int[Tensor, "batch n"], same: float = SAME
) -> Bool[Tensor, "batch n"]:
    """Return which boxes, sorted by their scores, overlap no surer box of their class that is kept."""
    overlap = (iou(boxes[:, :, None], boxes[:, None]) > same) & (label[:, :, None] == label[:, None])
    stays = torch.ones_like(label, dtype=torch.bool)
    for i in range(1, boxes.shape[1]):
        stays[:, i] = ~(overlap[:, i, :i] & stays[:, :i]).any(1)
    return stays


def hits(found: Float[Tensor, "n boxes 6"], true: Float[Tensor, "n slots 6"]) -> Bool[Tensor, "n boxes"]:
    """Return which boxes are right: the surest first, each takes the free true box of its class that it overlaps most,
    with an IoU of 0.5 at least."""
    return hit_at(found, true, IOUS[:1])[..., 0]


def hit_at(
    found: Float[Tensor, "n boxes 6"], true: Float[Tensor, "n slots 6"], thresholds: Float[np.ndarray, "t"]
) -> Bool[Tensor, "n boxes t"]:
    """Return which boxes, the surest first, match a true box of their class at each threshold of IoU."""
    answers = [_hit_at(*one, thresholds) for one in zip(found.split(AT_ONCE), true.split(AT_ONCE), strict=True)]
    return torch.cat(answers) if answers else torch.zeros(*found.shape[:2], len(thresholds), dtype=torch.bool)


def _hit_at(found: Tensor, true: Tensor, thresholds: np.ndarray) -> Bool[Tensor, "n boxes t"]:
    same = (found[..., 4][:, :, None] == true[..., 4][:, None]) & (found[..., 5] > 0)[:, :, None]
    overlap = iou(found[:, :, None, :4].double(), true[:, None, :, :4].double())
    overlap = torch.where(same & (true[..., 5] > 0)[:, None], overlap, -1.0)
    return torch.from_numpy(matched(overlap.numpy(), thresholds)).movedim(1, -1)


def _evaluated(parts: Parts) -> Any:
    """Return faster-coco-eval's evaluation of boxes."""
    true, found = parts["true"].double().numpy(), parts["found"].double().numpy()
    k = int(max(true[..., 4].max(initial=0), found[..., 4].max(initial=0))) + 1
    images, truth, guesses = [], [], []
    for row in range(len(true)):
        images.append({"id": row + 1, "file_name": str(row), "width": 1, "height": 1})
        truth += [_entry(row, box) for box in true[row] if box[5] > 0]
        guesses += [_entry(row, box) | {"score": float(box[5])} for box in found[row] if box[5] > 0]
    return coco.evaluated(images, truth, guesses, [{"id": i + 1, "name": str(i)} for i in range(k)], "bbox")


def _entry(row: int, box: np.ndarray) -> dict[str, Any]:
    x1, y1, x2, y2, label, _ = map(float, box)
    sides = (x2 - x1, y2 - y1)
    return {"image_id": row + 1, "category_id": int(label) + 1, "bbox": [x1, y1, *sides], "area": sides[0] * sides[1]}


def _mean(precision: np.ndarray, label: int, ious: slice, evaluated: Any) -> float:
    """Return a class's average precision; NaN where no true box has it."""
    if label >= precision.shape[2]:
        return float("nan")
    values = precision[ious, :, label]
    return float(values[values > -1].mean()) if (values > -1).any() else float("nan")
