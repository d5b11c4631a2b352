"""Small data sets with exact truth that several tasks share."""

from __future__ import annotations

import torch

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import scenes

THINGS = ("trouser", "bag", "ankle boot", "sandal")


def four_things(label: str, train: int = 300, test: int = 100, *, size: int = 32) -> Dataset:
    """Return scenes of one to three of four things with this label, some to learn from and some to test on."""
    folds = [
        scenes.compose(n, size=size, classes=THINGS, objects=(1, 3), scale=(0.4, 0.6), seed=1, fold=fold)
        for n, fold in ((train, TRAIN), (test, TEST))
    ]
    first, second = folds
    return Dataset({name: torch.cat([first[name], second[name]]) for name in ("image", label, "fold")}, first.info)
