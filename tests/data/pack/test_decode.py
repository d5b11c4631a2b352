"""What a file says about itself, how its values become eight bits, and why it cannot be used."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hostile import jpeg, photo, png, save
from PIL import Image

from rushlight.data.pack.decode import Unreadable, blamed_on_the_file, decode, header, to_uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation: int) -> None:
    """Pillow's own `exif_transpose` says what upright is."""
    from PIL import ImageOps

    exif, kept = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    photo(3).save(kept, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(kept.getvalue())))
    found, head = decode(kept.getvalue, (upright.height, upright.width), "squash")
    assert (head.height, head.width) == (upright.height, upright.width)
    assert head.turned is (orientation > 4)
    np.testing.assert_array_equal(found, np.asarray(upright))


def test_a_header_is_read_without_decoding() -> None:
    cut = jpeg()[:-400]
    assert (header(lambda: cut).height, header(lambda: cut).width) == (40, 56)
    with pytest.raises(Unreadable, match="truncated"):
        decode(lambda: cut, (40, 56), "squash")


def test_borders_are_black() -> None:
    white = np.full((10, 20, 3), 255, dtype=np.uint8)
    found, _ = decode(lambda: white, (20, 20), "pad")
    assert (found[5:15] == 255).all()
    assert not found[:5].any()
    assert not found[15:].any()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 7, 255], dtype=np.uint8), [0, 7, 255]),
        (np.array([False, True]), [0, 255]),
        (np.array([0.0, 0.5, 1.0]), [0, 128, 255]),
        (np.array([0.0, 0.5, 200.4, 300.0, -3.0, np.nan]), [0, 0, 200, 255, 0, 0]),
        (np.array([0, 257, 65535], dtype=np.uint16), [0, 1, 255]),
        (np.array([-5, 3, 255], dtype=np.int32), [0, 3, 255]),
        (np.array([0, 514, 70000], dtype=np.int32), [0, 2, 255]),
    ],
)
def test_values_of_any_type_become_eight_bits(values: np.ndarray, expected: list[int]) -> None:
    assert to_uint8(values).dtype == np.uint8
    assert to_uint8(values).tolist() == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"no image", "not an image of a known format"),
        (png(3, 90, b"\0" * 360), "smaller than"),
        (png(30_000, 30_000, b"\0"), "million pixels, more than the"),
        (png(5_000, 5_000, b"\0"), "which its .* bytes cannot hold"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(content: bytes, says: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # packing silences Pillow's own
        with pytest.raises(Unreadable, match=says) as raised:
            header(lambda: content)
    assert "\n" not in str(raised.value)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="not a regular file"):
        header(tmp_path)
    assert header(save(tmp_path / "a.png")).width == 56


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "too large for the memory"),
        (PermissionError(), "permission denied"),
        (EOFError(), "truncated"),
        (ValueError("line one\n line two"), "broken: line one line two"),
        (ZeroDivisionError(), "broken: ZeroDivisionError"),
        (Unreadable("as it is"), "^as it is$"),
    ],
)
def test_whatever_a_decoder_raises_is_blamed_on_the_file(error: Exception, says: str) -> None:
    with pytest.raises(Unreadable, match=says), blamed_on_the_file():
        raise error
    with pytest.raises(KeyboardInterrupt), blamed_on_the_file():
        raise KeyboardInterrupt
