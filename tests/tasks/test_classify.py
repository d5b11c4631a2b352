"""What is said of each class, and what is taken for what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rushlight import tasks
from rushlight.data.dataset import Dataset, Info

NAMES = ("cat", "dog", "cow")


def parts_of(logits: torch.Tensor, true: torch.Tensor) -> dict[str, torch.Tensor]:
    return tasks.find("class").parts({"class": logits}, {"class": true})


def test_the_class_table_is_sklearns() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    generator = torch.Generator().manual_seed(0)
    logits, true = torch.randn(300, 4, generator=generator), torch.randint(4, (300,), generator=generator)
    data = Dataset({"image": torch.zeros(300, 3, 4, 4, dtype=torch.uint8)}, Info(class_names=tuple("abcd")))
    found = tasks.find("class").findings(parts_of(logits, true), data, torch.arange(300))
    table = found[0].table("classes")
    precision, recall, f1, n = precision_recall_fscore_support(true, logits.argmax(1), zero_division=np.nan)
    np.testing.assert_allclose(table["precision"], precision)
    np.testing.assert_allclose(table["recall"], recall)
    np.testing.assert_allclose(table["F1"], f1)
    assert table["n"] == n.tolist()


def test_confusions_are_sorted_and_errors_go_by_confidence() -> None:
    p = torch.tensor([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.6, 0.4, 0], [0, 0.3, 0.7], [0.7, 0.2, 0.1]])
    data = Dataset({"image": torch.zeros(5, 3, 4, 4, dtype=torch.uint8)}, Info(class_names=NAMES))
    parts = parts_of(p.clamp(min=1e-6).log(), torch.tensor([0, 0, 0, 1, 2]))
    found = tasks.find("class").findings(parts, data, torch.arange(5))[1]
    pairs, wrong = found.table("confusions"), found.table("confident errors")
    assert pairs["true"] == ["cat", "dog", "cow"]
    assert pairs["predicted"] == ["dog", "cow", "cat"]
    assert pairs["count"] == [2, 1, 1]
    assert pairs["share"] == pytest.approx([2 / 3, 1, 1])
    assert set(wrong["row"][:1]) == {0}
    assert wrong["confidence"] == sorted(wrong["confidence"], reverse=True)
    assert [picture.name for picture in found.pictures[0].pictures] == wrong["image"]


CLASSES = tasks.find("class")


def test_parts_by_loops():
    generator = torch.Generator().manual_seed(0)
    logits, true = torch.randn(40, 12, generator=generator), torch.randint(0, 12, (40,), generator=generator)
    parts = CLASSES.parts({"class": logits}, {"class": true})
    for row in range(40):
        order = logits[row].argsort(descending=True).tolist()
        assert int(parts["predicted"][row]) == order[0]
        assert int(parts["rank"][row]) == order.index(int(true[row]))
    top5 = sum(int(true[i]) in logits[i].topk(5).indices for i in range(40)) / 40
    measured = {metric.name: value for metric, value in CLASSES.measured(parts).items()}
    assert measured["top-5 accuracy"] == pytest.approx(top5)
    assert measured["accuracy"] == pytest.approx(float((logits.argmax(1) == true).float().mean()))


def test_a_class_that_has_no_output_is_never_right():
    parts = CLASSES.parts({"class": torch.eye(3)}, {"class": torch.tensor([0, 1, 3])})
    assert parts["rank"].tolist() == [0, 0, 3]
    assert CLASSES.value(parts) == pytest.approx(2 / 3)


def test_the_proper_scores_of_a_hand_made_case():
    logits = torch.tensor([[0.0, 0.0], [20.0, -20.0]])
    found = CLASSES.confidence({"class": logits}, {"class": torch.tensor([1, 0])})
    assert found.nll.tolist() == pytest.approx([torch.tensor(2.0).log().item(), 0.0], abs=1e-6)
    assert found.brier.tolist() == pytest.approx([0.5, 0.0], abs=1e-6)
