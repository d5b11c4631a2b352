from __future__ import annotations

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic.points import SOLIDS, clouds


def test_each_solid_has_its_surface():
    data = clouds(40, noise=0)
    for row, label in enumerate(data["class"].tolist()):
        far = data["points"][row].norm(dim=1)
        assert 64 <= len(far) <= 256
        spread = float(far.std())
        assert (spread < 1e-4) == (SOLIDS[label] == "sphere"), "only a sphere's points are all equally far"


def test_it_is_a_data_set_like_any_other(tmp_path):
    data = clouds(40, seed=1)
    assert data.input == "points"
    few = hide.per_class(data.fold(TRAIN), 3)
    assert int(few.known("class").sum()) == 12
    few.save(tmp_path / "few")
    again = Dataset.open(tmp_path / "few")
    assert again.content_hash == few.content_hash
    batch = again.batch(torch.arange(5))
    assert batch["points"].shape == (5, int(batch["points_length"].max()), 3)
    assert len(data.fold(TEST)) + len(few) == 40
    assert "points" in repr(data)
    assert clouds(8, seed=1).content_hash != clouds(8, seed=2).content_hash


def test_no_points_are_refused():
    with pytest.raises(UserError, match="fewest"):
        clouds(4, points=(0, 3))
