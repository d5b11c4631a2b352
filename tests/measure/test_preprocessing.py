"""What an encoder is given: the order of steps, timm's flags, and each set read once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rushlight.data.synthetic import fashion
from rushlight.measure.features import pooled
from rushlight.measure.preprocessing import Preprocessing, Reader, resize
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo


def model_of(name: str = "conv16", size: int = 28) -> Model:
    return Model(encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size))).eval()


def test_the_order_is_unit_then_size_then_normalisation():
    images = torch.randint(0, 256, (3, 3, 10, 14), dtype=torch.uint8)
    contract = Preprocessing(size=20, unit=255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), antialias=False)
    expected = F.interpolate(images.float() / 255, (20, 28), mode="bilinear", align_corners=False)
    expected = (expected - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    torch.testing.assert_close(contract(images), expected)


def test_a_resize_to_the_same_size_changes_nothing():
    images = torch.rand(2, 3, 12, 9)
    for how in ("bilinear", "bicubic", "nearest"):
        assert resize(images, 9, how) is images
    assert Preprocessing().resize(images) is images


def test_the_flags_of_a_resize_are_part_of_the_contract_since_they_change_it():
    noise = torch.rand(2, 3, 32, 32)
    plain = Preprocessing(size=8, antialias=False)
    for other in (replace(plain, antialias=True), replace(plain, align_corners=True)):
        assert (plain.resize(noise) - other.resize(noise)).abs().max() > 0.2
    with pytest.raises(ValueError, match="antialias"):
        Preprocessing(align_corners=True)
    assert "aligned corners" in str(replace(plain, align_corners=True))


def test_an_encoders_own_contract_gives_its_own_features():
    model, images = model_of(), fashion.load()["image"][:20]
    own = Reader(model).features(images)
    torch.testing.assert_close(own, pooled(model, images), rtol=1e-4, atol=1e-5)
    other = Reader(model, replace(Preprocessing.of(model), mean=(0.0,) * 3, std=(1.0,) * 3)).features(images)
    model.encoder.mean.zero_()
    model.encoder.std.fill_(1)
    torch.testing.assert_close(other, pooled(model, images), rtol=1e-4, atol=1e-5)


def test_timms_weights_bring_their_interpolation():
    model = model_of("vit_tiny_patch16_224", 32)
    model.encoder.model.pretrained_cfg = {"interpolation": "bicubic"}
    assert Preprocessing.of(model).interpolation == "bilinear"
    assert Preprocessing.of(model.with_info(recipe="timm's weights augreg")).interpolation == "bicubic"


def test_a_reader_reads_each_set_once_and_pools_as_told(monkeypatch):
    model, images = model_of("vit64", 28), fashion.load()["image"][:10]
    reader = Reader(model, replace(Preprocessing.of(model), pooling="mean"))
    first = reader.features(images)
    torch.testing.assert_close(first, reader.maps(images).mean((2, 3)))
    monkeypatch.setattr(reader, "_pass", None)
    assert reader.features(images.clone()) is first
    with pytest.raises(TypeError):
        reader.features(images[:5])
