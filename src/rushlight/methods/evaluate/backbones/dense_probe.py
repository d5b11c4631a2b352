"""Dense tasks on frozen maps: a linear decoder for masks, and a small centre head for boxes.

The encoder never changes, and its last map is read once; what is trained is a batch norm and one 1×1 convolution
(segmentation), or one 3×3 and one 1×1 convolution (detection). So the scores speak of the map.

Detection: a cell is responsible for a box if the box's centre lies in it (the smallest box where there are several).
It learns the box's class against all others by a focal loss, and the distances to the four sides, as shares of the
image, by an L1 loss. At test, cells that are no peak among their neighbours of the same class fall away
(CenterNet's suppression), and the best boxes are scored by COCO's AP.

References: Zhou et al., "Objects as Points", arXiv:1904.07850; Lin et al., "Focal Loss", arXiv:1708.02002.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rushlight.tasks.scores import confusion, mean_iou
from rushlight.train import optim

STEPS = 300


# --- segmentation ---


class LinearDecoder(nn.Module):
    """Batch norm without affine parameters, a 1×1 convolution, and bilinear enlargement."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(channels, affine=False), nn.Conv2d(channels, classes, 1))

    def forward(self, maps: Float[Tensor, "n channels h w"], size: tuple[int, int]) -> Float[Tensor, "n classes H W"]:
        return F.interpolate(self.layers(maps), size, mode="bilinear", align_corners=False)


def segmentation(
    maps: Float[Tensor, "n channels h w"], masks: Tensor, classes: int, *, steps: int = STEPS, seed: int = 0
) -> LinearDecoder:
    """Train a linear decoder of frozen maps on masks (pixels of 255 are ignored)."""
    size = (masks.shape[-2], masks.shape[-1])
    decoder = _seeded(lambda: LinearDecoder(maps.shape[1], classes), seed)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(decoder(maps[rows], size), masks[rows].long(), ignore_index=255)

    maps = _usable(maps)
    _train(decoder, loss, len(maps), steps, seed)
    return decoder


@torch.inference_mode()
def mask_score(decoder: LinearDecoder, maps: Float[Tensor, "n channels h w"], masks: Tensor, classes: int) -> float:
    """Return the mean intersection over union (0 … 1) of a decoder on other maps."""
    size, total = (masks.shape[-2], masks.shape[-1]), torch.zeros(classes, classes, dtype=torch.int64)
    for rows in torch.arange(len(maps)).split(64):
        total += confusion(decoder(maps[rows], size).argmax(1), masks[rows], classes).sum(0)
    return mean_iou(total)


# --- detection ---


class CentreHead(nn.Module):
    """A map → for each cell, the classes' logits and the distances (shares of the image) to the four sides."""

    def __init__(self, channels: int, classes: int, width: int = 64):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.hidden = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.classes, self.sides = nn.Conv2d(width, classes, 1), nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.classes.bias, -4.0)  # type: ignore[arg-type]  # few cells hold a centre

    def forward(self, maps: Float[Tensor, "n channels h w"]) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(self.norm(maps))
        return self.classes(hidden), F.softplus(self.sides(hidden))


def detection(
    maps: Float[Tensor, "n channels h w"],
    boxes: Float[Tensor, "n slots 6"],
    size: tuple[int, int],
    classes: int,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> CentreHead:
    """Train a centre head on frozen maps of images of (height, width) `size`, with boxes (see `data.columns`)."""
    head = _seeded(lambda: CentreHead(maps.shape[1], classes), seed)
    maps = _usable(maps)
    owner, sides = assigned(boxes, size, (maps.shape[-2], maps.shape[-1]))

    def loss(rows: Tensor) -> Tensor:
        logits, predicted = head(maps[rows])
        here = owner[rows] >= 0
        goal = F.one_hot(owner[rows] + 1, classes + 1)[..., 1:].permute(0, 3, 1, 2).float()
        far = (predicted.permute(0, 2, 3, 1) - sides[rows]).abs().sum(-1)
        return (focal(logits, goal).sum() + 5 * far[here].sum()) / here.sum().clamp(min=1)

    _train(head, loss, len(maps), steps, seed)
    return head


def assigned(boxes: Float[Tensor, "n slots 6"], size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return for each cell the class of its box (−1 none), and the distances from the cell's centre to the box's sides:
    left, top, right, bottom, as shares of the image."""
    owner = torch.full((len(boxes), *grid), -1, dtype=torch.long)
    sides = torch.zeros(len(boxes), *grid, 4)
    (height, width), (rows, columns) = size, grid
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    for slot in area.argsort(1, descending=True).T:  # the smallest last: it stays
        x1, y1, x2, y2, label, seen = boxes[torch.arange(len(boxes)), slot].unbind(1)
        images = (seen > 0).nonzero().squeeze(1)
        column = ((x1 + x2) / 2 / width * columns).long().clamp(0, columns - 1)
        row = ((y1 + y2) / 2 / height * rows).long().clamp(0, rows - 1)
        at = (images, row[images], column[images])
        cx, cy = (column + 0.5) / columns, (row + 0.5) / rows
        away = torch.stack([cx - x1 / width, cy - y1 / height, x2 / width - cx, y2 / height - cy], 1)
        owner[at], sides[at] = label[images].long(), away[images].clamp(min=0)
    return owner, sides


def focal(logits: Tensor, goal: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Return the focal loss of each output: −α_t (1 − p_t)^γ log p_t."""
    cross = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
    p = logits.sigmoid()
    missed = goal * (1 - p) + (1 - goal) * p
    return (goal * alpha + (1 - goal) * (1 - alpha)) * missed**gamma * cross


@torch.inference_mode()
def detected(
    head: CentreHead, maps: Float[Tensor, "n channels h w"], size: tuple[int, int], *, most: int = 20
) -> list[dict[str, Tensor]]:
    """Return the best boxes of each image: `boxes` (x1, y1, x2, y2; pixels), `scores`, `labels`."""
    logits, sides = head(maps)
    scores = logits.sigmoid()
    peak = scores == F.max_pool2d(scores, 3, 1, 1)
    best, cell = (scores * peak).flatten(1).topk(min(most, scores[0].numel()), dim=1)
    cells = scores.shape[-2] * scores.shape[-1]
    label, place = cell // cells, cell % cells
    columns, rows = scores.shape[-1], scores.shape[-2]
    centre = torch.stack([(place % columns + 0.5) / columns, (place // columns + 0.5) / rows], 2)
    away = sides.flatten(2).permute(0, 2, 1).gather(1, place[..., None].expand(-1, -1, 4))
    pixels = torch.tensor([size[1], size[0], size[1], size[0]])
    boxes = torch.cat([centre - away[..., :2], centre + away[..., 2:]], 2).clamp(0, 1) * pixels
    return [
        dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(boxes, best, label, strict=True)
    ]


def box_score(
    head: CentreHead, maps: Float[Tensor, "n channels h w"], boxes: Float[Tensor, "n slots 6"], size: tuple[int, int]
) -> dict[str, float]:
    """Return COCO's AP of a head on other maps: `AP` over IoU 0.5 … 0.95, and `AP50`, each 0 … 1."""
    return average_precision(detected(head, maps, size), boxes)


def average_precision(found: list[dict[str, Tensor]], boxes: Float[Tensor, "n slots 6"]) -> dict[str, float]:
    """Return COCO's AP of predicted boxes (see `detected`) against the true ones."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the backend's own deprecations
        from torchmetrics.detection import MeanAveragePrecision

        metric: Any = MeanAveragePrecision(backend="faster_coco_eval")
        metric.warn_on_many_detections = False
        metric.update(found, [_truth(row) for row in boxes])
        values = metric.compute()
    return {"AP": max(float(values["map"]), 0.0), "AP50": max(float(values["map_50"]), 0.0)}


def _truth(row: Tensor) -> dict[str, Tensor]:
    there = row[row[:, 5] > 0]
    return {"boxes": there[:, :4], "labels": there[:, 4].long()}


# --- what both share ---


def _seeded(make: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _usable(maps: Tensor) -> Tensor:
    """Return maps that can be trained on: a copy of those read in inference mode."""
    return maps.clone() if maps.is_inference() else maps


def _train(module: nn.Module, loss: Any, n: int, steps: int, seed: int, batch: int = 32, rate: float = 3e-3) -> None:
    optimiser = optim.optimiser("adamw", optim.parameter_groups(module, 1e-4), learning_rate=rate)
    generator = torch.Generator().manual_seed(seed)
    module.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * optim.schedule("cosine", step / steps, warm_up=0.05)
        rows = torch.randint(n, (min(batch, n),), generator=generator)
        optimiser.zero_grad()
        loss(rows).backward()
        optimiser.step()
    module.eval()
