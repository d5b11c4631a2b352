"""Resize and normalise as in pretraining: find out what a backbone wants before it is judged.

A frozen encoder that is given another size or other values than it was pretrained with is judged by the mismatch, not
by its features. So the contract between image and encoder is varied, and each setting is scored by nearest neighbours,
which train nothing. Beside the encoder stand the same one untrained and simple baselines. The recommended contract is
chosen among training images, each left out in turn; the test images only score it.

Corley et al., 2023, arXiv:2305.13456; code: isaaccorley/resize-is-all-you-need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.core.arguments import Count, Positive, settings
from rushlight.core.card import TARGET, Card, Needs, known
from rushlight.core.errors import UserError
from rushlight.core.findings import Curves, Findings, Kind, Table, measures
from rushlight.data.dataset import Dataset
from rushlight.measure import knn
from rushlight.measure.features import divided, standardise, untrained
from rushlight.measure.preprocessing import Interpolation, Preprocessing, Reader
from rushlight.nets import baselines
from rushlight.run.context import Progress, RunContext
from rushlight.run.model import Model
from rushlight.run.stage import Judge
from rushlight.tasks.scores import mean_average_precision

SCORES: dict[str, Kind] = {"left out": "share", "score": "share"}
NORMALISATIONS = ("raw", "divide", "standardise", "min-max", "own")


@dataclass(frozen=True)
class Asked:
    """Raw images with their labels: the bank that neighbours are drawn from, and the queries."""

    bank: Tensor
    labels: Tensor
    queries: Tensor
    true: Tensor

    @property
    def native(self) -> int:
        return min(self.bank.shape[-2:])


@settings
class ResizeNormalize(Judge):
    """Which resizing and normalisation a backbone wants, and what the wrong one costs."""

    audits = False
    card = Card(
        id="resize-normalize",
        title="Revisiting pre-trained remote sensing model benchmarks: resizing and normalization matters",
        paper="arXiv:2305.13456",
        code="isaaccorley/resize-is-all-you-need",
        family="evaluate",
        role="judge",
        task=frozenset({"class", "tags"}),
        needs=Needs("image", known(TARGET)),
        gives="the image size and normalisation a backbone wants, what wrong ones cost, and baselines to beat",
        says="an ImageNet ResNet-50 gains 32 points on So2Sat by resizing from 34 to 224 px, and 11 on EuroSAT; image "
        "statistics beat several networks at native size",
    )

    sizes: Sequence[Count] = ()
    """Of the curve, in pixels; by default five around the encoder's own size."""
    normalisations: Sequence[str] = NORMALISATIONS
    """Which to try."""
    neighbours: Count = 5
    """k, of the nearest neighbours."""
    unit: Positive = 255.0
    """Raw values are divided by it (255 for bytes)."""
    interpolation: Interpolation = "bilinear"
    """Of the resize, as in the official code."""
    antialias: bool = False
    """Of the resize, as in the official code."""
    align_corners: bool = True
    """Of the resize, as in the official code."""
    images: Count = 2000
    """Labelled images to draw neighbours from, at most; half as many for the test."""

    def __post_init__(self) -> None:
        wrong = [name for name in self.normalisations if name not in NORMALISATIONS]
        if wrong or not self.normalisations:
            raise UserError(f"there is no normalisation {wrong or ''}: they are {', '.join(NORMALISATIONS)}")
        flags: dict[str, Any] = {"antialias": self.antialias, "align_corners": self.align_corners}
        self.base = Preprocessing(interpolation=self.interpolation, unit=self.unit, **flags)

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Return the grid, the curve of sizes, the baselines and the recommended contract.

        Raises:
            UserError: fewer than two different images with a known label.
        """
        return self.study(model, self.asked(data, ctx.task or "class", ctx.seed), ctx)

    def asked(self, data: Dataset, task: str, seed: int = 0) -> Asked:
        """Draw labelled images of the data by the seed, in two parts."""
        train, test = divided(data, task, seed)
        parts = [_drawn(part, most, seed) for part, most in ((train, self.images), (test, self.images // 2))]
        return Asked(*(part[name] for part in parts for name in ("image", task)))

    def study(self, model: Model, asked: Asked, ctx: RunContext = RunContext()) -> Findings:
        """Run the same study on raw images of any unit (floats too)."""
        own = min(model.info.image_size)
        nets = {model.encoder.name: model, "untrained": untrained(model, ctx.seed)}
        sizes = [size for size in dict.fromkeys((asked.native, own)) if model.encoder.takes(size)]
        grid: dict[str, list[Any]] = {key: [] for key in ("encoder", "size", "normalisation", "left out", "score")}
        for number, (name, net) in enumerate(nets.items()):
            self._tell(ctx, f"{name}: grid", number / 4)
            for size in sizes:
                for how in self.normalisations:
                    contract = self.contract(net, asked, size, how)
                    _add(grid, name, size, how, *self.scored(net, asked, contract, pretrained=net is model))
        best = max(
            (row for row in _rows(grid) if row["encoder"] == model.encoder.name), key=lambda row: row["left out"]
        )
        contract = self.contract(model, asked, best["size"], best["normalisation"])
        self._tell(ctx, "baselines", 0.5)
        simple = self.simple(asked, own, ctx.seed)
        self._tell(ctx, "sizes", 0.6)
        curves, better = self._curve(nets, asked, own, best, ctx)
        if better[1] > best["left out"]:
            contract = replace(contract, size=better[0])
        numbers = self._numbers(grid, simple, asked.native, own)
        numbers["recommended"] = self.scored(model, asked, contract)[1]
        given = {"grid": grid, "baselines": simple, "resize": self._flags(model, asked, contract)}
        tables = tuple(Table.of(name, values, kinds=SCORES) for name, values in given.items())
        notes = self._notes(model.encoder.name, contract, numbers, simple)
        return Findings("resize-normalize", measures(numbers, "share"), tables, (curves,), notes=notes)

    def contract(self, model: Model, asked: Asked, size: int | None, how: str) -> Preprocessing:
        """Return the contract of a size and a normalisation; statistics are those of the bank, never of the queries."""
        contract = replace(self.base, size=size, unit=1.0 if how == "raw" else self.base.unit)
        values = asked.bank.float() / self.base.unit
        if how == "own":
            own = Preprocessing.of(model)
            return replace(contract, mean=own.mean, std=own.std)
        if how == "standardise":
            return replace(contract, mean=_each(values.mean((0, 2, 3))), std=_spread(values.std((0, 2, 3))))
        if how == "min-max":
            low, high = values.amin((0, 2, 3)), values.amax((0, 2, 3))
            return replace(contract, mean=_each(low), std=_spread(high - low))
        return contract

    def scored(
        self, model: Model, asked: Asked, contract: Preprocessing, *, pretrained: bool = True
    ) -> tuple[float, float]:
        """Return `score` of a model's features under a contract."""
        reader = Reader(model, contract)
        read = (reader.features(images) for images in (asked.bank, asked.queries))
        return self.score(*read, asked=asked, pretrained=pretrained)

    def score(
        self, bank: Float[Tensor, "m dim"], queries: Float[Tensor, "n dim"], *, asked: Asked, pretrained: bool = False
    ) -> tuple[float, float]:
        """Return nearest neighbours' score (0 … 1) among the bank, each left out in turn; and that of the queries."""
        if not pretrained:
            bank, queries = standardise(bank, queries)
        k = self.neighbours
        if asked.labels.ndim == 2:
            among, of = (knn.tag_shares(bank, asked.labels, who, k=k) for who in (None, queries))
            return mean_average_precision(among, asked.labels), mean_average_precision(of, asked.true)
        among, of = (knn.euclidean(bank, asked.labels, who, k=k) for who in (None, queries))
        return tuple(float((a == b).double().mean()) for a, b in ((among, asked.labels), (of, asked.true)))  # type: ignore[return-value]

    def simple(self, asked: Asked, own: int, seed: int = 0) -> dict[str, list[Any]]:
        """Return a table of the baselines at the native and the encoder's size, on values divided by the unit."""
        table: dict[str, list[Any]] = {key: [] for key in ("baseline", "size", "left out", "score")}
        for size in dict.fromkeys((asked.native, own)):
            ready = (replace(self.base, size=size)(images) for images in (asked.bank, asked.queries))
            for name, read in baselines.every(*ready, seed=seed).items():
                _add(table, name, size, *self.score(*read, asked=asked))
        return table

    def _curve(
        self, nets: dict[str, Model], asked: Asked, own: int, best: dict[str, Any], ctx: RunContext
    ) -> tuple[Curves, tuple[int, float]]:
        """Return scores over sizes at the best normalisation, and (size, left-out score) that the first net prefers."""
        model = next(iter(nets.values()))
        around = self.sizes or sorted(
            {asked.native, *(max(8, round(own * x / 4) * 4) for x in (0.5, 0.75, 1, 1.25, 1.5))}
        )
        sizes = [size for size in around if model.encoder.takes(size)]
        lines, left_out = {}, []
        for number, (name, net) in enumerate(nets.items()):
            self._tell(ctx, f"{name}: sizes", 0.6 + 0.2 * number)
            contracts = [self.contract(net, asked, size, best["normalisation"]) for size in sizes]
            found = [self.scored(net, asked, each, pretrained=net is model) for each in contracts]
            lines[name] = ([float(size) for size in sizes], [score for _, score in found])
            left_out.append([among for among, _ in found])
        chosen = max(zip(sizes, left_out[0], strict=True), key=lambda pair: pair[1], default=(own, 0.0))
        return Curves("size", "side in pixels", "score", lines, y_kind="share"), chosen

    def _flags(self, model: Model, asked: Asked, contract: Preprocessing) -> dict[str, list[Any]]:
        """Return a table of the resize's flags at the recommended contract."""
        table: dict[str, list[Any]] = {key: [] for key in ("resize", "left out", "score")}
        kinds: dict[str, dict[str, Any]] = {
            "aligned corners": {"antialias": False, "align_corners": True},
            "no antialias": {"antialias": False, "align_corners": False},
            "antialias": {"antialias": True, "align_corners": False},
        }
        for name, flags in kinds.items():
            _add(table, name, *self.scored(model, asked, replace(contract, **flags)))
        return table

    def _numbers(
        self, grid: dict[str, list[Any]], simple: dict[str, list[Any]], native: int, own: int
    ) -> dict[str, float]:
        name = grid["encoder"][0]
        mine = [row for row in _rows(grid) if row["encoder"] == name]
        numbers = {f"{row['normalisation']} at {row['size']} px": row["score"] for row in mine}
        numbers["costs at most"] = max(row["score"] for row in mine) - min(row["score"] for row in mine)
        numbers |= {f"{row['baseline']} at {row['size']} px": row["score"] for row in _rows(simple)}
        numbers["untrained, at best"] = max(row["score"] for row in _rows(grid) if row["encoder"] != name)
        return numbers

    def _notes(
        self, encoder: str, contract: Preprocessing, numbers: dict[str, float], simple: dict[str, list[Any]]
    ) -> tuple[str, ...]:
        best = max(_rows(simple), key=lambda row: row["score"])
        word = "is no worse than" if best["score"] >= numbers["recommended"] else "stays below"
        return (
            f"Recommended for {encoder}: {contract}; it scores {100 * numbers['recommended']:.1f} %, and the worst of "
            f"the grid costs {100 * numbers['costs at most']:.1f} points.",
            f"The best baseline ({best['baseline']} at {best['size']} px, {100 * best['score']:.1f} %) {word} it.",
            "It was chosen among training images, each left out in turn; scores are of test images.",
        )

    def _tell(self, ctx: RunContext, what: str, done: float) -> None:
        if ctx.on_progress is not None:
            ctx.on_progress(Progress(what, done))


def _rows(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _drawn(data: Dataset, most: int, seed: int) -> Dataset:
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:most]
    return data.select(rows.sort().values)


def _each(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _spread(values: Tensor) -> tuple[float, ...]:
    """Return the divisor of each channel: 1 for a channel with a single value."""
    return tuple(float(value) or 1.0 for value in values)


def _add(table: dict[str, list[Any]], *row: Any) -> None:
    for column, value in zip(table.values(), row, strict=True):
        column.append(value)
