from __future__ import annotations

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.nets import encoders
from rushlight.nets.dense.decoders import Decoder
from rushlight.run.model import Model


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


def test_an_unknown_encoder_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'resnet18'"):
        encoders.create("resnett18")


def test_an_encoder_of_another_package_is_created_and_loaded_by_its_name(monkeypatch, tmp_path) -> None:
    class Entry:
        def load(self):
            return lambda name, image_size: encoders.Conv(name, 8, image_size)

    monkeypatch.setattr(
        encoders, "entries", lambda group: {"theirs8": Entry()} if group == "rushlight.encoders" else {}
    )
    model = Model(encoders.create("theirs8", image_size=28, seed=3))
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model").encoder
    assert loaded.name == "theirs8"
    images = torch.rand(2, 3, 28, 28)
    torch.testing.assert_close(loaded.eval()(images), model.encoder.eval()(images))
    with pytest.raises(UserError, match=r"there is no encoder 'theirs9'.*theirs8 can be named"):
        encoders.create("theirs9")
