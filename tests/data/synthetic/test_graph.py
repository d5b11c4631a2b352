from __future__ import annotations

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.edit.split import blind
from rushlight.data.synthetic.graph import communities


def test_neighbours_are_mostly_of_one_class():
    data = communities(2000, classes=5, degree=8, within=0.7)
    source, target = data["edges"]
    same = float((data["class"][source] == data["class"][target]).double().mean())
    assert same == pytest.approx(0.7 + 0.3 / 5, abs=0.03)
    assert len(source) / 2000 == pytest.approx(8, abs=0.3)
    assert torch.equal(data["edges"].flip(0)[:, torch.argsort(target * 2000 + source)], data["edges"])


def test_methods_see_the_training_nodes_or_all_without_their_labels(tmp_path):
    data = communities(300)
    inductive, transductive = data.fold(TRAIN), blind(data)
    test = data["fold"] == TEST
    assert inductive["edges"].shape[1] < data["edges"].shape[1]
    assert int(inductive["edges"].max()) < len(inductive)
    assert torch.equal(transductive["edges"], data["edges"])
    assert torch.equal(transductive.known("class"), ~test)
    inductive.save(tmp_path / "part")
    again = Dataset.open(tmp_path / "part")
    assert torch.equal(again["edges"], inductive["edges"])
    assert again.content_hash == inductive.content_hash


def test_impossible_graphs_are_refused():
    with pytest.raises(UserError, match="a node a class"):
        communities(2)
