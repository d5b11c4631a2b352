"""OF1 and CF1 against loops and scikit-learn."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score

from rushlight.tasks.scores import best_f1, f1_at


def _case(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    true = (torch.rand(80, 5, generator=generator) < 0.3).to(torch.int8)
    scores = (torch.rand(80, 5, generator=generator) + 0.5 * true).clamp(0, 1)
    return scores, true


def test_overall_f1_is_the_micro_average():
    scores, true = _case()
    assert f1_at(scores, true, 0.6)[0] == pytest.approx(f1_score(true, scores >= 0.6, average="micro"))


def test_class_f1_is_the_harmonic_mean_of_mean_precision_and_mean_recall():
    scores, true = _case(1)
    precisions, recalls = [], []
    for tag in range(5):
        hits = said = present = 0
        for score, label in zip(scores[:, tag].tolist(), true[:, tag].tolist(), strict=True):
            hits += score >= 0.6 and label == 1
            said += score >= 0.6
            present += label == 1
        precisions.append(hits / said)
        recalls.append(hits / present)
    precision, recall = sum(precisions) / 5, sum(recalls) / 5
    assert f1_at(scores, true, 0.6)[1] == pytest.approx(2 * precision * recall / (precision + recall))


def test_unknown_entries_and_tags_never_present_do_not_count():
    scores, true = _case(2)
    before = f1_at(scores, true, 0.6)
    wider = torch.cat([true, torch.zeros(80, 1, dtype=torch.int8)], 1)
    quiet = torch.cat([scores, torch.zeros(80, 1)], 1)
    assert f1_at(quiet, wider, 0.6) == pytest.approx(before)
    longer = torch.cat([true, torch.full((10, 5), -1, dtype=torch.int8)])
    assert f1_at(torch.cat([scores, torch.ones(10, 5)]), longer, 0.6) == pytest.approx(before)


def test_best_f1_is_the_best_of_99_thresholds():
    scores, true = _case(3)
    best = best_f1(scores, true)
    every = [f1_at(scores, true, step / 100) for step in range(1, 100)]
    assert best.overall == pytest.approx(max(overall for overall, _ in every))
    assert best.per_class == pytest.approx(max(per_class for _, per_class in every))
    assert f1_at(scores, true, best.overall_threshold)[0] == pytest.approx(best.overall)
