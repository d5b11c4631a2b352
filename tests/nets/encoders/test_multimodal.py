"""An encoder of several columns: any of them, the same bits as the encoder of images, weights, standardised depth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rushlight.core.errors import UserError
from rushlight.nets import encoders
from rushlight.nets.encoders.multimodal import MultiModal, standardise_depth
from rushlight.nets.layers import depths
from rushlight.nets.vit import fix_positions
from rushlight.run.budget import pass_flops

BOTH = "vit64-p8+image+depth"


def both(seed: int = 0) -> MultiModal:
    encoder = encoders.create(BOTH, image_size=32, seed=seed).eval()
    assert isinstance(encoder, MultiModal)
    return encoder


def given(n: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {"image": torch.rand(n, 3, 32, 32, generator=generator), "depth": torch.rand(n, 32, 32, generator=generator)}


def test_with_images_alone_it_is_the_encoder_of_images() -> None:
    plain = encoders.create("vit64-p8+mean", image_size=32, seed=0).eval()
    fix_positions(plain, column_first=False)
    encoder, images = both(), given()["image"]
    for inputs in (images, {"image": images}):
        torch.testing.assert_close(encoder(inputs), plain(images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoder.maps(inputs), plain.maps(images), atol=1e-5, rtol=1e-5)
    for one, two in zip(encoder.pyramid(images), plain.pyramid(images), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert pass_flops(encoder, 32) == pass_flops(plain, 32)  # a pass stays what it was


def test_every_column_that_is_given_counts_and_nothing_else() -> None:
    encoder, inputs = both(), given()
    whole = encoder(inputs)
    assert whole.shape == (3, 64)
    torch.testing.assert_close(whole, encoder.maps(inputs).mean((2, 3)))
    alone = encoder({"depth": inputs["depth"]})
    assert not torch.isclose(whole, alone).all()
    torch.testing.assert_close(encoder({**inputs, "caption": torch.zeros(3, 4)}), whole)
    moved = {**inputs, "depth": 7 * inputs["depth"] + 3}  # another unit
    torch.testing.assert_close(encoder(moved), whole, atol=1e-3, rtol=1e-3)
    order = {"depth": inputs["depth"], "image": inputs["image"]}
    torch.testing.assert_close(encoder(order), whole)
    with pytest.raises(UserError, match="reads image and depth, and none of them is given"):
        encoder({"caption": torch.zeros(3, 4)})


def test_depth_alone_has_no_adapter_of_images() -> None:
    encoder = encoders.create("vit64-p8+depth", image_size=32, seed=0).eval()
    assert encoder.reads == "depth"
    assert not [name for name in encoder.state_dict() if "patch_embed" in name]
    torch.testing.assert_close(encoder(given()["depth"]), encoder({"depth": given()["depth"]}))
    assert encoder.example(2).shape == (2, 32, 32)
    unknown = torch.full((2, 32, 32), torch.nan)
    assert encoder(unknown).isfinite().all()


def test_it_goes_to_other_sizes_and_has_layers() -> None:
    encoder, inputs = both(), given()
    small = {name: values[..., :16, :24] for name, values in inputs.items()}
    assert encoder.maps(small).shape == (3, 64, 2, 3)
    assert encoder.takes(64)
    assert not encoder.takes(33)
    layers, last = depths(encoder)
    assert layers["depth.weight"] == layers["model.patch_embed.proj.weight"] == 0
    assert layers["model.blocks.3.mlp.fc1.weight"] == last - 1
    assert set(layers) == {name for name, _ in encoder.named_parameters()}
    used = encoder.train()(inputs).sum()
    used.backward()
    assert all(p.grad is not None for p in encoder.parameters())  # as DDP asks


@pytest.mark.parametrize(("name", "says"), [
    ("conv16+image+depth", "take a vision transformer"), ("vit64+depth+sound", "there is no encoder"),
    ("vit64+image", "there is no encoder"),
])  # fmt: skip
def test_what_cannot_read_depth_is_told(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        encoders.create(name, image_size=32)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_of_an_encoder_of_images_leave_the_adapter_of_depth_as_it_is(prefix: str, tmp_path: Path) -> None:
    other = encoders.create("vit64-p8", image_size=32, seed=9)
    save_file({f"{prefix}{name}": v.contiguous() for name, v in other.model.state_dict().items()}, tmp_path / "w")
    loaded = encoders.create(BOTH, image_size=32, seed=0, weights=tmp_path / "w")
    assert torch.equal(loaded.model.blocks[1].mlp.fc1.weight, other.model.blocks[1].mlp.fc1.weight)
    assert torch.equal(loaded.depth.weight, both().depth.weight)
    save_file(both(3).state_dict(), tmp_path / "own")
    own = encoders.create(BOTH, image_size=32, seed=0, weights=tmp_path / "own").eval()
    assert torch.equal(own(given()), both(3)(given()))


def test_depth_is_standardised_by_its_middle_and_by_nothing_else() -> None:
    depth = torch.rand(2, 6, 10, dtype=torch.float32) * 3
    found, known = standardise_depth(depth)
    assert bool(known.all())
    for image, result in zip(depth, found, strict=True):
        middle = image.flatten().sort().values[6:54]  # int(0.1·60) … int(0.9·60)
        expected = (image - middle.mean()) / (middle.var(unbiased=True) + 1e-6).sqrt()
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(standardise_depth(7 * depth + 3)[0], found, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("n", [7, 11, 15, 64, 1024])
def test_the_middle_of_depth_are_the_official_ranks(n: int) -> None:
    depth = torch.rand(1, 1, n, generator=torch.Generator().manual_seed(n))
    ranked = depth.flatten().sort().values[int(0.1 * n) : int(0.9 * n)]  # run_pretraining_multimae.py
    expected = (depth - ranked.mean()) / (ranked.var() + 1e-6).sqrt()
    torch.testing.assert_close(standardise_depth(depth)[0], expected, atol=1e-5, rtol=1e-4)


def test_unknown_depth_is_zero_and_told() -> None:
    depth = torch.rand(1, 6, 10)
    holes = depth.clone()
    holes[0, :2] = torch.nan
    found, known = standardise_depth(holes)
    assert known[0, 2:].all()
    assert not known[0, :2].any()
    assert not found[0, :2].any()
    alone, _ = standardise_depth(depth[:, 2:])
    torch.testing.assert_close(found[:, 2:], alone)
    nothing, none = standardise_depth(torch.full((1, 4, 4), torch.nan))
    assert not nothing.any()
    assert not none.any()
