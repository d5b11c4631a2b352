from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset, Info
from rushlight.data.sources import originals
from rushlight.data.sources.read import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A wide picture whose left half is white, a small one, and a secret beside the folder."""
    photos = tmp_path / "photos"
    photos.mkdir()
    wide = np.zeros((60, 200, 3), dtype=np.uint8)
    wide[:, :100] = 255
    Image.fromarray(wide).save(photos / "a.png")
    Image.fromarray(wide[:20, :30]).save(photos / "b.png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return photos


def test_pixels_come_from_the_files_at_their_own_shape(folder: Path) -> None:
    data = load(folder, size=32, cache=False)
    wide, small = next(originals.pixels(data, torch.arange(2), 100))
    assert wide.shape == (3, 30, 100)
    assert bool((wide[:, :, :48] == 255).all())
    assert bool((wide[:, :, 52:] == 0).all())
    assert small.shape == (3, 20, 30), "nothing is enlarged"
    batches = list(originals.pixels(data, torch.tensor([1, 0, 1]), 100, batch=2))
    assert [[image.shape[1] for image in batch] for batch in batches] == [[20, 30], [20]]
    assert list(originals.pixels(data, torch.arange(0), 100)) == []


def test_without_a_file_the_packed_image_serves(folder: Path) -> None:
    data = load(folder, size=32, cache=False)
    for longest in (None, 100):
        (folder / "a.png").write_bytes(b"broken since")
        image = next(originals.pixels(data, torch.tensor([0]), longest))[0]
        assert torch.equal(image, data["image"][0])
    bare = Dataset({"image": data["image"]})
    assert originals.folder(bare) is None
    assert torch.equal(next(originals.pixels(bare, torch.tensor([1]), 100))[0], data["image"][1])


def test_no_name_leads_out_of_the_folder(folder: Path) -> None:
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    (folder / "in.png").symlink_to(folder / "a.png")
    for name in ("../secret.png", str(folder.parent / "secret.png"), "out.png", "missing.png", "", "a\0b"):
        assert originals.file(folder, name) is None
    assert originals.file(folder, "in.png") == (folder / "a.png").resolve()
    data = Dataset({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "name": encode_text(["x"])}, Info("a\0b"))
    assert originals.folder(data) is None
