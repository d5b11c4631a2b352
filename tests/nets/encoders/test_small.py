from __future__ import annotations

from itertools import pairwise

import pytest

from rushlight.core.errors import UserError
from rushlight.nets.encoders.small import SMALL, VITS, Conv, small_transformer, small_vit


@pytest.mark.parametrize(("size", "patch"), [(28, 4), (64, 4), (96, 8), (128, 8), (224, 16)])
def test_patches_grow_with_the_image(size: int, patch: int) -> None:
    assert small_vit("vit64", size).model.patch_embed.patch_size == (patch, patch)


def test_a_name_may_say_how_large_patches_are() -> None:
    encoder = small_vit("vit64-p7", 28)
    assert encoder.model.patch_embed.patch_size == (7, 7)
    assert encoder.name == "vit64-p7"
    for name in ("vit64-p5", "vit64-p0", "vit64-px"):
        with pytest.raises(UserError, match="do not divide into patches"):
            small_vit(name, 28)


def test_which_names_are_small_transformers() -> None:
    assert [name for name in SMALL if small_transformer(name)] == list(VITS)
    assert small_transformer("vit96-p7+mean")
    assert not small_transformer("vit_tiny_patch16_224")


@pytest.mark.parametrize("width", [16, 32])
def test_the_parameters_of_the_convolutions_by_hand(width: int) -> None:
    channels = [3, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
    wanted = sum(9 * i * o + 2 * o for i, o in pairwise(channels))
    assert sum(parameter.numel() for parameter in Conv("conv", width).parameters()) == wanted
