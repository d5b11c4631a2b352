from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hostile import save
from PIL import Image

from rushlight.core.errors import UserError
from rushlight.data.sources.read import load
from rushlight.jobs.command import repeat
from rushlight.jobs.look.run import look


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


def test_depth_comes_from_exr(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    values = np.linspace(0, 5, 24 * 24, dtype=np.float32).reshape(24, 24)
    values[1, 1], values[2, 2] = np.nan, np.inf
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    other = np.zeros_like(values)
    colours = {"R": values, "G": other, "B": other}
    layers = {"a": {"Z": values, "A": other}, "b": {"Y": values}, "c": colours, "d": {"D": values}}
    for name, channels in layers.items():
        save(tmp_path / "in" / f"{name}.png", height=24, width=24)
        (tmp_path / "depth").mkdir(exist_ok=True)
        exr.File(header, channels).write(str(tmp_path / "depth" / f"{name}.exr"))
    data = load(tmp_path / "in", depth=tmp_path / "depth", cache=False, size=24)
    assert not data.info.quarantined
    for found in data["depth"]:
        assert found[1, 1].isnan()
        assert found[2, 2].isnan()
        assert found.isnan().sum() == 2, "0 is a distance where floats can say that nothing was measured"
        assert torch.equal(found[3:], torch.from_numpy(values)[3:])
    (tmp_path / "depth" / "a.exr").write_bytes(b"no EXR")
    broken = load(tmp_path / "in", depth=tmp_path / "depth", cache=False, size=24)
    assert [entry.name for entry in broken.info.quarantined] == ["a.exr"]
    assert broken.known("depth").tolist() == [False, True, True, True]


def test_without_its_package_exr_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    save(tmp_path / "in" / "a.png")
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "a.exr").write_bytes(b"anything")
    data = load(tmp_path / "in", depth=tmp_path / "depth", cache=False)
    assert data.info.quarantined[0].name == "a.exr"
    assert "pip install 'rushlight[depth]'" in data.info.quarantined[0].reason


def test_a_depth_map_of_other_proportions_is_unknown_and_named(tmp_path):
    (tmp_path / "depth").mkdir()
    for name, shape in (("a", (30, 40)), ("b", (15, 20)), ("c", (31, 40)), ("d", (40, 30)), ("e", (30, 20))):
        save(tmp_path / "in" / f"{name}.png", height=30, width=40)
        np.save(tmp_path / "depth" / f"{name}.npy", np.ones(shape, dtype=np.float32))
    data = load(tmp_path / "in", depth=tmp_path / "depth", cache=False)
    assert data.known("depth").tolist() == [True, True, True, False, False]
    assert [entry.name for entry in data.info.quarantined] == ["d.npy", "e.npy"]
    assert "is 30×40 pixels, and its image 40×30" in data.info.quarantined[0].reason


def test_what_was_named_is_carried_on_to_the_command_that_repeats_a_job(tmp_path):
    for fold in ("in/cat", "in/dog", "depth"):
        for name in ("a", "b") if fold != "depth" else ():
            save(tmp_path / fold / f"{fold[-3:]}-{name}.png", height=32, width=32)
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "cat-a.npy", np.ones((32, 32), dtype=np.float32))
    for cache in (tmp_path / "cache", tmp_path / "cache"):  # written, and found
        data = load(tmp_path / "in", depth=tmp_path / "depth", cache=cache)
        assert data.loaded is not None
        assert data.loaded["depth"] == str(tmp_path / "depth")
        assert f"--depth {tmp_path / 'depth'}" in repeat("compare", data, seeds=3)
    assert "--depth" not in repeat("compare", load(tmp_path / "in", cache=tmp_path / "cache"), seeds=3)
    with pytest.raises(UserError, match=r"the folder of depth maps '.*/deepth' does not exist.*Did you mean 'depth'"):
        load(tmp_path / "in", depth=tmp_path / "deepth", cache=False)


def test_depth_maps_of_other_images_are_refused(tmp_path):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "depth" / "z.png")
    with pytest.raises(UserError, match="no depth map in"):
        load(tmp_path / "in", depth=tmp_path / "depth", cache=False)


def test_maps_that_cannot_be_used_are_named_by_their_path_and_spare_ones_too(tmp_path):
    for name in ("a/1.png", "a/2.png"):
        save(tmp_path / "in" / name)
        (tmp_path / "depth" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save((tmp_path / "depth" / name).with_suffix(".npy"), np.ones((20, 30) if "1" in name else (5, 90)))
    np.save(tmp_path / "depth" / "nobody.npy", np.ones((20, 30)))
    data = load(tmp_path / "in", depth=tmp_path / "depth", size=32, cache=False)
    assert len(data) == 2
    for entry in data.info.quarantined:
        assert entry.name == f"a/{entry.name[2:]}"
        assert "the depth of 'a/" in entry.reason
        assert "is unknown" in entry.reason
    assert data.info.quarantined
    assert any("depth maps that were not used: nobody.npy" in said for said in look(data).warnings)
