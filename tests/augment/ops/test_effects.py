"""Effects against PIL, SciPy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from rushlight.augment.ops import effects


def random_bytes(n: int = 4, size: tuple[int, int] = (13, 10), seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=g)
    images[0] //= 4  # a dark one
    return images


def pictures(images: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


def from_picture(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def test_blur_is_that_of_scipy():
    images = random_bytes().float() / 255
    sigma = torch.tensor([0.1, 0.6, 1.0, 2.0])
    seen = effects.blur(images, sigma)
    for image, s, result in zip(images, sigma.tolist(), seen):
        expected = scipy.ndimage.gaussian_filter(image.numpy(), (0, s, s), mode="mirror", radius=(0, 4, 4))
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_blur_takes_its_width_from_the_largest_sigma_and_never_exceeds_the_image():
    images = torch.rand(2, 3, 4, 3)
    sigma = torch.tensor([0.3, 0.5])
    narrow, wide = effects.blur(images, sigma, largest=0.5), effects.blur(images, sigma, largest=9.0)
    assert (narrow - wide).abs().max() < 0.01
    assert torch.allclose(effects.blur(torch.ones(1, 3, 6, 6), torch.tensor([2.0])), torch.ones(1, 3, 6, 6), atol=1e-6)


def test_solarize_is_that_of_pil():
    images = random_bytes()
    threshold = torch.tensor([0, 64, 128, 256])
    seen = effects.solarize(images.float() / 255, threshold / 255)
    for picture, t, result in zip(pictures(images), threshold.tolist(), seen):
        assert torch.allclose(result, from_picture(ImageOps.solarize(picture, t)), atol=1e-6)


def test_posterize_is_that_of_pil():
    images = random_bytes(8)
    bits = torch.arange(1, 9)
    seen = effects.posterize(images.float() / 255, bits)
    for picture, b, result in zip(pictures(images), bits.tolist(), seen):
        assert torch.allclose(result, from_picture(ImageOps.posterize(picture, b)), atol=1e-6)


def test_sharpness_is_that_of_pil():
    images = random_bytes()
    factor = torch.tensor([0.05, 0.5, 0.95, 1.5])
    seen = effects.sharpness(images.float() / 255, factor)
    for picture, f, result in zip(pictures(images), factor.tolist(), seen):
        expected = from_picture(ImageEnhance.Sharpness(picture).enhance(f))
        assert (result - expected).abs().max() < 2 / 255  # PIL rounds twice
    tiny = torch.rand(2, 3, 2, 5)
    assert torch.equal(effects.sharpness(tiny, factor[:2]), tiny)


def test_equalize_is_that_of_pil():
    images = torch.cat([random_bytes(), torch.full((1, 3, 13, 10), 77, dtype=torch.uint8)])
    images[1] = (torch.linspace(3, 15, 13 * 10) ** 2).view(13, 10).to(torch.uint8)
    seen = effects.equalize(images.float() / 255)
    for picture, result in zip(pictures(images), seen):
        assert torch.allclose(result, from_picture(ImageOps.equalize(picture)), atol=1e-6)


def test_equalize_leaves_the_brightest_level_out_of_its_step_as_pil_does():
    images = random_bytes(2, (40, 40), seed=1)
    images[0, :, 10:] = 250
    images[0].clamp_(max=250)
    seen = effects.equalize(images.float() / 255)
    for picture, result in zip(pictures(images), seen):
        assert torch.allclose(result, from_picture(ImageOps.equalize(picture)), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_cutout_fills_the_pixels_whose_centres_lie_in_the_box(height, width, seed):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, 2, generator=g) * 12 - 3
    boxes = torch.cat([corner, corner + torch.rand(2, 2, generator=g) * 6], 1)
    images = torch.rand(2, 3, height, width, generator=g)
    seen = effects.cutout(images, boxes, fill=0.25)
    for b, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        for row in range(height):
            for column in range(width):
                inside = x1 <= column + 0.5 < x2 and y1 <= row + 0.5 < y2
                expected = torch.full((3,), 0.25) if inside else images[b, :, row, column]
                assert torch.equal(seen[b, :, row, column], expected)


@pytest.mark.parametrize("drawn", [[True, False, True, False], [False] * 4, [True] * 4])
def test_only_the_drawn_rows_change(drawn):
    images = torch.rand(4, 3, 5, 5)
    before, parameters = images.clone(), torch.tensor([0.1, 0.2, 0.3, 0.4])
    seen = effects.on_rows(effects.solarize, images, torch.tensor(drawn), parameters)
    for k in range(4):
        alone = effects.solarize(before[k : k + 1], parameters[k : k + 1])[0]
        assert torch.equal(seen[k], alone if drawn[k] else before[k])
