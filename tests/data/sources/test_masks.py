from __future__ import annotations

import numpy as np
import pytest
import torch
from hostile import save
from PIL import Image

from rushlight.core.errors import UserError
from rushlight.data.sources.read import load


def test_depth_comes_from_a_folder(tmp_path):
    """A 16-bit PNG, a NPY of another size, and an image without any; the folder's own PNG files are no images."""
    root, depth = tmp_path / "d", tmp_path / "d" / "depth"
    for name in ("a.png", "b.png", "c.png"):
        save(root / name, height=32, width=32)
    depth.mkdir()
    values = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 50
    Image.fromarray(values).save(depth / "a.png")
    half = np.linspace(0.5, 2, 16 * 16, dtype=np.float32).reshape(16, 16)
    half[0, 0] = np.inf
    np.save(depth / "b.npy", half)
    data = load(root, depth=depth, cache=tmp_path / "cache")
    assert data.names == ["a.png", "b.png", "c.png"]
    assert "class" not in data
    a, b, c = data["depth"]
    assert a[0, 0].isnan(), "0 is no distance"
    assert torch.equal(a.flatten()[1:], torch.from_numpy(values.astype(np.float32)).flatten()[1:])
    assert torch.equal(b[2:, 2:], torch.from_numpy(half).repeat_interleave(2, 0).repeat_interleave(2, 1)[2:, 2:])
    assert b[:2, :2].isnan().all()
    assert c.isnan().all()
    assert data.known("depth").tolist() == [True, True, False]


def test_a_depth_map_that_cannot_be_read_is_unknown_and_named(tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, height=32, width=32)
        (tmp_path / "depth").mkdir(exist_ok=True)
        (tmp_path / "depth" / name.replace("png", "npy")).write_bytes(b"no array")
    np.save(tmp_path / "depth" / "b.npy", np.ones((4, 4, 3)))
    data = load(tmp_path / "in", depth=tmp_path / "depth", cache=False)
    assert data["depth"].isnan().all()
    assert [entry.name for entry in data.info.quarantined] == ["a.npy", "b.npy"]
    assert "one number a pixel" in data.info.quarantined[1].reason


def test_depth_maps_of_other_images_are_refused(tmp_path):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "depth" / "z.png")
    with pytest.raises(UserError, match="no depth map in"):
        load(tmp_path / "in", depth=tmp_path / "depth", cache=False)
