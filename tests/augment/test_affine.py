"""Matrices against torchvision's colours, and against each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from rushlight.augment import affine as m
from rushlight.augment.view import paint

from torchvision.transforms.v2 import functional as tv  # isort: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def colours(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=generator(5)) * 0.6 + 0.2


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.3])
def test_brightness_contrast_and_saturation_are_those_of_torchvision(factor):
    images = colours()
    factors = torch.full((4,), factor)
    assert torch.allclose(paint(images, m.brightness(factors)), tv.adjust_brightness(images, factor), atol=1e-6)
    seen = paint(images, m.saturation(factors))
    assert torch.allclose(
        seen, tv.adjust_saturation(images, factor), atol=1e-3
    )  # torchvision's luma: 0.2989, 0.587, 0.114
    seen = paint(images, m.contrast(factors, m.grey_level(images.mean((2, 3)))))
    assert torch.allclose(seen, tv.adjust_contrast(images, factor), atol=1e-3)


def test_grey_and_inverted_images_are_those_of_torchvision():
    images, drawn = colours(), torch.tensor([True, False, True, False])
    grey = paint(images, m.grayscale(drawn))
    assert torch.allclose(grey[::2], tv.rgb_to_grayscale(images, 3)[::2], atol=1e-3)
    assert torch.allclose(grey[1::2], images[1::2], atol=1e-6)
    inverted = paint(images, m.invert_colour(drawn))
    assert torch.allclose(inverted[::2], 1 - images[::2], atol=1e-6)
    assert torch.equal(inverted[1::2], images[1::2])


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_hue_keeps_the_luma_turns_by_its_angle_and_adds_up(one, two):
    rgb = torch.rand(1, 3, 4, generator=generator())
    turn = m.hue(torch.tensor([one]))
    assert torch.allclose(m.grey_level((turn[:, :, :3] @ rgb)[..., 0]), m.grey_level(rgb[..., 0]), atol=1e-5)
    both = m.chain(m.hue(torch.tensor([two])), turn)
    assert torch.allclose(both, m.hue(torch.tensor([one + two])), atol=1e-5)
    assert torch.allclose(m.hue(torch.tensor([one])), m.hue(torch.tensor([one + 1])), atol=1e-4)


@pytest.mark.parametrize("turn", [-0.1, -0.05, 0.05, 0.1])
def test_hue_turns_the_same_way_and_about_as_far_as_torchvision(turn):
    """Not equal: HSV's hexagon is no circle, and its colours' luma changes."""
    images = colours()
    seen, expected = paint(images, m.hue(torch.full((4,), turn))), tv.adjust_hue(images, turn)
    centred = [x - m.grey_level(x.movedim(1, -1).flatten(0, 2)).view(4, 1, 8, 8) for x in (seen, expected, images)]
    to_expected = F.cosine_similarity(centred[0], centred[1], dim=1).mean()
    to_nothing = F.cosine_similarity(centred[2], centred[1], dim=1).mean()
    assert to_expected > 0.97
    assert to_expected > to_nothing


def test_a_count_of_flops_does_not_depend_on_what_the_process_did_before():
    m._yiq.cache_clear()
    first, again = (count(lambda: m.hue(torch.full((2,), 0.1))) for _ in range(2))
    assert first == again


def count(work) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
