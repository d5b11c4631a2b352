import pytest
import torch

from rushlight import tasks
from rushlight.core.errors import UserError

TAGS = tasks.find("tags")


def parts(true):
    true = torch.tensor(true, dtype=torch.int8)
    return {"scores": torch.rand(true.shape, generator=torch.Generator().manual_seed(0)), "true": true}


def test_present_tags_alone_have_no_map_but_a_recall():
    only_present = parts([[1, -1], [-1, 1], [1, 1]])
    with pytest.raises(UserError, match="known to be absent"):
        TAGS.value(only_present)
    assert [metric.name for metric in TAGS.measured(only_present)] == ["recall at 0.5"]


def test_data_without_absences_cannot_be_scored_and_says_so():
    data = TAGS.example()
    assert TAGS.unscorable(data) == ""
    positives = data.with_columns(tags=torch.where(data["tags"] == 1, 1, -1).to(torch.int8))
    assert "known to be absent" in TAGS.unscorable(positives)


def test_a_confidence_of_present_tags_alone_says_nothing():
    columns = {"tags": torch.tensor([[1, -1], [1, 1]], dtype=torch.int8)}
    found = TAGS.confidence({"tags": torch.zeros(2, 2)}, columns)
    assert len(found.p) == 3
    with pytest.raises(UserError, match="known to be absent"):
        TAGS.confidences([found])


def test_the_mean_average_precision_is_a_hand_made_one():
    made = {"scores": torch.tensor([[0.9], [0.8], [0.1]]), "true": torch.tensor([[1], [0], [1]], dtype=torch.int8)}
    assert TAGS.value(made) == pytest.approx((1 + 2 / 3) / 2)
