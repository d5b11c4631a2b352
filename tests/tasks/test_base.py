"""Labels are matched by name, whichever the task."""

from __future__ import annotations

import pytest
import torch

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset, Info
from rushlight.run.model import ModelInfo

NAMES = ("cat", "dog", "cow")


def test_labels_are_matched_by_name() -> None:
    data = Dataset(
        {"image": torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "class": torch.tensor([0, 1, 2, -1, 0])},
        Info(class_names=("dog", "emu", "cat")),
    )
    matched, notes = tasks.find("class").align(data, ModelInfo(names={"class": NAMES}))
    assert matched["class"].tolist() == [1, -1, 0, -1, 1]
    assert matched.info.class_names == NAMES
    assert "emu" in notes[0]
    with pytest.raises(UserError, match="not one name is common"):
        tasks.find("class").align(data, ModelInfo(names={"class": ("x", "y", "z")}))


def test_tags_and_masks_are_matched_by_name() -> None:
    columns = {
        "image": torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        "tags": torch.tensor([[1, 0]], dtype=torch.int8),
        "mask": torch.tensor([[[0, 1], [255, 1]]], dtype=torch.uint8),
    }
    data = Dataset(columns, Info(tag_names=("dog", "emu"), mask_names=("dog", "emu")))
    info = ModelInfo(names={"tag": NAMES, "mask": NAMES})
    assert tasks.find("tags").align(data, info)[0]["tags"].tolist() == [[-1, 1, -1]]
    assert tasks.find("mask").align(data, info)[0]["mask"].tolist() == [[[1, 255], [255, 255]]]
