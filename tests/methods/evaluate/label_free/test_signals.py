"""Label-free signals against plain loops, and at their ends."""

from __future__ import annotations

import math

import pytest
import torch

from rushlight.methods.evaluate.label_free import signals


def features(n: int = 30, dim: int = 5) -> torch.Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_alignment_is_the_mean_squared_distance_of_unit_vectors() -> None:
    one, other = features(), features().flip(0)
    plain = sum(float((a / a.norm() - b / b.norm()).square().sum()) for a, b in zip(one, other, strict=True)) / 30
    assert signals.alignment(one, other) == pytest.approx(plain)
    assert signals.alignment(one, 3 * one) == pytest.approx(0, abs=1e-12)
    assert signals.alignment(one, -one) == pytest.approx(4)


def test_uniformity_is_the_log_of_the_mean_potential_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = [row / row.norm() for row in features()]
    pairs = [math.exp(-2 * float((x[i] - x[j]).square().sum())) for i in range(30) for j in range(30) if i != j]
    expected = math.log(sum(pairs) / len(pairs))
    assert signals.uniformity(features()) == pytest.approx(expected)
    monkeypatch.setattr(signals, "BLOCK", 7)
    assert signals.uniformity(features()) == pytest.approx(expected)


def test_uniformity_is_nothing_at_one_point_and_falls_with_spread() -> None:
    assert signals.uniformity(torch.ones(10, 3)) == pytest.approx(0, abs=1e-9)
    assert signals.uniformity(torch.eye(10)) == pytest.approx(-4)


def test_views_are_found_again() -> None:
    x = features(200, 16)
    assert signals.view_retrieval(x, x + 0.01 * features(200, 16).flip(0)) == 1
    assert signals.view_retrieval(x, x.flip(0)) < 0.05


def test_groups_that_are_there_are_stable_and_noise_is_not() -> None:
    centres = 5 * torch.eye(4, 8)
    grouped = centres[torch.arange(200) % 4] + 0.1 * features(200, 8).float()
    assert signals.cluster_stability(grouped, clusters=4) == pytest.approx(1)
    assert signals.cluster_stability(features(200, 8), clusters=4) < 0.6
    assert signals.cluster_stability(features(200, 8), seed=3) == signals.cluster_stability(features(200, 8), seed=3)
