import numpy as np
import pytest
import torch

from rushlight import tasks
from rushlight.measure.units import units


def test_classes_have_one_number_an_image():
    parts = {"predicted": torch.tensor([0, 1, 2, 2]), "true": torch.tensor([0, 1, 1, 2])}
    assert units(tasks.find("class"), parts).tolist() == [1, 1, 0, 1]


def test_the_mean_of_blocks_is_the_metric():
    generator = torch.Generator().manual_seed(0)
    confusion = torch.randint(0, 20, (30, 3, 3), generator=generator, dtype=torch.int32)
    task = tasks.find("mask")
    found = units(task, {"confusion": confusion}, blocks=10)
    assert len(found) == 10
    assert np.mean(found) == pytest.approx(task.value({"confusion": confusion}))
