"""The canvas that is chosen, and masks and stated sizes that are not their images'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile import save

from rushlight.core.errors import UserError
from rushlight.data.pack import plan
from rushlight.data.sources.listing import Listing, Shapes


def images(folder: Path, *sizes: tuple[int, int]) -> list:
    return [save(folder / f"{number}.png", number, *size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(50, 50), (50, 50)], 50),  # squares of one size keep it
        ([(300, 300), (300, 300)], 224),
        ([(50, 50), (50, 60)], 32),
        ([(70, 100), (70, 100), (500, 500)], 64),
        ([(10, 20)], 32),
    ],
)
def test_the_canvas_follows_the_median_shorter_side(sizes: list, side: int, tmp_path: Path) -> None:
    assert plan.canvas(None, images(tmp_path, *sizes), 1) == (side, side)


def test_images_that_cannot_be_read_do_not_choose(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    broken = tmp_path / "text.png"
    assert plan.canvas(None, [broken, *images(tmp_path, (50, 50))], 1) == (50, 50)
    assert plan.canvas(None, [broken], 1) == (64, 64)


def test_a_size_that_is_asked_for_is_taken_within_bounds() -> None:
    assert plan.canvas(48, [], 1) == (48, 48)
    assert plan.canvas((32, 4096), [], 1) == (32, 4096)
    for size in (3, (4, 4097)):
        with pytest.raises(UserError, match="must be 4 to 4096 pixels"):
            plan.canvas(size, [], 1)


def test_a_mask_has_its_images_size(tmp_path: Path) -> None:
    one, other = images(tmp_path, (40, 56), (40, 56))
    right, wrong = images(tmp_path / "masks", (40, 56), (40, 55))
    plan.check(Listing("x", ["one", "other"], [one, other], masks=[right, None]), 1)
    listing = Listing("x", ["one", "other"], [one, other], masks=[right, wrong])
    with pytest.raises(UserError, match=r"the mask '.*1\.png' is 55×40 pixels, its image 'other' is 56×40"):
        plan.check(listing, 1)


def test_a_size_that_a_label_file_states_is_the_images(tmp_path: Path) -> None:
    (image,) = images(tmp_path, (40, 56))

    def stated(*size: int) -> Listing:
        shapes = Shapes(size, np.zeros((0, 5)), None, [])
        return Listing("x", ["a.png"], [image], shapes=[shapes], label_file="boxes.json")

    plan.check(stated(40, 56), 1)
    plan.check(stated(0, 0), 1)  # states none
    with pytest.raises(UserError, match=r"'boxes.json' says that 'a.png' is 40×56 pixels, but it is 56×40"):
        plan.check(stated(56, 40), 1)
