"""Stains: scikit-image's colour spaces, Reinhard's normalisation, and what the random ones reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import color

from rushlight.data.synthetic import tissue
from rushlight.methods.pretrain.histopath_ssl import stain


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return tissue.compose(24, labs=(0, 1, 2), seed=4)["image"].float() / 255


def test_spaces_are_scikit_images_and_go_back(images: torch.Tensor) -> None:
    pixels = images.double().permute(0, 2, 3, 1).numpy()
    for name, theirs in (("lab", color.rgb2lab), ("hed", color.rgb2hed)):
        mine = {"lab": stain.rgb_to_lab, "hed": stain.rgb_to_hed}[name]
        found = mine(images.double()).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(found, theirs(pixels), atol=0.02 if name == "lab" else 1e-6)
    torch.testing.assert_close(stain.lab_to_rgb(stain.rgb_to_lab(images)), images, atol=2e-3, rtol=0)
    mixed = torch.rand(3, 3, 4, 4, dtype=torch.float64) * 0.05
    np.testing.assert_allclose(
        stain.hed_to_rgb(mixed).permute(0, 2, 3, 1).numpy(), color.hed2rgb(mixed.permute(0, 2, 3, 1).numpy()), atol=1e-6
    )
    torch.testing.assert_close(stain.rgb_to_hed(stain.hed_to_rgb(mixed)), mixed, atol=1e-6, rtol=0)


def test_ruifroks_stains_give_back_their_concentrations() -> None:
    amount = torch.rand(2, 3, 5, 5, dtype=torch.float64) * 0.04
    amount[:, 2] = 0
    matrix = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=torch.float64)
    density = torch.einsum("bshw,sc->bchw", amount, matrix)
    rgb = (-density * math.log(1e6)).exp()
    torch.testing.assert_close(stain.rgb_to_hed(rgb), amount, atol=1e-6, rtol=0)


def test_without_spread_it_is_reinhards_normalisation(images: torch.Tensor) -> None:
    measured = stain.Statistics.of((255 * images).byte())
    fixed = stain.Statistics(
        "lab", *(torch.stack([t[0], torch.zeros(3)]) for t in (measured.means, measured.deviations))
    )
    values = stain.rgb_to_lab(stain.restain(images, fixed, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(values.mean((2, 3)), measured.means[0].expand(24, -1), atol=1.5, rtol=0)
    torch.testing.assert_close(
        values.std((2, 3), unbiased=False), measured.deviations[0].expand(24, -1), atol=2.0, rtol=0
    )


def test_statistics_are_of_images_not_of_pixels(images: torch.Tensor) -> None:
    found, lab = stain.Statistics.of((255 * images).byte()), stain.rgb_to_lab((255 * images).byte().float() / 255)
    means = torch.stack([image.flatten(1).mean(1) for image in lab])
    expected = torch.stack([means.mean(0), means.std(0, unbiased=False)])
    torch.testing.assert_close(found.means, expected, atol=1e-3, rtol=1e-3)


def test_the_statistics_of_one_image_have_no_width(images: torch.Tensor) -> None:
    found = stain.Statistics.of((255 * images[:1]).byte())
    assert not found.means[1].any()
    assert not found.deviations[1].any()


def randstainna(image: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """One RGB image in [0, 1] (height, width, 3) on its way through RandStainNA, channel by channel, to means and
    deviations that were drawn; written from the paper and scikit-image's Lab, whose ends are those of 8 bits."""
    lab = color.rgb2lab(image)
    for channel, (low, high) in enumerate([(0, 100), (-128, 127), (-128, 127)]):
        x = lab[..., channel]
        scale = deviations[channel] / min(max(float(x.std()), 1e-4), 255)
        lab[..., channel] = np.clip(scale * (x - x.mean()) + means[channel], low, high)
    return color.lab2rgb(lab)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")
@pytest.mark.parametrize("spread", [0.0, -0.3])
@pytest.mark.parametrize("distribution", ["normal", "laplace", "uniform"])
def test_at_the_same_draw_it_is_randstainna(images: torch.Tensor, distribution: str, spread: float) -> None:
    measured = stain.Statistics.of((255 * images).byte())
    found = stain.restain(images.double(), measured, distribution=distribution, spread=spread,
                          generator=torch.Generator().manual_seed(3))  # fmt: skip
    draw = stain._drawn(distribution, (2, 24, 3), torch.Generator().manual_seed(3)).numpy()
    wide = 1.0 if distribution == "uniform" else 1 + spread
    means, deviations = (
        table[0] + draw[i] * wide * table[1]
        for i, table in enumerate((measured.means.numpy(), measured.deviations.numpy()))
    )
    pixels = images.double().permute(0, 2, 3, 1).numpy()
    expected = np.stack([randstainna(*each) for each in zip(pixels, means, deviations.clip(min=0))])
    np.testing.assert_allclose(255 * found.permute(0, 2, 3, 1).numpy(), 255 * expected, atol=1)
    assert np.abs(expected - pixels).mean() > 0.05  # it does something


@pytest.mark.parametrize("distribution", ["normal", "laplace", "uniform"])
def test_draws_have_their_width(distribution: str) -> None:
    drawn = stain._drawn(distribution, (2, 20_000, 3), torch.Generator().manual_seed(0))
    assert float(drawn.mean().abs()) < 0.02
    width = {"normal": 1.0, "laplace": 2**0.5, "uniform": 3**0.5}  # NumPy's at scale 1, and even in ± 3
    assert float(drawn.std()) == pytest.approx(width[distribution], rel=0.03)


def test_stains_vary_and_tissue_stays(images: torch.Tensor) -> None:
    measured = stain.Statistics.of((255 * images).byte())
    one = stain.restain(images, measured, generator=torch.Generator().manual_seed(0))
    other = stain.restain(images, measured, generator=torch.Generator().manual_seed(1))
    assert float((one.mean((2, 3)) - other.mean((2, 3))).abs().mean()) > 0.02
    grey, before = one.mean(1).flatten(1), images.mean(1).flatten(1)
    agree = [float(torch.corrcoef(torch.stack([a, b]))[0, 1]) for a, b in zip(grey, before, strict=True)]
    assert np.median(agree) > 0.9
    still = stain.restain(images, measured, probability=0.0, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(still, images)


def test_hed_jitter_scales_each_stain(images: torch.Tensor) -> None:
    moved = stain.jitter_hed(images, strength=0.2, generator=torch.Generator().manual_seed(0))
    assert float((moved - images).abs().mean()) > 0.005
    nothing = stain.jitter_hed(images, strength=0.0, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nothing, images, atol=1e-5, rtol=0)
    assert float(moved.amin()) >= 0
    assert float(moved.amax()) <= 1
