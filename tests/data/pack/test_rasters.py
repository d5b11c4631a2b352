"""Masks and depth maps: what their values mean, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rushlight.data.pack.decode import Unreadable
from rushlight.data.pack.rasters import decode_depth, decode_mask

VALUES = (np.arange(8 * 10).reshape(8, 10) % 5).astype(np.uint8)


@pytest.mark.parametrize("mode", ["grey", "palette", "equal colours", "grey and alpha", "16 bits"])
def test_a_mask_is_its_classes(mode: str, tmp_path: Path) -> None:
    image = {
        "grey": lambda: Image.fromarray(VALUES),
        "equal colours": lambda: Image.fromarray(VALUES[..., None].repeat(3, 2)),
        "grey and alpha": lambda: Image.fromarray(np.stack([VALUES, np.full_like(VALUES, 255)], 2)),
        "16 bits": lambda: Image.fromarray(VALUES.astype(np.uint16)),
        "palette": palette,
    }[mode]()
    image.save(tmp_path / "mask.png")
    found = decode_mask(tmp_path / "mask.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, VALUES)


def palette() -> Image.Image:
    image = Image.fromarray(VALUES).convert("P")
    image.putdata(VALUES.flatten().tolist())
    image.putpalette(list(range(255, -1, -1)) * 3)
    return image


def test_colours_and_large_values_name_no_class(tmp_path: Path) -> None:
    colours = np.zeros((8, 8, 3), dtype=np.uint8)
    colours[2, 3, 1] = 1
    Image.fromarray(colours).save(tmp_path / "colours.png")
    with pytest.raises(Unreadable, match="has colours"):
        decode_mask(tmp_path / "colours.png")
    Image.fromarray(np.full((8, 8), 256, dtype=np.uint16)).save(tmp_path / "large.png")
    with pytest.raises(Unreadable, match="values over 255"):
        decode_mask(tmp_path / "large.png")


def test_a_depth_of_nought_was_not_measured_in_whole_numbers(tmp_path: Path) -> None:
    depth = np.array([[0, 1], [300, 65535]], dtype=np.uint16).repeat(4, 0).repeat(4, 1)
    Image.fromarray(depth).save(tmp_path / "d.png")
    np.save(tmp_path / "d.npy", depth)
    expected = np.where(depth > 0, depth.astype(np.float32), np.float32("nan"))
    for name in ("d.png", "d.npy"):
        np.testing.assert_array_equal(decode_depth(tmp_path / name), expected)


def test_a_depth_in_real_numbers_was_measured_where_it_is_finite(tmp_path: Path) -> None:
    depth = np.array([[0.0, -1.5, np.inf, np.nan]])[..., None]
    np.save(tmp_path / "d.npy", depth)
    np.testing.assert_array_equal(decode_depth(tmp_path / "d.npy"), [[0.0, -1.5, np.nan, np.nan]])


def test_what_is_no_depth_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.zeros((4, 4, 3)))
    with pytest.raises(Unreadable, match=r"has the shape \(4, 4, 3\): a depth map holds one number a pixel"):
        decode_depth(tmp_path / "three.npy")
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(Unreadable):
        decode_depth(tmp_path / "objects.npy")
