from __future__ import annotations

import pytest
import torch
from torch import nn

from rushlight.core.errors import UserError
from rushlight.nets import encoders


@pytest.mark.parametrize(
    ("name", "shape"), [("conv16", (2, 3, 28, 28)), ("vit64", (2, 3, 28, 28)), ("ngram64", (2, 32))]
)
def test_an_example_is_what_the_encoder_reads(name: str, shape: tuple[int, ...]) -> None:
    encoder = encoders.create(name, image_size=28, seed=0)
    one, two = (encoder.example(2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.shape == shape
    assert torch.equal(one, two)
    assert encoder(one).shape == (2, encoder.width)


def test_an_example_has_the_size_that_is_wanted() -> None:
    assert encoders.create("conv16").example(1, (24, 40)).shape == (1, 3, 24, 40)
    assert encoders.create("conv16").example(1, 20).shape == (1, 3, 20, 20)
    assert encoders.create("ngram64").example(1, 7).shape == (1, 7)


def test_images_are_brought_to_the_range_of_0_to_1() -> None:
    ready = encoders.create("conv16").prepare(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1))
    torch.testing.assert_close(ready.flatten(), torch.tensor([0.0, 0.2, 1.0]))


def test_an_encoder_without_maps_says_so() -> None:
    encoder = encoders.create("ngram64")
    with pytest.raises(UserError, match="'ngram64' reads the column 'caption' and has no feature maps"):
        encoder.maps(encoder.example(1))


def test_only_weights_of_rank_4_are_laid_out_channels_last() -> None:
    module = nn.ModuleList([nn.Conv2d(2, 4, 3), nn.Conv3d(2, 4, 3), nn.Linear(4, 4)])
    before = [parameter.detach().clone() for parameter in module.parameters()]
    encoders.arrange(module)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not module[0].weight.is_contiguous()
    assert module[1].weight.is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
