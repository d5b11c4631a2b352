"""The size at which a job reads its data, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rushlight.data.dataset import Dataset
from rushlight.jobs import source

SAID = "rushlight: reading images at 64 × 64 px, for a CPU; choose another with --size N, or load(size=N)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings with which data are loaded; nothing is read."""
    settings: dict[str, Any] = {}

    def load(_: object, **given: object) -> Dataset:
        settings.update(given)
        return Dataset({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)})

    monkeypatch.setattr(source, "load", load)
    return settings


def test_files_are_read_small_for_a_cpu_and_a_line_says_so(folder: Path, capsys: pytest.CaptureFixture) -> None:
    data = source.read(folder, device="cpu", cache=False)
    assert (data.height, data.width) == (64, 64)
    assert capsys.readouterr() == ("", SAID)


def test_a_job_that_trains_nothing_reads_their_own_size(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert source.read(folder, device=None, cache=False).height == 100
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "size"), [({"size": 48}, 48), ({"size": (32, 48)}, (32, 48)), ({}, 64), ({"size": None}, 64)]
)
def test_a_size_that_is_named_is_taken(
    settings: dict, size: object, folder: Path, asked: dict, capsys: pytest.CaptureFixture
) -> None:
    source.read(str(folder), device="cpu", **settings)
    assert asked["size"] == size
    assert bool(capsys.readouterr().err) == (size == 64)


def test_what_is_no_file_keeps_its_size(asked: dict) -> None:
    source.read("fashion", device="cpu")
    source.read({"image": np.zeros((2, 3, 9, 9))}, device="cpu")
    assert "size" not in asked


def test_a_gpu_gets_the_size_that_the_images_call_for(
    folder: Path, asked: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source.hardware, "device", lambda name: "cuda")
    source.read(folder)
    assert "size" not in asked


def test_a_group_is_handed_on_where_one_is_named(asked: dict) -> None:
    source.read("fashion")
    assert "group" not in asked
    source.read("fashion", group="patient")
    assert asked["group"] == "patient"


def test_a_data_set_is_taken_as_it_is(photos: Dataset) -> None:
    assert source.read(photos, device="cpu", size=8) is photos
