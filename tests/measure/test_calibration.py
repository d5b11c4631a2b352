"""Calibration beside plain loops and torchmetrics, and models whose confidence is known to be right or wrong."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.measure.calibration import calibration
from rushlight.tasks.base import Confidence
from rushlight.tasks.classify import of_choices


def sampled(n: int, sharpness: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn from softmax(z); the model says softmax(sharpness · z)."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    true = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    return (sharpness * z).softmax(1), true


def confidence_of_tags(p: torch.Tensor, true: torch.Tensor) -> Confidence:
    task = tasks.find("tags")
    return task.confidences([task.confidence({"tags": p.logit()}, {"tags": true})])


def ece_by_loops(p: torch.Tensor, y: torch.Tensor, bins: int) -> tuple[float, float]:
    total, worst = 0.0, 0.0
    for b in range(bins):
        inside = [i for i in range(len(p)) if b / bins <= p[i] < (b + 1) / bins or (b == bins - 1 and p[i] == 1)]
        if inside:
            gap = abs(sum(float(p[i]) for i in inside) - sum(int(y[i]) for i in inside)) / len(inside)
            total, worst = total + gap * len(inside) / len(p), max(worst, gap)
    return total, worst


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([5, 15]))
def test_calibration_errors_are_those_of_plain_loops(seed: int, n: int, bins: int) -> None:
    p, true = sampled(n, 2.0, seed)
    found = of_choices(p, true)
    numbers = calibration(found, bins=bins).numbers
    ece, mce = ece_by_loops(found.p, found.right, bins)
    assert numbers["ECE"] == pytest.approx(ece, abs=1e-6)
    assert numbers["MCE"] == pytest.approx(mce, abs=1e-6)
    assert numbers["NLL"] == pytest.approx(float(-p[torch.arange(n), true].log().mean()))
    brier = sum(float((p[i, k] - int(k == true[i])) ** 2) for i in range(n) for k in range(4)) / n
    assert numbers["Brier score"] == pytest.approx(brier)


def test_the_calibration_error_is_torchmetrics_multiclass_one() -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, true = sampled(500, 1.7)
    official = multiclass_calibration_error(p, true, num_classes=4, n_bins=15)
    assert calibration(of_choices(p, true)).numbers["ECE"] == pytest.approx(float(official), abs=1e-6)


def test_a_calibrated_model_is_believed_and_a_sharpened_one_is_not() -> None:
    fair, sharp, flat = (calibration(of_choices(*sampled(40_000, sharpness))) for sharpness in (1.0, 3.0, 0.3))
    assert fair.numbers["ECE"] < 0.012
    assert fair.headline == "its confidence can be believed"
    assert sharp.numbers["ECE"] > 0.1
    assert sharp.headline.startswith("over-confident")
    assert flat.headline.startswith("under-confident")


def test_few_calibrated_models_are_accused() -> None:
    accused = 0
    for seed in range(60):
        numbers = calibration(of_choices(*sampled(300, 1.0, seed)), seed=seed).numbers
        accused += numbers["ECE"] > numbers["ECE, 95 % of calibrated models below"]
    assert accused <= 8  # of 60 at 5 %: 3 expected, more than 8 in one of 250 runs


def test_the_reliability_table_counts_every_image() -> None:
    found = of_choices(*sampled(700, 2.0))
    table = calibration(found).table("reliability")
    assert sum(table["n"]) == 700
    share = sum(n * r for n, r in zip(table["n"], table["right"])) / 700
    assert share == pytest.approx(float(found.right.double().mean()))
    assert all(low <= r <= high for low, r, high in zip(table["low"], table["right"], table["high"]))


def test_unknown_tags_do_not_count_in_the_calibration() -> None:
    p = torch.tensor([[0.9, 0.2], [0.7, 0.6]], dtype=torch.float64)
    numbers = calibration(confidence_of_tags(p, torch.tensor([[1, 0], [-1, -1]]))).numbers
    assert numbers["ECE"] == pytest.approx((0.1 + 0.2) / 2, abs=1e-6)
    assert numbers["NLL"] == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    with pytest.raises(UserError, match="known to be absent"):
        confidence_of_tags(p, torch.tensor([[1, -1], [-1, 1]]))
