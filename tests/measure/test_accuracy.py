"""How often a model is right, with its interval."""

from __future__ import annotations

import pytest
import torch

from rushlight import tasks
from rushlight.measure.accuracy import accuracy, measure
from rushlight.tasks import Metric


def parts_of(right: int, n: int) -> dict[str, torch.Tensor]:
    true = torch.zeros(n, dtype=torch.int16)
    predicted = torch.where(torch.arange(n) < right, 0, 1).to(torch.int16)
    known = {"unseen": torch.zeros(n, dtype=torch.bool), "rejection": torch.zeros(n), "decided": predicted}
    return {"predicted": predicted, "true": true, "rank": predicted, "confidence": torch.ones(n), **known}


def test_accuracy_has_wilsons_interval() -> None:
    from scipy.stats import binomtest

    found = accuracy(tasks.find("class"), parts_of(310, 400))
    wilson = binomtest(310, 400).proportion_ci(method="wilson")
    measured = found.measure("accuracy")
    assert (measured.value, measured.n) == (310 / 400, 400)
    assert measured.low == pytest.approx(wilson.low, abs=2e-3)
    assert measured.high == pytest.approx(wilson.high, abs=2e-3)
    assert found.headline.startswith("accuracy 77.5 % (")
    assert found.headline.endswith(") on 400 images")
    assert "always the commonest class" in found.numbers


def test_one_image_has_no_interval() -> None:
    measured = accuracy(tasks.find("class"), parts_of(1, 1)).measure("accuracy")
    assert (measured.low, measured.high) == (0.0, 1.0)


def test_tags_without_a_known_absence_have_a_recall_and_no_headline() -> None:
    found = accuracy(tasks.find("tags"), {"scores": torch.tensor([[0.9], [0.2]]), "true": torch.ones(2, 1).char()})
    assert found.numbers == {"recall at 0.5": 0.5}
    assert found.headline == ""


def test_a_metric_without_bounds_keeps_its_scale_and_unit() -> None:
    error = measure(Metric("error", higher=False, scale=1.0, unit="px", bounds=None), 2.5, 10)
    assert (error.value, error.unit, error.kind) == (2.5, "px", "number")
