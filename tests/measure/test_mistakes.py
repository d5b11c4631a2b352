"""Planted label mistakes that must be found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from margins import Margin

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset, Info
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.measure.mistakes import mistakes
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo

CLASS = tasks.find("class")


def untrained(data: Dataset) -> Model:
    encoder = encoders.create("conv16", image_size=data.height, seed=0)
    return Model(encoder, {}, ModelInfo(image_size=(data.height, data.width))).eval()


@pytest.fixture(scope="module")
def flipped() -> tuple[Dataset, torch.Tensor]:
    """1,000 photos, 5 % of whose labels were changed to another class; and which."""
    data = fashion.load().select(torch.arange(1000))
    generator = torch.Generator().manual_seed(0)
    wrong = torch.zeros(1000, dtype=torch.bool)
    wrong[torch.randperm(1000, generator=generator)[:50]] = True
    other = (data["class"] + torch.randint(1, 10, (1000,), generator=generator)) % 10
    return data.with_columns(**{"class": torch.where(wrong, other, data["class"])}), wrong


def test_planted_label_mistakes_are_found(flipped: tuple[Dataset, torch.Tensor], margin: Margin) -> None:
    data, wrong = flipped
    found = mistakes(untrained(data), data, CLASS)
    table = found.table("suspects")
    hits = wrong[table["row"]]
    margin("found of 50", hits.sum(), 34.5)  # by chance 50 · share
    margin("precision", hits.double().mean(), 2 * 0.05)
    likely = hits[: int(found.numbers["likely"])]
    margin("likely ones found of 50", likely.sum(), 19.5)
    margin("precision of the likely ones", likely.double().mean(), 0.4)
    assert table["label quality"] == sorted(table["label quality"])
    truth = fashion.load()["class"]
    healed = [fashion.CLASS_NAMES[truth[row]] == said for row, said in zip(table["row"], table["suggested"])]
    margin("suggestions that are right", np.mean([h for h, w in zip(healed, hits) if w]), 0.6)
    assert found.numbers["suspected"] == len(table["row"])


def test_rare_classes_and_unknown_labels_are_passed_over() -> None:
    data = fashion.load().select(torch.arange(300))
    labels = data["class"].clone()
    ankle = (labels == 9).nonzero()[:, 0]
    labels[ankle[3:]] = -1
    found = mistakes(untrained(data), data.with_columns(**{"class": labels}), CLASS)
    assert found.numbers["labels"] == 300 - len(ankle)
    assert "ankle boot" in " ".join(found.notes)
    assert not set(found.table("suspects")["row"]) & set(ankle.tolist())


def test_planted_tag_mistakes_are_found(margin: Margin) -> None:
    data = fashion.load().select(torch.arange(600))
    boots = (data["class"] >= 5) & (data["class"] != 6) & (data["class"] != 8)  # shoes
    tags = torch.stack([boots, torch.zeros_like(boots)], 1).to(torch.int8)
    wrong = torch.arange(0, 600, 30)
    tags[wrong, 0] = 1 - tags[wrong, 0]
    tags[1::2, 1] = -1
    data = Dataset({"image": data["image"], "tags": tags}, Info(tag_names=("shoe", "never")))
    found = mistakes(untrained(data), data, tasks.find("tags"))
    table = found.table("suspects")
    margin("found of 20", len(set(table["row"]) & set(wrong.tolist())), 9.5)
    margin("suspects", len(table["row"]), 39.5, below=True)
    assert set(table["tag"]) == {"shoe"}
    assert "never" in " ".join(found.notes)


def test_too_few_labels_and_masks_are_said_so(scenes: Dataset) -> None:
    data = hide.per_class(fashion.load().select(torch.arange(300)), 0)
    with pytest.raises(UserError, match="no label of the model's task"):
        mistakes(untrained(data), data, CLASS)
    with pytest.raises(UserError, match="not looked for in mask"):
        mistakes(untrained(data), scenes, tasks.find("mask"))
