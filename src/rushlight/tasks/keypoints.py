"""Keypoints of one or several instances an image.

The head is CenterNet's (Zhou, Wang, Krähenbühl, 2019): a heat map says where instances are centred, each centre points
to its joints, and a heat map of each joint corrects where it pointed. Peaks are found between cells by fitting a
Gaussian to three of them, as DARK does (Zhang et al., CVPR 2020).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from rushlight.augment.policy import Policy
from rushlight.augment.presets import weak
from rushlight.augment.view import View
from rushlight.core.distributed import share_of_count
from rushlight.core.errors import UserError
from rushlight.core.files import plain_json, write_whole
from rushlight.core.findings import Findings, Picture
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import figures
from rushlight.losses.detection import centre_focal, gaussians
from rushlight.nets.detect.joints import Joints
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Head
from rushlight.tasks import coco
from rushlight.tasks.base import Columns, Metric, Outputs, Parts, Task, by_class, names_of, ratio
from rushlight.tasks.draw import dots_on, lines_on

PCK, OKS = Metric("PCK@0.2"), Metric("OKS-AP")
NEAR = 0.2
"""A joint is found within so many sides of its instance's box."""
SIGMAS = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
"""Of COCO's 17 joints, in thousandths; other skeletons take their mean, 0.067, for each joint."""
AREA = 0.53
"""An instance's area as a share of its box's: COCO measures outlines, which these labels lack."""
MOST = 20
"""Instances an image, at most, as COCO counts them."""
SMALLEST = 1 / 8
"""The least side of an instance's box, in sides of the image, where a single labelled joint gives none."""
SHOWN, LISTED = 0.3, 0.05
"""Instances at least so sure are counted and drawn; are written into files."""
SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])")
HEAT = 0.1
"""A joint's heat below which the place stands to which the instance's centre pointed."""


class Keypoints(Task):
    """Predict the keypoints of each instance."""

    id, column, noun, counted = "keypoints", "keypoints", "joint", "joints"
    place = 1.5  # before masks and boxes, which a COCO file of keypoints holds too
    reads = ("boxes",)
    names_in = ("keypoint_names",)
    metric, also = PCK, (OKS,)
    pairs: tuple[tuple[int, int], ...] = ()

    def outputs(self, data: Dataset) -> int:
        return data[self.column].shape[2]

    def presence(self, data: Dataset) -> Bool[Tensor, "rows joints"]:
        return (data[self.column][..., 2] > 0).any(1)

    def renumber(self, values: Tensor, own: Sequence[str], theirs: Sequence[str]) -> Tensor:
        place = {name: i for i, name in enumerate(own)}
        empty = torch.zeros_like(values[:, :, 0]).where(values[:, :, 0] >= 0, values[:, :, 0])
        return torch.stack([values[:, :, place[name]] if name in place else empty for name in theirs], 2)

    def align(self, data: Dataset, info: Any) -> tuple[Dataset, tuple[str, ...]]:
        aligned, notes = super().align(data, info)
        if aligned is data:
            return data, notes
        pairs = data.info.keypoint_pairs
        number = [aligned.info.keypoint_names.index(name) if name in aligned.info.keypoint_names else -1
                  for name in data.info.keypoint_names]  # fmt: skip
        skeleton, moved = (tuple((number[a], number[b]) for a, b in lines if min(number[a], number[b]) >= 0)
                           for lines in (data.info.keypoint_skeleton, pairs or ()))  # fmt: skip
        changed = {"keypoint_skeleton": skeleton, "keypoint_pairs": None if pairs is None else moved}
        return aligned.with_info(**changed), notes

    # Learning

    def of(self, info: Any) -> Keypoints:
        bound = copy.copy(self)
        bound.pairs = pairs_by_name(info.keypoint_names) if info.keypoint_pairs is None else info.keypoint_pairs
        return bound

    def head(self, encoder: Encoder, data: Dataset) -> Head:
        return Joints(channels=encoder.channels, strides=encoder.strides, joints=self.outputs(data))

    def views(self, size: tuple[int, int]) -> tuple[Policy, Policy]:
        """Return views that turn, enlarge and shift, and mirror where pairs of joints are known; the strong one changes
        the colours too."""
        shaken = weak(size, flip=bool(self.pairs))
        first = replace(shaken, rotation=20.0, scale=(0.8, 1.25), padding="zeros")
        return first, replace(first, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)

    def moved(self, view: View, target: Tensor) -> Tensor:
        """Return the joints as they are in a view; in a mirrored one left and right joints change places."""
        moved, order = view.keypoints(target), list(range(target.shape[2]))
        for one, other in self.pairs:
            order[one], order[other] = other, one
        return torch.where(view.flipped[:, None, None, None], moved[:, :, order], moved)

    def loss(
        self, output: Float[Tensor, "batch channels h w"], target: Float[Tensor, "batch slots joints 3"]
    ) -> Float[Tensor, ""]:
        """Return the focal losses of the centres and of the joints, per instance and per joint, plus the distance
        between where a centre points and its joints, in sides of the instance; over the known images."""
        at, centre, places, heat = split(output)
        known, labelled = (target[..., 2] >= 0).flatten(1).any(1), target[..., 2] > 0
        there, middle, side = instances(target, floor=at.max() * SMALLEST)
        sigma = torch.maximum(0.1 * side, step(at) / 2)
        bumps = gaussians(at, middle, sigma[..., None].expand(-1, -1, 2), there)
        points, told = target[..., :2].flatten(1, 2), labelled.flatten(1)
        joints = gaussians(at, points, step(at).expand(*told.shape, 2), told)
        wanted = joints.unflatten(1, labelled.shape[1:]).amax(1)
        of_centres = (centre_focal(centre, bumps.amax(1, keepdim=True)) * known).sum() / share_of_count(there.sum())
        of_joints = (centre_focal(heat, wanted) * known).sum() / share_of_count(labelled.sum())
        return of_centres + of_joints + 5 * self._pointing(places, bumps, target, side)

    def _pointing(self, places: Tensor, bumps: Tensor, target: Tensor, side: Tensor) -> Float[Tensor, ""]:
        """Return the mean distance (L1, in sides) of joints from where the cells around their centre point."""
        labelled = target[..., 2] > 0
        weight = bumps * (bumps > 0.1)
        weight = weight / weight.sum((2, 3), keepdim=True).clamp(min=1e-9)
        apart = places[:, None] - target[..., :2, None, None]  # batch × slots × joints × 2 × h × w
        apart = apart.abs().sum(3) / side[..., None, None, None]
        mean = (apart * weight[:, :, None]).sum((3, 4))
        return (mean * labelled).sum() / share_of_count(labelled.sum())

    # Scores

    def parts(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Return the `found` joints and `scores` of instances, the `true` joints, and true boxes' `side` and `area`."""
        found, scores = decode(outputs[self.id])
        true = columns[self.column]
        boxes = columns["boxes"] if "boxes" in columns.keys() else None  # noqa: SIM118
        side, area = extents(true, boxes, floor=outputs[self.id][:, :2].amax() * SMALLEST)
        return {"found": found, "scores": scores, "true": true, "side": side, "area": area}

    def value(self, parts: Parts, metric: Metric | None = None) -> float:
        """Return the share of labelled joints that are found, or COCO's average precision."""
        metric = metric or self.metric
        if not bool((parts["true"][..., 2] > 0).any()):
            raise UserError(f"{metric.name} needs images with labelled keypoints to test on: there is none")
        if metric == OKS:
            return float(_evaluated(parts).stats[0])
        near, labelled = nearby(parts)
        return ratio(near.sum(), labelled.sum())

    def left_out(self, parts: Parts, block: Int[Tensor, "n"], metric: Metric | None = None) -> Float[Tensor, "blocks"]:
        if (metric or self.metric) != PCK:
            return super().left_out(parts, block, metric)
        near, labelled = (each.sum((1, 2)).double() for each in nearby(parts))
        near, labelled = (each.sum() - block.bincount(each) for each in (near, labelled))
        return near / labelled  # NaN where nothing is labelled

    def findings(
        self, parts: Parts, data: Dataset, rows: Int[Tensor, "n"], names: Sequence[str] = ()
    ) -> list[Findings]:
        near, labelled = (each.sum((0, 1)) for each in nearby(parts))
        names = self.labelled(names or self.names(data.info), len(near))
        table = {
            "joint": list(names),
            "labelled": labelled.tolist(),
            "recall": [ratio(*one) for one in zip(near, labelled)],
        }
        return [by_class(table, CAPTION)]

    def worst(self, parts: Parts) -> Int[Tensor, "n"]:
        """Return the images with the smallest share of joints found first."""
        near, labelled = (each.sum((1, 2)) for each in nearby(parts))
        return torch.where(labelled > 0, near / labelled.clamp(min=1), 1.0).argsort(stable=True)

    def pictures(self, outputs: Outputs, columns: Columns, info: Any) -> list[Picture]:
        """Return each image with the predicted joints in colours, the skeleton's lines between them, and a white dot
        for each true joint."""
        (found, scores), images = decode(outputs[self.id]), columns["image"].cpu()
        known = self.column in columns.keys()  # noqa: SIM118
        true = columns[self.column].cpu() if known else torch.zeros(len(images), 0, found.shape[2], 3)
        lines = skeleton_of(info)
        return [_picture(*one, lines) for one in zip(images, found.cpu(), scores.cpu(), true, strict=True)]

    # Predictions

    def table(self, outputs: Outputs, info: Any) -> dict[str, Any]:
        """Return how many instances are at least 30 % sure, and where the joints of the surest one are, in pixels."""
        found, scores = decode(outputs[self.id])
        names = self.labelled(self.names(info), found.shape[2])
        places = {f"{axis} of {name}": found[:, 0, i, place].numpy()
                  for i, name in enumerate(names) for place, axis in enumerate("xy")}  # fmt: skip
        return {"instances": (scores >= SHOWN).sum(1).numpy(), "highest score": scores[:, 0].numpy(), **places}

    def write(
        self, batches: Iterable[tuple[Int[Tensor, "n"], Outputs]], data: Dataset, folder: Path, info: Any
    ) -> list[Path]:
        """Write `predictions.json`, in COCO's form, with the instances that are at least 5 % sure and their scores."""
        images, annotations, k = [], [], 1
        for rows, outputs in batches:
            found, scores = (each.cpu() for each in decode(outputs[self.id]))
            k = found.shape[2]
            for at, (row, name) in enumerate(zip(rows.tolist(), names_of(data, rows), strict=True)):
                images.append(coco.image(data, row, name))
                told = scores[at] >= LISTED
                annotations += [_annotation(data, row, *one) for one in zip(found[at, told], scores[at, told].tolist())]
        kind = next(iter(getattr(info, "box_names", ())), "object")
        names = self.labelled(self.names(info), k)
        skeleton = [[one + 1, other + 1] for one, other in skeleton_of(info)]
        categories = [{"id": 1, "name": kind, "keypoints": list(names), "skeleton": skeleton}]
        path = Path(folder) / coco.FILE
        write_whole(path, plain_json(coco.dataset(images, annotations, categories), indent=None))
        return [path]

    def example(self) -> Dataset:
        """Return 300 training and 100 test images of one stick figure."""
        return figures.compose(300, 100)


CAPTION = "Recall: the share of labelled joints that are found within a fifth of the longer side of the instance's box."


# --- the labels ---


def pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the numbers of joints that are called alike but for `left` and `right` (`left_eye`, `Right knee`)."""
    place = {name.lower(): number for number, name in enumerate(names)}
    mirrored = {name: SIDE.sub(lambda side: "right" if side[0] == "left" else "left", name) for name in place}
    return tuple((place[name], place[other]) for name, other in mirrored.items()
                 if other in place and place[name] < place[other])  # fmt: skip


def skeleton_of(info: Any) -> tuple[tuple[int, int], ...]:
    """Return the lines between joints, from an `Info` or a `ModelInfo`."""
    return info.skeleton if hasattr(info, "skeleton") else info.keypoint_skeleton


def instances(
    target: Float[Tensor, "batch slots joints 3"], *, floor: Tensor
) -> tuple[Bool[Tensor, "batch slots"], Float[Tensor, "batch slots 2"], Float[Tensor, "batch slots"]]:
    """Return which instances have labelled joints, and the centre and longer side of the box around these joints."""
    labelled = (target[..., 2] > 0)[..., None]
    low = torch.where(labelled, target[..., :2], torch.inf).amin(2)
    high = torch.where(labelled, target[..., :2], -torch.inf).amax(2)
    there = labelled.any(2)
    low, high = torch.where(there, low, 0), torch.where(there, high, 0)
    return there[..., 0], (low + high) / 2, (high - low).amax(-1).clamp(min=floor)


def extents(
    true: Float[Tensor, "n slots joints 3"], boxes: Float[Tensor, "n slots 6"] | None, *, floor: Tensor
) -> tuple[Float[Tensor, "n slots"], Float[Tensor, "n slots"]]:
    """Return the longer side and the area of each instance: of its labelled box, else of the box around its joints."""
    _, _, side = instances(true, floor=floor)
    labelled = (true[..., 2] > 0)[..., None]
    low = torch.where(labelled, true[..., :2], torch.inf).amin(2)
    high = torch.where(labelled, true[..., :2], -torch.inf).amax(2)
    size = (high - low).clamp(min=floor)
    if boxes is not None and boxes.shape[:2] == true.shape[:2]:
        told = (boxes[..., 5] > 0)[..., None]
        size = torch.where(told, boxes[..., 2:4] - boxes[..., :2], size)
        side = torch.where(told[..., 0], size.amax(-1), side)
    return side, AREA * size.prod(-1)


def sigmas(joints: int) -> Float[np.ndarray, " joints"]:
    """Return how far each joint may be off: COCO's for 17 joints, else one for all."""
    coco17 = np.array(SIGMAS) / 1000
    return coco17 if joints == len(coco17) else np.full(joints, coco17.mean())


# --- from maps to instances ---


def split(output: Float[Tensor, "batch channels h w"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the cells' centres (2×h×w), centre logits, places pointed to (batch×K×2×h×w), and heat logits."""
    joints = (output.shape[1] - 3) // 3
    places = output[:, 3 : 3 + 2 * joints].unflatten(1, (joints, 2))
    return output[0, :2].detach(), output[:, 2:3], places, output[:, 3 + 2 * joints :]


def step(at: Float[Tensor, "2 h w"]) -> Float[Tensor, ""]:
    """Return the distance of neighbouring cells, in pixels."""
    return 2 * at[0, 0, 0]


def decode(
    output: Float[Tensor, "batch channels h w"],
) -> tuple[Float[Tensor, "batch instances joints 3"], Float[Tensor, "batch instances"]]:
    """Return each instance's joints (x, y, score), the surest instance first, and the instances' scores.

    Of the heat near where an instance's centre points (a Gaussian of a quarter of the instance), the highest place is
    the joint; where there is no heat, the place pointed to stands.
    """
    at, centre, places, _ = split(output)
    p = centre.sigmoid()
    peaks = (p * (F.max_pool2d(p, 3, 1, 1) == p)).flatten(1)
    scores, cell = peaks.topk(min(MOST, peaks.shape[1]))
    index = cell[:, None, None].expand(-1, *places.shape[1:3], -1)
    pointed = places.flatten(3).gather(3, index).movedim(3, 1)  # batch × instances × joints × 2
    found = torch.cat([_corrected(*one, at) for one in zip(output.split(1), pointed.split(1), strict=True)])
    missing = MOST - scores.shape[1]
    return F.pad(found, (0, 0, 0, 0, 0, missing)), F.pad(scores, (0, missing))


def _corrected(output: Tensor, pointed: Float[Tensor, "1 instances joints 2"], at: Tensor) -> Tensor:
    logits = split(output)[3]
    heat = logits.sigmoid()[:, None]  # 1 × 1 × joints × h × w
    spread = (0.25 * (pointed.amax(2) - pointed.amin(2)).amax(-1)).clamp(min=step(at))[..., None, None, None]
    apart = ((at - pointed[..., None, None]) ** 2).sum(3)
    near = heat * (-apart / (2 * spread**2)).exp()
    best = near.flatten(3).argmax(3)
    height = heat.expand_as(near).flatten(3).gather(3, best[..., None])[..., 0]
    refined = between_cells(F.logsigmoid(logits), best, at)
    place = torch.where(height[..., None] >= HEAT, refined, pointed)
    return torch.cat([place, height[..., None]], -1)


def between_cells(
    log_heat: Float[Tensor, "1 joints h w"], best: Int[Tensor, "1 instances joints"], at: Float[Tensor, "2 h w"]
) -> Float[Tensor, "1 instances joints 2"]:
    """Return the summits of the Gaussians through the highest cells and their neighbours (x, y in pixels).

    With l the logarithm, the summit lies off the cell by (l₋ − l₊) / (2 (l₋ − 2 l₀ + l₊)), at most half a cell.
    """
    width, height = log_heat.shape[3], log_heat.shape[2]
    y, x = best // width, best % width
    flat = log_heat.flatten(2)[0]  # joints × cells

    def value(dy: int, dx: int) -> Tensor:
        place = (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1)
        return flat.gather(1, place[0].T).T[None]

    shifts = []
    for (dy, dx), inside in (((0, 1), (x > 0) & (x < width - 1)), ((1, 0), (y > 0) & (y < height - 1))):
        before, here, after = value(-dy, -dx), value(0, 0), value(dy, dx)
        bend = (before - 2 * here + after).clamp(max=-1e-6)
        shifts.append(torch.where(inside, ((before - after) / (2 * bend)).clamp(-0.5, 0.5), 0.0))
    centre = at.flatten(1)[:, best].movedim(0, -1)
    return centre + step(at) * torch.stack(shifts, -1)


# --- scores ---


def similarity(
    found: Float[Tensor, "found joints 3"], true: Float[Tensor, "true joints 3"], area: Float[Tensor, "true"]
) -> Float[np.ndarray, "found true"]:
    """Return COCO's object keypoint similarity: the mean over labelled joints of exp(−d² / (2 area (2σ)²))."""
    variance = torch.from_numpy((2 * sigmas(true.shape[1])) ** 2)
    labelled = true[..., 2] > 0
    squared = ((found[:, None, :, :2] - true[None, :, :, :2]).double() ** 2).sum(-1)
    near = (-squared / variance / area[None, :, None].double().clamp(min=1e-9) / 2).exp()
    return ((near * labelled).sum(-1) / labelled.sum(-1).clamp(min=1)).numpy()


def nearby(parts: Parts) -> tuple[Bool[Tensor, "n slots joints"], Bool[Tensor, "n slots joints"]]:
    """Return which labelled joints are found, and which are labelled.

    Each true instance is given one found instance: the surest first, each takes the free one that it is most similar
    to. A joint is found within a fifth of the longer side of its instance's box.
    """
    true, labelled = parts["true"], parts["true"][..., 2] > 0
    near = torch.zeros_like(labelled)
    for row, slots, found in _paired(parts):
        apart = (parts["found"][row, found, :, :2] - true[row, slots, :, :2]).norm(dim=-1)
        near[row, slots] = (apart <= NEAR * parts["side"][row, slots, None]) & labelled[row, slots]
    return near, labelled


def _paired(parts: Parts) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield, image by image, true instances and the found ones that are matched to them."""
    for row, there in enumerate((parts["true"][..., 2] > 0).any(2)):
        slots = there.nonzero()[:, 0]
        found = (parts["scores"][row] > 0).nonzero()[:, 0]
        alike = similarity(parts["found"][row, found], parts["true"][row, slots], parts["area"][row, slots])
        pairs, free = [], np.ones(len(slots), dtype=bool)
        for i in range(len(found) if len(slots) else 0):
            if free.any():
                best = int(np.where(free, alike[i], -1).argmax())
                pairs.append((int(slots[best]), int(found[i])))
                free[best] = False
        if pairs:
            at = torch.tensor(pairs)
            yield row, at[:, 0], at[:, 1]


def _evaluated(parts: Parts) -> Any:
    """Return faster-coco-eval's evaluation of keypoints."""
    images, truth, guesses, k = [], [], [], parts["true"].shape[2]
    each = (parts[name] for name in ("true", "area", "found", "scores"))
    for row, (true, area, found, scores) in enumerate(zip(*each, strict=True)):
        images.append({"id": row + 1, "file_name": str(row), "width": 1, "height": 1})
        labelled = (true[..., 2] > 0).sum(1)
        truth += [_entry(row, joints) | {"area": float(size), "num_keypoints": int(n)}
                  for joints, size, n in zip(true, area, labelled, strict=True) if n]  # fmt: skip
        guesses += [_entry(row, joints) | {"score": float(p)} for joints, p in zip(found, scores, strict=True) if p > 0]
    categories = [{"id": 1, "name": "object", "keypoints": list(map(str, range(k))), "skeleton": []}]
    return coco.evaluated(images, truth, guesses, categories, "keypoints", kpt_oks_sigmas=sigmas(k))


def _entry(row: int, joints: Float[Tensor, "joints 3"]) -> dict[str, Any]:
    low, high = joints[:, :2].amin(0).tolist(), joints[:, :2].amax(0).tolist()
    box = [*low, high[0] - low[0], high[1] - low[1]]
    return {"image_id": row + 1, "category_id": 1, "keypoints": joints.double().flatten().tolist(), "bbox": box}


# --- files and pictures ---


def _annotation(data: Dataset, row: int, joints: Float[Tensor, "joints 3"], score: float) -> dict[str, Any]:
    """Return an instance in COCO's form, in the pixels of the user's own image; every joint is said to be visible."""
    points = coco.inside(data, row, coco.own_pixels(data, row, joints[:, :2]))
    low, high = points.amin(0).tolist(), points.amax(0).tolist()
    box = coco.rounded([*low, high[0] - low[0], high[1] - low[1]])
    told = [value for x, y in points.tolist() for value in (*coco.rounded([x, y]), 2)]
    return {"image_id": row + 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
            "keypoints": told, "num_keypoints": len(joints), "score": score}  # fmt: skip


def _picture(image: Tensor, found: Tensor, scores: Tensor, true: Tensor, lines: tuple[tuple[int, int], ...]) -> Picture:
    kept = found[scores >= SHOWN]
    for one, other in lines:
        image = lines_on(image, kept[:, one, :2], kept[:, other, :2])
    image = dots_on(image, kept[..., :2].flatten(0, 1), torch.arange(found.shape[1]).repeat(len(kept)))
    image = dots_on(image, true[true[..., 2] > 0][:, :2], None)
    return Picture(
        image.movedim(0, -1).numpy(), "", tuple(f"{100 * p:.0f} %" for p in scores[scores >= SHOWN].tolist())
    )
