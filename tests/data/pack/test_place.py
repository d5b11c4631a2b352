"""Where an image lies on its canvas, and how its rasters follow."""

from __future__ import annotations

import numpy as np
import pytest

from rushlight.data.pack.place import FITS, Placement, place, resample


@pytest.mark.parametrize(
    ("fit", "where"),
    [
        ("squash", Placement((0, 0, 100, 50), 0, 0, 20, 20)),
        ("crop", Placement((25, 0, 75, 50), 0, 0, 20, 20)),
        ("pad", Placement((0, 0, 100, 50), 0, 5, 20, 10)),
    ],
)
def test_a_wide_image_on_a_square(fit: str, where: Placement) -> None:
    assert place(50, 100, (20, 20), fit) == where


@pytest.mark.parametrize("fit", FITS)
def test_corners_of_what_is_kept_go_back_to_their_pixels(fit: str) -> None:
    where = place(30, 70, (16, 24), fit)
    corners = np.array([[where.left, where.top, 1], [where.left + where.width, where.top + where.height, 1]])
    np.testing.assert_allclose(corners @ where.to_original.T, np.reshape(where.box, (2, 2)), atol=1e-4)


def test_a_line_keeps_a_pixel_where_it_is_padded() -> None:
    where = place(1, 1000, (32, 32), "pad")
    assert (where.width, where.height) == (32, 1)


def test_each_pixel_of_a_raster_is_the_one_under_its_centre() -> None:
    values = np.arange(6 * 8).reshape(6, 8)
    same = resample(values, place(6, 8, (6, 8), "squash"), (6, 8))
    np.testing.assert_array_equal(same, values)
    halved = resample(values, place(6, 8, (3, 4), "squash"), (6, 8))
    np.testing.assert_array_equal(halved, values[1::2, 1::2])
    middle = resample(values, place(6, 8, (6, 6), "crop"), (6, 8))
    np.testing.assert_array_equal(middle, values[:, 1:7])


def test_a_raster_may_be_smaller_than_its_image() -> None:
    small = np.array([[1, 2], [3, 4]])
    found = resample(small, place(100, 100, (4, 4), "squash"), (100, 100))
    np.testing.assert_array_equal(found, small.repeat(2, 0).repeat(2, 1))
