"""A class for each pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from rushlight.augment import presets
from rushlight.augment.policy import Policy
from rushlight.augment.view import View
from rushlight.core.errors import UserError
from rushlight.core.files import write_whole
from rushlight.core.findings import Findings, Picture
from rushlight.data.dataset import Dataset
from rushlight.losses import supervised
from rushlight.nets.dense.decoders import Decoder
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Head
from rushlight.tasks import scores
from rushlight.tasks.base import (
    Columns,
    Confidence,
    Metric,
    Outputs,
    Parts,
    Task,
    by_class,
    confused,
    names_of,
    ratio,
    renumbered,
)
from rushlight.tasks.classify import of_choices
from rushlight.tasks.draw import COLOURS
from rushlight.tasks.examples import four_things

UNKNOWN = 255
MIOU = Metric("mIoU")
PIXELS, BORDERS = Metric("pixel accuracy"), Metric("mIoU within 2 pixels of borders")
SAMPLE = 64
"""Pixels of each image that stand for all of them where confidence is concerned."""


class Segment(Task):
    """Predict the class of each pixel."""

    id, column, place, counted = "mask", "mask", 2, "pixels"
    names_in = ("mask_names", "class_names")
    metric, also = MIOU, (PIXELS, BORDERS)
    independent = False

    def outputs(self, data: Dataset) -> int:
        return len(self.names(data.info)) or self.presence(data).shape[1]

    def presence(self, data: Dataset) -> Bool[Tensor, "rows classes"]:
        there = torch.zeros(len(data), 256, dtype=torch.bool)
        for row, mask in enumerate(_each(data, self.column)):
            there[row] = torch.bincount(mask.flatten().long(), minlength=256) > 0
        used = there[:, :UNKNOWN].any(0).nonzero()
        return there[:, : max(len(self.names(data.info)), int(used.max()) + 1 if len(used) else 0)]

    def renumber(self, values: Tensor, own: Sequence[str], theirs: Sequence[str]) -> Tensor:
        return renumbered(values, own, theirs, UNKNOWN)

    def counts(self, data: Dataset) -> dict[str, list[Any]]:
        pixels = torch.zeros(256, dtype=torch.int64)
        for mask in _each(data, self.column):
            pixels += torch.bincount(mask.flatten().long(), minlength=256)
        table, total = super().counts(data), max(1, int(pixels[:UNKNOWN].sum()))
        return table | {"share of pixels": [int(n) / total for n in pixels[: len(table["present"])]]}

    # Learning

    def head(self, encoder: Encoder, data: Dataset) -> Head:
        return Decoder(channels=encoder.channels, strides=encoder.strides, outputs=self.outputs(data))

    def views(self, size: tuple[int, int]) -> tuple[Policy, Policy]:
        return presets.dense_weak(size), presets.dense_strong(size)

    def moved(self, view: View, target: Tensor) -> Tensor:
        return view.masks(target)

    def loss(
        self, output: Float[Tensor, "batch classes h w"], target: Integer[Tensor, "batch h w"]
    ) -> Float[Tensor, ""]:
        return supervised.masks(output, target)

    # Scores

    def parts(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Return true × predicted pixel counts of each image (`confusion`), and those within 2 pixels of borders."""
        logits, true = outputs[self.id], columns[self.column]
        predicted, near = logits.argmax(1), torch.where(scores.border_band(true), true, UNKNOWN)
        counted = {"confusion": true, "border": near}
        return {name: scores.confusion(predicted, of, logits.shape[1]).to(torch.int32) for name, of in counted.items()}

    def value(self, parts: Parts, metric: Metric | None = None) -> float:
        metric = metric or self.metric
        whole = parts["border" if metric == BORDERS else "confusion"].sum(0)
        if not int(whole.sum()):
            raise UserError(f"{metric.name} needs pixels whose class is known: there is none")
        return ratio(whole.diagonal().sum(), whole.sum()) if metric == PIXELS else scores.mean_iou(whole)

    def confidence(
        self, outputs: Outputs, columns: Columns, generator: torch.Generator | None = None
    ) -> Confidence | None:
        logits, true = outputs[self.id], columns[self.column].flatten(1)
        chosen = torch.randint(true.shape[1], (len(true), SAMPLE), generator=generator).to(true.device)
        every = chosen[:, None].expand(-1, logits.shape[1], -1)
        p, true = logits.flatten(2).gather(2, every).double().softmax(1).movedim(1, -1), true.gather(1, chosen)
        return of_choices(p[true != UNKNOWN], true[true != UNKNOWN].long())

    def findings(
        self, parts: Parts, data: Dataset, rows: Int[Tensor, "n"], names: Sequence[str] = ()
    ) -> list[Findings]:
        each, counts = parts["confusion"], parts["confusion"].sum(0).long()
        names = self.labelled(names or self.names(data.info), len(counts))
        hits, n, said = counts.diagonal(), counts.sum(1), counts.sum(0)
        at = [i for i in range(len(counts)) if n[i] or said[i]]
        table: dict[str, list[Any]] = {
            "class": [names[i] for i in at],
            "images": [int((each[:, i].sum(1) > 0).sum()) for i in at],
            "share of pixels": [ratio(n[i], counts.sum()) for i in at],
            "IoU": [ratio(hits[i], n[i] + said[i] - hits[i]) for i in at],
            "recall": [ratio(hits[i], n[i]) for i in at],
            "precision": [ratio(hits[i], said[i]) for i in at],
        }
        return [by_class(table), confused(counts, names, self.counted)]

    def worst(self, parts: Parts) -> Int[Tensor, "n"]:
        """Return the images with the lowest pixel accuracy first."""
        each = parts["confusion"]
        return (each.diagonal(dim1=1, dim2=2).sum(1) / each.sum((1, 2)).clamp(min=1)).argsort(stable=True)

    def pictures(self, outputs: Outputs, columns: Columns, info: Any) -> list[Picture]:
        """Return each image beside itself painted with the predicted and with the true classes."""
        predicted, images = outputs[self.id].argmax(1).cpu(), columns["image"].cpu()
        shown = [_painted(images, predicted)]
        if self.column in columns.keys():  # noqa: SIM118  (a TensorDict contains values, not names)
            shown.append(_painted(images, columns[self.column].cpu()))
        whole = torch.cat([images, *shown], -1)
        lines = ("image, predicted" + (", true" if len(shown) == 2 else ""),)
        return [Picture(picture.movedim(0, -1).numpy(), "", lines) for picture in whole]

    # Predictions

    def table(self, outputs: Outputs, info: Any) -> dict[str, Any]:
        """Return the share of pixels of each class."""
        logits = outputs[self.id]
        chosen, names = logits.argmax(1).flatten(1), self.labelled(self.names(info), logits.shape[1])
        return {f"share of {name}": (chosen == i).float().mean(1).numpy() for i, name in enumerate(names)}

    def write(
        self, batches: Iterable[tuple[Int[Tensor, "n"], Outputs]], data: Dataset, folder: Path, info: Any
    ) -> list[Path]:
        """Write a PNG an image: the class of each pixel, 255 where the model did not look (what a crop cut off).

        It has the image's name; where two images differ in their endings alone, with the ending (`x.jpg.png`).
        """
        from PIL import Image

        written, places = [], _places(data.names)
        for rows, outputs in batches:
            masks = outputs[self.id].argmax(1).byte()
            for row, name, mask in zip(rows.tolist(), names_of(data, rows), masks, strict=True):
                content, path = BytesIO(), Path(folder) / places[name]
                Image.fromarray(in_own_pixels(mask, data, row).numpy()).save(content, "PNG")
                write_whole(path, content.getvalue())
                written.append(path)
        return written

    def example(self) -> Dataset:
        """Return 300 training and 100 test scenes of one to three of four things."""
        return four_things(self.column)


def _places(names: Sequence[str]) -> dict[str, Path]:
    """Return where the mask of each image is written, so that none takes another's place."""
    whole = {name: Path(f"{name}.png") for name in names}
    short = {name: Path(name).with_suffix(".png") for name in whole}
    taken = Counter(short.values()) + Counter(path for name, path in whole.items() if path != short[name])
    return {name: short[name] if taken[short[name]] == 1 else whole[name] for name in whole}


def _each(data: Dataset, column: str) -> Iterator[Integer[Tensor, "height width"]]:
    return (mask for chunk in data.chunks(column) for mask in chunk)


def in_own_pixels(mask: Integer[Tensor, "height width"], data: Dataset, row: int) -> Tensor:
    """Return a packed image's mask in the original's size: each pixel looks up where it was packed."""
    if "to_original" not in data:
        return mask
    height, width = data.read("size", row).tolist()
    affine = torch.cat([data.read("to_original", row).double(), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)])
    inverse = torch.linalg.inv(affine)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    packed = torch.stack([x, y, torch.ones_like(x)], -1).double() @ inverse.T
    column, line = packed[..., 0].floor().long(), packed[..., 1].floor().long()
    inside = (column >= 0) & (column < mask.shape[1]) & (line >= 0) & (line < mask.shape[0])
    found = mask[line.clamp(0, mask.shape[0] - 1), column.clamp(0, mask.shape[1] - 1)]
    return torch.where(inside, found, UNKNOWN)


def _painted(images: Integer[Tensor, "n 3 h w"], masks: Integer[Tensor, "n h w"]) -> Tensor:
    """Return images half covered by their classes' colours; class 0 and what is unknown are left clear."""
    table = torch.tensor(COLOURS)
    colour = table[masks.long() % len(table)].movedim(-1, 1)
    clear = ((masks == 0) | (masks == UNKNOWN))[:, None]
    return torch.where(clear, images, (images.float() * 0.4 + colour * 0.6).byte())
