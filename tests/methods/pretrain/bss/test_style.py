"""Batch styles: amplitudes of one image, phases of each; and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rushlight.augment.presets import self_supervised
from rushlight.data.synthetic import fashion
from rushlight.methods.pretrain.bss.style import exchange, joined_row, restyle, standardise, window


def images(n: int = 5, size: tuple[int, int] = (28, 28)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, *size, dtype=torch.float64, generator=generator)


def plain(image: np.ndarray, reference: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    """As the paper's algorithm has it: centred spectra, a window cut out, back; channel by channel."""
    result = np.zeros_like(image)
    for c in range(len(image)):
        f, g = (np.fft.fftshift(np.fft.fft2(x[c])) for x in (image, reference))
        amplitude, phase = np.abs(f), np.angle(f)
        middle = [side // 2 for side in image.shape[1:]]
        for r in range(middle[0] - half[0], middle[0] + half[0] + 1):
            for k in range(middle[1] - half[1], middle[1] + half[1] + 1):
                amplitude[r, k] = np.abs(g[r, k])
        back = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase)))
        assert np.abs(back.imag).max() < 1e-12
        result[c] = back.real
    return result


@pytest.mark.parametrize("size", [(28, 28), (9, 12), (7, 7)])
@pytest.mark.parametrize("half", [(0, 0), (1, 2), (3, 3)])
def test_it_is_the_papers_algorithm(size: tuple[int, int], half: tuple[int, int]) -> None:
    batch = images(size=size)
    found = restyle(batch, batch[2:3], half)
    for n in range(len(batch)):
        np.testing.assert_allclose(found[n].numpy(), plain(batch[n].numpy(), batch[2].numpy(), half), atol=1e-12)


def test_the_reference_comes_out_unchanged_and_twice_is_once() -> None:
    batch = images()
    once = restyle(batch, batch[1:2], (3, 3))
    torch.testing.assert_close(once[1], batch[1])
    torch.testing.assert_close(restyle(once, once[1:2], (3, 3)), once)


def test_means_are_the_references_and_one_frequency_changes_them_alone() -> None:
    batch = images()
    found = restyle(batch, batch[1:2], (2, 2))
    means = batch[1].mean((1, 2)).expand(5, -1)
    torch.testing.assert_close(found.mean((2, 3)), means)
    only = restyle(batch, batch[1:2], (0, 0))
    torch.testing.assert_close(only - only.mean((2, 3), keepdim=True), batch - batch.mean((2, 3), keepdim=True))
    torch.testing.assert_close(only.mean((2, 3)), means)


def test_the_largest_window_gives_all_one_amplitude_and_leaves_phases() -> None:
    batch = images(size=(9, 11))
    found = restyle(batch, batch[:1], window(1.0, 9, 11))
    spectrum = torch.fft.fft2(found)
    torch.testing.assert_close(spectrum.abs(), torch.fft.fft2(batch[:1]).abs().expand_as(batch))
    turned = (spectrum.angle() - torch.fft.fft2(batch).angle()).remainder(2 * torch.pi)
    assert float(torch.minimum(turned, 2 * torch.pi - turned).amax()) < 1e-8


def test_images_of_one_style_and_a_lone_image_stay() -> None:
    generator = torch.Generator().manual_seed(3)
    one = images(1)
    torch.testing.assert_close(standardise(one, area=(0.1, 0.3), generator=generator), one)
    same = images(1).expand(4, -1, -1, -1)
    torch.testing.assert_close(standardise(same, area=(0.1, 0.3), generator=generator), same)


@pytest.mark.parametrize(("area", "half"), [(1.0, (13, 13)), (0.02, (1, 1)), (0.2, (6, 6)), (0.0, (0, 0))])
def test_windows_are_symmetric_about_the_mean(area: float, half: tuple[int, int]) -> None:
    assert window(area, 28, 28) == half


def test_a_shared_style_is_one_and_an_exchanged_one_is_many() -> None:
    photos = fashion.load()["image"][:32].float() / 255
    tints = torch.rand(32, 3, 1, 1, generator=torch.Generator().manual_seed(1)) * 0.8
    batch = photos * 0.2 + tints

    def spread(x: torch.Tensor) -> float:
        return float(x.mean((2, 3)).std(0).mean())

    shared = standardise(batch, area=(0.02, 0.02), generator=torch.Generator().manual_seed(2))
    own = exchange(batch, area=(0.02, 0.02), generator=torch.Generator().manual_seed(2))
    assert spread(shared) < 0.1 * spread(batch)
    assert spread(own) > 0.5 * spread(batch)
    assert float(shared.amin()) >= 0
    assert float(shared.amax()) <= 1


def matches(found: torch.Tensor, batch: torch.Tensor, halves: range) -> set[tuple[int, int]]:
    """(reference, half-width) of which this is the restyled and clipped batch."""
    tried = {
        (row, half): restyle(batch, batch[row : row + 1], (half, half)) for row in range(len(batch)) for half in halves
    }
    return {draw for draw, one in tried.items() if torch.allclose(one.clamp(0, 1), found)}


def test_references_and_windows_are_drawn_from_all_and_values_are_clipped() -> None:
    batch = images(4, size=(15, 15)).round()  # black and white, which no other amplitudes keep within the range
    drawn: set[tuple[int, int]] = set()
    for seed in range(60):
        found = standardise(batch, area=(0.05, 0.3), generator=torch.Generator().manual_seed(seed))
        (draw,) = matches(found, batch, range(8))
        drawn.add(draw)
    assert {row for row, _ in drawn} == {0, 1, 2, 3}
    assert {half for _, half in drawn} == {1, 2, 3, 4}
    assert float(restyle(batch, batch[:1], (4, 4)).amax()) > 1.05


def test_an_exchange_gives_each_image_anothers_style_clipped() -> None:
    batch, halves = images(4, size=(15, 15)).round(), range(8)
    tried = torch.stack([
        torch.stack([restyle(batch, batch[row : row + 1], (half, half)).clamp(0, 1) for row in range(4)])
        for half in halves
    ])  # fmt: skip
    pairs, windows = set(), set()
    for seed in range(40):
        found = exchange(batch, area=(0.05, 0.3), generator=torch.Generator().manual_seed(seed))
        same = (tried - found).abs().amax((3, 4, 5)) < 1e-9  # windows × references × images
        fitting = [half for half in halves if bool(same[half].any(0).all())]
        assert fitting
        if len(fitting) == 1:  # or else each image's style is its own
            windows.add(fitting[0])
            pairs |= {tuple(pair) for pair in same[fitting[0]].nonzero().tolist()}
    assert windows == {1, 2, 3, 4}
    assert len(pairs) == 16


def test_half_precision_is_computed_in_full() -> None:
    batch = images().float()
    with torch.autocast("cpu", torch.bfloat16):
        found = restyle(batch, batch[:1], (2, 2))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, restyle(batch, batch[:1], (2, 2)))
    assert restyle(batch.bfloat16(), batch[:1].bfloat16(), (2, 2)).dtype == torch.float32


def test_the_joined_batchs_row_is_the_row_alone() -> None:
    batch = images()
    torch.testing.assert_close(joined_row(batch, 3), batch[3])


def test_one_colour_for_a_whole_batch() -> None:
    policy = self_supervised(28, scale=(1.0, 1.0), flip=False, blur=0.0, jitter=(0.0, 0.0, 0.8, 0.2))
    photos = torch.full((16, 3, 28, 28), 0.0) + torch.tensor([0.8, 0.3, 0.1]).view(1, 3, 1, 1)
    own, _ = policy.with_view(photos, generator=torch.Generator().manual_seed(0))
    shared, view = policy.with_view(
        photos, generator=torch.Generator().manual_seed(0), shared=torch.Generator().manual_seed(5)
    )
    assert float(own.mean((2, 3)).std(0).amax()) > 0.05
    torch.testing.assert_close(view.colour, view.colour[:1].expand(16, -1, -1))
    torch.testing.assert_close(shared, shared[:1].expand(16, -1, -1, -1), atol=1e-4, rtol=0)
