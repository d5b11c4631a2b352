from __future__ import annotations

import importlib.util
import time
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion


@pytest.fixture(scope="module")
def data() -> Dataset:
    return fashion.load()


def test_rows_folds_and_classes(data):
    assert data["image"].shape == (14_000, 3, 28, 28)
    assert (len(data.fold(TRAIN)), len(data.fold(TEST))) == (12_000, 2_000)
    assert data.known("class").all()
    assert (torch.bincount(data["class"]) > 1_300).all()
    assert data.info.class_names[data["class"][0]] == "ankle boot", "the set's first image is an ankle boot"
    assert torch.equal(data["image"][:, 0], data["image"][:, 2])


def test_photos_are_photos_on_black_ground(data):
    corners = data["image"][:, 0, ::27, ::27].flatten(1)
    assert (corners == 0).float().mean() > 0.9
    assert 60 < data["image"].float().mean() < 90  # the full set's mean is 72.9
    means = torch.stack([data["image"][data["class"] == c, 0].float().mean(0) for c in range(10)])
    test = data.fold(TEST)
    nearest = torch.cdist(test["image"][:, 0].float().flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == test["class"]).float().mean() > 0.6, "labels and images must belong together"


def test_small_and_quick(data):
    assert files("rushlight.data.synthetic").joinpath("fashion.xz").stat().st_size < 7e6
    start = time.process_time()
    fashion.load()
    assert time.process_time() - start < 2
    assert "Zalando" in files("rushlight.data.synthetic").joinpath("fashion.LICENSE").read_text()


def test_select_and_save_work(data, tmp_path):
    part = data.select(torch.arange(0, 14_000, 500))
    part.save(tmp_path / "part")
    assert Dataset.open(tmp_path / "part").content_hash == part.content_hash


def test_the_script_reads_idx_files(tmp_path):
    import gzip

    script = Path(__file__).parents[3] / "scripts/embed_fashion.py"
    spec = importlib.util.spec_from_file_location("embed_fashion", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    header = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3])
    (tmp_path / "x.gz").write_bytes(gzip.compress(header + bytes(range(6))))
    assert module.read_idx(tmp_path / "x.gz").tolist() == [[0, 1, 2], [3, 4, 5]]
