from __future__ import annotations

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.nets import encoders


@pytest.mark.parametrize(
    ("name", "cells", "larger"),
    [
        ("vit_tiny_patch16_224", 4, True),
        ("test_mambaout", 2, True),  # channels last
        ("gmlp_ti16_224", 4, False),  # no class token, no `patch_embed`
        ("levit_128s", 1, False),  # tokens of a convolutional stem
        ("pit_ti_224", 2, False),
        ("coat_tiny", 2, False),  # several streams of tokens
        ("efficientformerv2_s0", 2, False),  # convolutions with attention biases of one size
    ],
)
def test_maps_and_sizes_of_timms_families(name: str, cells: int, larger: bool) -> None:
    encoder = encoders.create(name, image_size=64, seed=0).train()
    assert encoder.takes(64)
    assert encoder.takes(96) is larger
    assert encoder.training
    with torch.no_grad():
        maps = encoder.eval().maps(torch.rand(2, 3, 64, 64))
    assert maps.shape == (2, encoder.channels[-1], cells, cells)


def test_which_sizes_an_encoder_takes() -> None:
    assert encoders.create("conv16").takes(37)
    assert encoders.create("vit64", image_size=28).takes(48)
    assert not encoders.create("vit64", image_size=28).takes(30)
    assert encoders.create("vit_tiny_patch16_224", image_size=32).takes(48)
    fixed = encoders.create("cait_xxs24_224", image_size=64)
    assert fixed.takes(64)
    assert not fixed.takes(96)


@pytest.mark.parametrize(
    ("name", "size"), [("eva02_tiny_patch14_224", 70), ("vit_small_patch14_dinov2", 70), ("crossvit_tiny_240", 240)]
)
def test_a_size_that_an_encoder_cannot_read_is_named_with_one_that_it_can(name: str, size: int) -> None:
    with pytest.raises(UserError, match=f"'{name}' does not read images of 64 × 64 pixels .* --size {size}"):
        encoders.create(name, image_size=64)
