"""Patch masks: exact counts, even shares, rectangles."""

from __future__ import annotations

import math

import pytest
import torch

from rushlight.augment.mask import block_patches, coarse_patches, masked_pixels, random_patches, visible


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("grid", "ratio"), [((4, 4), 0.75), ((7, 5), 0.5), ((14, 14), 0.75), ((3, 3), 0.0), ((3, 3), 1.0)]
)
def test_random_masks_have_an_exact_count_and_treat_patches_alike(grid, ratio):
    masked = random_patches(2000, grid, ratio=ratio, generator=generator())
    patches = grid[0] * grid[1]
    kept = int(patches * (1 - ratio))
    assert masked.flatten(1).sum(1).eq(patches - kept).all()
    share = 1 - kept / patches
    bound = 5 * math.sqrt(share * (1 - share) / 2000) + 1e-9
    assert (masked.float().mean(0) - share).abs().max() < bound
    assert torch.equal(masked, random_patches(2000, grid, ratio=ratio, generator=generator()))


def test_visible_patches_are_those_not_masked():
    masked = random_patches(5, (4, 6), ratio=0.5, generator=generator())
    for row, numbers in zip(masked.flatten(1), visible(masked)):
        assert numbers.tolist() == [k for k in range(24) if not row[k]]


def test_coarse_masks_are_whole_blocks_of_a_rounded_up_count():
    masked = coarse_patches(50, (8, 4), ratio=0.6, block=2, generator=generator())
    blocks = masked.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    assert torch.equal(blocks.any(3), blocks.all(3))
    assert blocks.all(3).flatten(1).sum(1).eq(math.ceil(0.6 * 8)).all()
    with pytest.raises(ValueError, match="does not divide"):
        coarse_patches(1, (5, 4), block=2, generator=generator())


def edges(masked):
    """Neighbours of which one is masked and the other is not."""
    return (masked[:, 1:] != masked[:, :-1]).sum((1, 2)) + (masked[:, :, 1:] != masked[:, :, :-1]).sum((1, 2))


def test_block_masks_never_exceed_their_share_and_come_near_it():
    masked = block_patches(500, (14, 14), ratio=0.3, generator=generator())
    counts = masked.flatten(1).sum(1)
    assert counts.max() <= int(0.3 * 196)
    assert counts.float().mean() > 0.95 * 0.3 * 196
    one = block_patches(300, (10, 12), ratio=0.3, rounds=1, generator=generator())
    rows, columns = one.any(2).sum(1), one.any(1).sum(1)
    assert torch.equal(one.flatten(1).sum(1), rows * columns)
    assert int(rows.max()) < 10
    assert int(columns.max()) < 12
    assert not block_patches(3, (2, 2), ratio=0.1, generator=generator()).any()


@pytest.mark.parametrize(
    ("grid", "ratio", "count", "boundary"),  # means over 3,000 masks of the official loop (bytedance/ibot, loader.py)
    [((14, 14), 0.3, 57.27, 35.06), ((14, 14), 0.5, 97.54, 42.69), ((7, 7), 0.3, 13.93, 16.03), ((4, 4), 0.5, 8, 9.06)],
)
def test_block_masks_are_as_large_and_as_compact_as_the_official_ones(grid, ratio, count, boundary):
    masked = block_patches(1500, grid, ratio=ratio, generator=generator())
    assert float(masked.flatten(1).sum(1).float().mean()) == pytest.approx(count, rel=0.01)
    assert float(edges(masked).float().mean()) == pytest.approx(boundary, rel=0.03)  # deviation of the mean: 0.5 %


def test_masked_pixels_are_those_of_masked_patches():
    masked = random_patches(2, (2, 3), ratio=0.5, generator=generator())
    pixels = masked_pixels(masked, 4)
    assert pixels.shape == (2, 8, 12)
    for row in range(8):
        for column in range(12):
            assert torch.equal(pixels[:, row, column], masked[:, row // 4, column // 4])
