"""Packing: every kind of image file, geometry, the cache, and what is left out."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hostile import corpus, jpeg, photo, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, UnidentifiedImageError

from rushlight.core.errors import UserError
from rushlight.data.columns import decode_text
from rushlight.data.pack import write as packing
from rushlight.data.pack.decode import Unreadable, decode, header
from rushlight.data.pack.place import place
from rushlight.data.sources.read import load

BUNDLED = Path(skimage.data.__file__).parent


def packed(folder: Path, **settings):
    return load(folder, cache=settings.pop("cache", False), **settings)


def pixels(path: Path, size=None, **settings) -> np.ndarray:
    """The one image of a folder, H×W×3."""
    return packed(path.parent, size=size, **settings)["image"][0].permute(1, 2, 0).numpy()


def test_every_bundled_image_is_read_like_pillow_reads_it():
    for path in sorted(BUNDLED.iterdir()):
        if path.suffix not in (".png", ".jpg", ".gif", ".tif"):
            continue
        try:
            opened = Image.open(path)
        except UnidentifiedImageError:
            with pytest.raises(Unreadable, match="not an image"):
                header(path)
            continue
        with opened as image:
            if image.mode.startswith(("I", "F")):
                continue
            rgba = image.convert("RGBA")
            white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
            expected = np.asarray(white.resize((64, 64), Image.Resampling.BILINEAR), dtype=float)
        got, head = decode(path, (64, 64), "squash")
        assert (head.height, head.width) == (image.height, image.width)
        assert np.abs(got - expected).mean() < 2.0, path.name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_exif_orientation(tmp_path, orientation, fit):
    upright = photo(3, 48, 96)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        ImageOps.exif_transpose(stored).save(tmp_path / "b.png", exif=b"")
    data = packed(tmp_path, size=(32, 24), fit=fit)
    assert torch.equal(data["size"][0], data["size"][1])
    assert torch.equal(data["to_original"][0], data["to_original"][1])
    difference = (data["image"][0].int() - data["image"][1].int()).abs()
    assert difference.max() <= 2
    assert data["image"][0].float().std() > 10


def test_sixteen_bits_keep_the_high_byte(tmp_path):
    ramp = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png")[..., 0], ramp // 257)


def test_sixteen_bit_tiff_and_floats(tmp_path):
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    assert np.abs(pixels(tmp_path / "a.tif") - ramp[..., None] * 255).max() <= 1


def test_cmyk(tmp_path):
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = pixels(tmp_path / "a.jpg")[16, 16]
    assert red > 200
    assert max(green, blue) < 60


def test_palette_and_one_bit(tmp_path):
    image = photo(1, 32, 32).quantize(16)
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "a.png")
    assert np.array_equal(pixels(tmp_path / "a" / "a.png"), np.asarray(image.convert("RGB")))
    (tmp_path / "b").mkdir()
    bits = Image.fromarray(np.indices((32, 32)).sum(0) % 2 == 0)
    bits.save(tmp_path / "b" / "b.png")
    assert np.array_equal(pixels(tmp_path / "b" / "b.png")[..., 0] == 255, np.asarray(bits))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((10, 10, 10, 255), (0, 0, 16, 32))
    image.convert(mode).save(tmp_path / "a.png", **({"transparency": 0} if mode == "P" else {}))
    got = pixels(tmp_path / "a.png")
    assert got[5, 28].tolist() == [255, 255, 255]
    if mode != "P":
        assert got[5, 3].tolist() == [10, 10, 10]


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_counts(tmp_path, ending):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    red, green, blue = pixels(tmp_path / f"a.{ending}")[16, 16]
    assert red > 240
    assert max(green, blue) < 15


def test_a_large_jpeg_decoded_small_looks_the_same(tmp_path):
    image = Image.open(BUNDLED / "astronaut.png").convert("RGB")
    image.save(tmp_path / "a.jpg", quality=95)
    image.save(tmp_path / "b.png")
    data = packed(tmp_path, size=100)
    assert (data["image"][0].int() - data["image"][1].int()).abs().float().mean() < 2.0


@given(
    st.integers(4, 500), st.integers(4, 500), st.integers(4, 99), st.integers(4, 99),
    st.sampled_from(["squash", "crop", "pad"]),
)  # fmt: skip
def test_placement_maps_its_corners_to_the_kept_box(height, width, tall, wide, fit):
    where = place(height, width, (tall, wide), fit)
    corners = np.array([[where.left, where.top, 1], [where.left + where.width, where.top + where.height, 1]])
    back = corners @ where.to_original.T
    assert np.allclose(back.ravel(), where.box, atol=1e-2)
    assert 0 <= where.left <= where.left + where.width <= wide
    assert 0 <= where.top <= where.top + where.height <= tall
    x1, y1, x2, y2 = where.box
    assert -1e-6 <= x1 < x2 <= width + 1e-6
    assert -1e-6 <= y1 < y2 <= height + 1e-6
    if fit == "crop":
        assert (x2 - x1) / (y2 - y1) == pytest.approx(wide / tall)
    if fit == "pad":
        assert where.width == wide or where.height == tall


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_to_original_points_at_the_same_thing(tmp_path, fit):
    canvas = np.zeros((60, 100, 3), np.uint8)
    canvas[28:36, 44:56] = 255
    Image.fromarray(canvas).save(tmp_path / "a.png")
    data = packed(tmp_path, size=40, fit=fit)
    ys, xs = (data["image"][0, 0] > 128).nonzero().T
    centre = torch.tensor([xs.float().mean() + 0.5, ys.float().mean() + 0.5, 1])
    x, y = (data["to_original"][0] @ centre).tolist()
    assert x == pytest.approx(50, abs=1.3)
    assert y == pytest.approx(32, abs=1.3)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)], (28, 28)),
        ([(224, 224)] * 2, (224, 224)),
        ([(28, 28), (30, 30)], (32, 32)),
        ([(100, 150), (120, 90), (97, 300)], (96, 96)),
        ([(500, 375)], (224, 224)),
        ([(10, 20)], (32, 32)),
        ([(225, 225)], (224, 224)),
    ],
)
def test_the_size_follows_from_the_images(tmp_path, sizes, expected):
    for number, (height, width) in enumerate(sizes):
        save(tmp_path / f"{number}.png", number, height, width)
    data = packed(tmp_path)
    assert (data.height, data.width) == expected


@pytest.mark.parametrize("size", [0, -3, 3, 5000, (32, 1)])
def test_an_impossible_size_is_refused(tmp_path, size):
    save(tmp_path / "a.png")
    with pytest.raises(UserError, match="4 to 4096"):
        packed(tmp_path, size=size)


def test_an_unknown_fit_is_refused(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(UserError, match="squash, crop, pad"):
        packed(tmp_path, fit="stretch")


def test_the_hostile_corpus_is_left_out_and_named(tmp_path):
    words = corpus(tmp_path / "in" / "bad")
    for number in range(3):
        save(tmp_path / "in" / "good" / f"{number}.jpg", number)
    started = time.monotonic()
    data = packed(tmp_path / "in")
    assert time.monotonic() - started < 10
    assert data.names == [f"good/{number}.jpg" for number in range(3)]
    reasons = {entry.name.removeprefix("bad/"): entry.reason for entry in data.info.quarantined}
    assert reasons.keys() == words.keys()
    for name, word in words.items():
        assert word in reasons[name], (name, reasons[name])
        assert "\n" not in reasons[name]
    assert not (tmp_path / "in" / "bad" / "executed").exists()


def test_a_lying_header_costs_no_memory(aside):
    """Decoded, the bombs would need more than the 1 GB that the process was given above its own start."""
    assert aside["memory"] == ["good.png 15"]


def test_links_and_pipes_do_not_lead_out(tmp_path):
    outside = save(tmp_path / "secret" / "s.png", 9)
    inside = save(tmp_path / "in" / "a.png", 1)
    (tmp_path / "in" / "out.png").symlink_to(outside)
    (tmp_path / "in" / "dir").symlink_to(outside.parent)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self.png").symlink_to("self.png")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "z.png").symlink_to(inside)
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    data = packed(tmp_path / "in")
    assert data.names == ["a.png", "z.png"]
    reasons = {entry.name: entry.reason for entry in data.info.quarantined}
    assert reasons.keys() == {"out.png", "dir", "self.png", "gone.png", "pipe.jpg"}
    assert "leads out" in reasons["out.png"]
    assert "leads out" in reasons["dir"]
    assert "regular" in reasons["pipe.jpg"]


def test_a_name_that_is_no_text_is_left_out(tmp_path):
    save(tmp_path / "a.png")
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb") as file:  # noqa: PTH123 – bytes name no Path
        file.write(jpeg())
    data = packed(tmp_path)
    assert data.names == ["a.png"]
    assert "UTF-8" in data.info.quarantined[0].reason


def test_nothing_but_broken_images_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"none of the 1 images .*a\.jpg"):
        packed(tmp_path)


def test_decode_says_why():
    with pytest.raises(Unreadable, match="empty"):
        header(lambda: b"")
    with pytest.raises(Unreadable, match="truncated"):
        decode(lambda: jpeg()[:-300], (32, 32), "squash")
    assert decode(lambda: jpeg(), (32, 32), "squash")[0].shape == (32, 32, 3)


def folder_of(tmp_path: Path, count: int = 6) -> Path:
    for number in range(count):
        save(tmp_path / "in" / "ab"[number % 2] / f"{number}.jpg", number)
    (tmp_path / "in" / "a" / "broken.jpg").write_bytes(b"broken")
    return tmp_path / "in"


def test_the_cache_is_reused(tmp_path, monkeypatch):
    folder = folder_of(tmp_path)
    first = packed(folder, cache=tmp_path / "cache")
    monkeypatch.setattr(packing, "decode", None)  # decoding again would fail
    again = packed(folder, cache=tmp_path / "cache")
    assert again.content_hash == first.content_hash == packing.Dataset.open(_entry(tmp_path)).content_hash
    assert again.info == first.info
    assert again.names == first.names
    assert [entry.name for entry in again.info.quarantined] == ["a/broken.jpg"]


def _entry(tmp_path: Path) -> Path:
    return next(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


def test_memory_and_cache_hold_the_same(tmp_path):
    folder = folder_of(tmp_path)
    assert packed(folder).content_hash == packed(folder, cache=tmp_path / "cache").content_hash
    one = packed(folder, workers=1, cache=tmp_path / "other")
    assert one.content_hash == packed(folder, workers=4).content_hash


@pytest.mark.parametrize("change", ["size", "fit", "new file", "new content", "new label"])
def test_what_changes_the_result_changes_the_key(tmp_path, change):
    folder = folder_of(tmp_path)
    packed(folder, cache=tmp_path / "cache")
    settings: dict = {"size": 48} if change == "size" else {"fit": "crop"} if change == "fit" else {}
    if change == "new file":
        save(folder / "a" / "new.jpg", 77)
    if change == "new content":
        save(folder / "a" / "0.jpg", 78)
    if change == "new label":
        (folder / "a" / "0.jpg").rename(folder / "b" / "0.jpg")
    packed(folder, cache=tmp_path / "cache", **settings)
    assert sum(path.is_dir() for path in (tmp_path / "cache").iterdir()) == 2


@pytest.mark.parametrize("damage", ["cut", "gone", "info", "no seal"])
def test_a_damaged_cache_is_built_anew(tmp_path, damage):
    folder = folder_of(tmp_path)
    expected = packed(folder, cache=tmp_path / "cache").content_hash
    entry = _entry(tmp_path)
    image = entry / "columns" / "image.memmap"
    if damage == "cut":
        os.truncate(image, image.stat().st_size // 2)
    if damage == "gone":
        image.unlink()
    if damage == "info":
        (entry / "info.json").write_text("{")
    if damage == "no seal":
        (entry / "whole.json").unlink()
    assert packed(folder, cache=tmp_path / "cache").content_hash == expected


ASIDE = """
import json, os, resource, signal, sys
import rushlight.data.pack.write as packing
from rushlight.data.pack import cache
from rushlight.data.sources.read import load

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def child(work):
    process = os.fork()
    if not process:
        work()
        os._exit(0)
    return process

def ended(process):
    return os.WTERMSIG(os.waitpid(process, 0)[1])

def pack(name, broken=None):
    if broken:
        setattr(*broken, die)
    data = load(f"{root}/in", cache=f"{root}/{name}")
    with open(f"{root}/{name}.txt", "a") as file:
        print(data.content_hash, file=file)

def held():
    if sys.platform == "linux":
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
    data = load(f"{root}/hostile", cache=False, workers=2)
    with open(f"{root}/memory.txt", "w") as file:
        print(*data.names, len(data.info.quarantined), file=file)

root = sys.argv[1]
for process in [child(lambda: pack("twice")) for _ in range(2)]:
    ended(process)
for broken in ((packing._Job, "_labels"), (cache, "_seal"), (cache, "_sync"), (cache.Path, "rename")):
    died = ended(child(lambda: pack("killed", broken)))
    with open(f"{root}/deaths.txt", "a") as file:
        print(died, sum(".part-" in name for name in os.listdir(f"{root}/killed")), file=file)
ended(child(held))
"""


@pytest.fixture(scope="module")
def aside(tmp_path_factory) -> dict[str, list[str]]:
    """What came out in processes of their own (one import for all): two at once, killed ones, one short of memory."""
    root = tmp_path_factory.mktemp("aside")
    folder_of(root, 20)
    corpus(root / "hostile")
    save(root / "hostile" / "good.png")
    subprocess.run([sys.executable, "-c", ASIDE, str(root)], timeout=120, check=True)
    return {path.stem: path.read_text().splitlines() for path in root.glob("*.txt")} | {"root": [str(root)]}


def test_killed_between_it_leaves_nothing_that_counts(aside):
    """Killed at each step of writing, the next run packs everything, and clears up what the dead left."""
    root = Path(aside["root"][0])
    assert aside["deaths"] == [f"{int(signal.SIGKILL)} 1"] * 4
    assert "killed" not in aside
    assert packed(root / "in", cache=root / "killed").content_hash == packed(root / "in").content_hash
    assert not any(".part-" in path.name for path in (root / "killed").iterdir())


def test_two_runs_at_once_agree(aside):
    root = Path(aside["root"][0])
    assert aside["twice"] == [packed(root / "in").content_hash] * 2
    assert sum(path.is_dir() for path in (root / "twice").iterdir()) == 1


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = folder_of(tmp_path)
    monkeypatch.setattr(packing.os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"disk is full.*--cache"):
        packed(folder, cache=tmp_path / "cache")
    assert not any(path.is_dir() for path in (tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    folder = folder_of(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*--cache"):
        packed(folder, cache=tmp_path / "file" / "cache")


def test_progress_counts_up(tmp_path):
    folder, seen = folder_of(tmp_path, 40), []
    packed(folder, progress=lambda done, all_: seen.append((done, all_)))
    assert seen[-1] == (41, 41)
    assert seen == sorted(seen)


def test_names_and_sizes_are_those_of_the_files(tmp_path):
    save(tmp_path / "ü b.png", 1, 33, 44)
    save(tmp_path / "a.png", 2, 55, 66)
    data = packed(tmp_path)
    assert decode_text(data["name"]) == ["a.png", "ü b.png"]
    assert data["size"].tolist() == [[55, 66], [33, 44]]
