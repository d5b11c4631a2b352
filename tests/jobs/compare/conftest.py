"""A realistic comparison, made from random numbers: a board as `compare` returns it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rushlight.data.columns import TEST, TRAIN, encode_text
from rushlight.data.dataset import Dataset, Info, Quarantined
from rushlight.jobs.compare.rank import rank
from rushlight.jobs.compare.result import Board
from rushlight.run.budget import Spent
from rushlight.run.trial import Result, Trial

RECIPES = {
    "supervised": 0.71,
    "fixmatch": 0.75,
    "iomatch": 0.76,
    "barlow-twins > supervised": 0.74,
    "barlow-twins > iomatch": 0.80,
}
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def pictures(n: int, rng: np.random.Generator) -> torch.Tensor:
    """Blobs that look like something."""
    y, x = np.mgrid[0:32, 0:32] / 31
    a, b, c, d = rng.uniform(0.2, 0.8, (4, n, 1, 1))
    image = 255 * np.exp(-(((x - a) / (0.1 + 0.3 * c)) ** 2 + ((y - b) / (0.1 + 0.3 * d)) ** 2))
    return torch.from_numpy(np.repeat(image[:, None], 3, 1).astype(np.uint8))


def dataset(n: int = 600, classes: tuple[str, ...] = CLASSES, names: list[str] | None = None) -> Dataset:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, len(classes), n))
    fold = torch.full((n,), TRAIN, dtype=torch.int8)
    fold[n // 3 :] = TEST
    columns = {"image": pictures(n, rng), "class": labels, "fold": fold}
    if names is not None:
        columns["name"] = encode_text(names)
    left_out = (
        Quarantined("holiday/IMG_0042.jpg", "the file ends early"),
        Quarantined("scan.tif", "20,000 × 20,000 pixels are too many"),
    )
    return Dataset(columns, Info(source="photos/", class_names=classes, quarantined=left_out, licence="MIT"))


def result(recipe: str, seed: int, data: Dataset, strength: float) -> Result:
    rng = np.random.default_rng([seed, *recipe.encode()])
    true = data.fold(TEST)["class"].numpy()
    level = strength + rng.normal(0, 0.008)
    hard = np.random.default_rng(7).normal(0, 0.2, len(true))
    right = rng.random(len(true)) < np.clip(level + hard, 0, 1)
    wrong = (true + rng.choice([1, 2, 6], len(true), p=[0.5, 0.3, 0.2])) % len(data.info.class_names)
    predicted = np.where(right, true, wrong)
    parts = {
        "predicted": torch.from_numpy(predicted).to(torch.int16),
        "true": torch.from_numpy(true).to(torch.int16),
        "unseen": torch.zeros(len(true), dtype=torch.bool),
        "rejection": torch.zeros(len(true)),
        "rank": torch.from_numpy(~right).to(torch.int16),
        "confidence": torch.from_numpy(rng.uniform(0.4, 1, len(true))).float(),
    }
    start = 0.5 if ">" in recipe else 0.05
    curve = [(130_000 * s, level * (1 - 0.5 * np.exp(-5 * (s - start)))) for s in np.linspace(start, 1, 6)]
    spent = Spent(passes=130_000 + rng.uniform(-99, 99), flops=2.6e12, steps=1015, seconds=60 + 9 * len(recipe) ** 0.5)
    trial = Trial(recipe, seed, "130k", data.content_hash, "class", keep=10, precision="bf16-mixed")
    return Result(trial, float(right.mean()), parts, curve, spent)


def make_board(out: Path, data: Dataset | None = None, recipes: dict[str, float] = RECIPES, seeds: int = 4) -> Board:
    data = data or dataset()
    results = [result(recipe, seed, data, p) for recipe, p in recipes.items() for seed in range(seeds)]
    return Board(
        results=results,
        ranking=rank(results, "class"),
        task="class",
        data=data,
        out=out,
        choices=("encoder conv16: small images, two cores",),
        command="rushlight compare photos/ --methods 'supervised, fixmatch' --budget 130k --seeds 4 --out out",
        seconds=412.0,
    )


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return make_board(tmp_path)
