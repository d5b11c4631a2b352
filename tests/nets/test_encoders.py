from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rushlight.core.errors import UserError
from rushlight.nets import encoders
from rushlight.nets.dense.decoders import Decoder


@pytest.mark.parametrize(
    ("name", "size", "most"),
    [("conv16", 28, 75_000), ("conv32", 33, 300_000), ("vit96", 28, 999_999), ("resnet18", 64, 12_000_000)],
)
def test_shapes(name: str, size: int, most: int) -> None:
    encoder = encoders.create(name, image_size=size, seed=0)
    images = torch.rand(2, 3, size, size)
    levels = encoder.pyramid(images)
    assert sum(parameter.numel() for parameter in encoder.parameters()) <= most
    assert encoder(images).shape == (2, encoder.width)
    assert encoder.maps(images).shape[1] == encoder.width
    assert [level.shape[1] for level in levels] == encoder.channels
    head = Decoder(channels=encoder.channels, strides=encoder.strides, outputs=5)
    assert head(levels).shape[:2] == (2, 5)


@pytest.mark.parametrize("name", ["conv16", "resnet18"])
def test_pooled_features_are_the_mean_of_the_last_map(name: str) -> None:
    encoder = encoders.create(name, image_size=32, seed=0).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images), encoder.maps(images).mean((2, 3)), atol=1e-5, rtol=1e-4)


def test_the_seed_alone_decides_the_weights() -> None:
    one, two, three = (encoders.create("conv16", seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], three[key]) for key in one)
    state = torch.random.get_rng_state()
    encoders.create("vit96", seed=1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = encoders.create("resnet18", image_size=32, seed=1)
    save_file({**source.model.state_dict(), "fc.weight": torch.zeros(2, 512)}, tmp_path / "timm.safetensors")
    save_file(dict(source.state_dict()), tmp_path / "ours.safetensors")
    whole = {f"encoder.{key}": value for key, value in source.state_dict().items()}
    save_file({**whole, "heads.class.weight": torch.zeros(2, 512)}, tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 32, 32)
    for file in ("timm", "ours", "model"):
        loaded = encoders.create("resnet18", image_size=32, seed=2, weights=tmp_path / f"{file}.safetensors")
        torch.testing.assert_close(loaded.eval()(images), source.eval()(images))


def test_weights_that_do_not_fit_are_said(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="do not fit the encoder 'conv16'"):
        encoders.create("conv16", weights=tmp_path / "w.safetensors")
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="never loaded"):
        encoders.create("conv16", weights=tmp_path / "w.pt")


def test_an_unknown_encoder_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'resnet18'"):
        encoders.create("resnett18")


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
