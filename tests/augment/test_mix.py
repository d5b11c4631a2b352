"""Mixing: images and targets agree, and shares are exact."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from rushlight.augment.mix import beta, cutmix, mixup


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mixup_blends_images_and_targets_by_one_share():
    images, targets = torch.rand(6, 3, 4, 5), F.one_hot(torch.arange(6)).float()
    mix = mixup(6, generator=generator())
    seen, mixed = mix.images(images), mix.targets(targets)
    for k in range(6):
        other, own = mix.partner[k], mix.share[k]
        assert torch.allclose(seen[k], own * images[k] + (1 - own) * images[other], atol=1e-6)
        assert torch.allclose(mixed[k], own * targets[k] + (1 - own) * targets[other], atol=1e-6)
    assert sorted(mix.partner.tolist()) == list(range(6))
    with pytest.raises(ValueError, match="no mask"):
        mix.masks(torch.zeros(6, 4, 5))


def test_mixup_can_share_one_share():
    assert mixup(9, generator=generator(), one_share=True).share.unique().numel() == 1
    assert mixup(9, generator=generator()).share.unique().numel() == 9


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
def test_cutmix_pastes_one_box_and_counts_its_pixels(height, width, seed):
    images = torch.rand(4, 3, height, width, generator=generator(seed))
    masks = torch.randint(0, 9, (4, height, width), generator=generator(seed))
    mix = cutmix(4, (height, width), generator=generator(seed))
    seen, cut = mix.images(images), mix.masks(masks)
    for k in range(4):
        other, pasted = mix.partner[k], 0
        for row in range(height):
            for column in range(width):
                source = other if mix.pasted[k, row, column] else k
                pasted += int(mix.pasted[k, row, column])
                assert torch.equal(seen[k, :, row, column], images[source, :, row, column])
                assert cut[k, row, column] == masks[source, row, column]
        assert mix.share[k].item() == pytest.approx(1 - pasted / (height * width), abs=1e-6)
        rows, columns = mix.pasted[k].any(1).sum(), mix.pasted[k].any(0).sum()
        assert rows * columns == pasted


def test_cutmix_draws_areas_from_a_range_where_one_is_given():
    mix = cutmix(2000, (16, 16), generator=generator(), area=(0.02, 0.4), ratio=(0.3, 1 / 0.3))
    assert mix.share.min() > 0.5
    assert 0.8 < mix.share.mean() < 0.9
    extra = mix.masks(torch.rand(2000, 2, 16, 16))
    assert extra.shape == (2000, 2, 16, 16)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_beta_is_beta(alpha):
    draws = beta(alpha, 4000, generator())
    assert scipy.stats.kstest(draws.numpy(), scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert torch.equal(draws, beta(alpha, 4000, generator()))


def test_beta_of_a_tiny_alpha_is_a_coin():
    draws = beta(1e-9, 1000, generator())
    assert set(draws.tolist()) == {0.0, 1.0}
    assert 0.4 < draws.mean() < 0.6
