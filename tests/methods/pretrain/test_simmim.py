"""SimMIM: blocks, the mask token, the loss on masked pixels alone, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from margins import Margin
from pretraining import fresh, prepared, probed, trained
from timm.layers import DropPath

from rushlight.augment import mask
from rushlight.methods.pretrain.simmim import SimMIM, block_side


def random_mask(n: int, ratio: float = 0.6) -> torch.Tensor:
    return mask.coarse_patches(n, (4, 4), ratio=ratio, generator=torch.Generator().manual_seed(2))


@pytest.mark.slow
def test_it_learns_features_without_labels(margin: Margin) -> None:
    model = trained("simmim(batch=32)", "vit64-p7", 5e3)
    assert model.encoder.name == "vit64-p7+mean"
    assert not [module for module in model.modules() if isinstance(module, DropPath)]
    before, after = probed(fresh("vit64-p7+mean")), probed(model)
    margin("gain over the untrained", after - before, 0.01)
    margin("accuracy", after, 0.55)


def test_the_loss_is_the_official_one_in_value_and_gradient() -> None:
    """Σ |x̂ − x| over masked pixels, divided by their number (and 1e-5) and the channels."""
    learner = prepared(SimMIM, encoder="vit64-p7", drop_path=0.0).double().eval()
    images, masked = torch.rand(3, 3, 28, 28, dtype=torch.float64), random_mask(3)
    said = []
    learner.predict.register_forward_hook(lambda module, given, result: said.append(result))
    loss = learner.loss(images, masked)
    drawn = torch.zeros(3, 3, 28, 28, dtype=torch.float64)
    for n in range(3):
        for place in range(16):
            r, c = divmod(place, 4)
            patch = said[0][n, place].view(7, 7, 3).permute(2, 0, 1)
            drawn[n, :, 7 * r : 7 * r + 7, 7 * c : 7 * c + 7] = patch
    hidden = mask.masked_pixels(masked, 7)[:, None].double()
    difference = (learner.model.encoder.normalise(images) - drawn).abs() * hidden
    expected = difference.sum() / (hidden.sum() + 1e-5) / 3
    torch.testing.assert_close(loss, expected)
    mine, theirs = (torch.autograd.grad(each, said[0], retain_graph=True)[0] for each in (loss, expected))
    torch.testing.assert_close(mine, theirs)


def test_masked_pixels_are_not_seen() -> None:
    learner = prepared(SimMIM, encoder="vit64-p7", drop_path=0.0).eval()
    images, masked = torch.rand(2, 3, 28, 28), random_mask(2)
    seen = []
    learner.model.encoder.model.blocks.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    learner.loss(images, masked)
    learner.loss(torch.where(mask.masked_pixels(masked, 7)[:, None], torch.rand_like(images), images), masked)
    torch.testing.assert_close(seen[0], seen[1])
    assert seen[0].shape[1] == 1 + 16


@pytest.mark.parametrize(("ratio", "cells"), [(0.6, 10), (0.5, 8), (0.1, 2)])
def test_the_share_of_masked_blocks_is_rounded_up(ratio: float, cells: int) -> None:
    assert cells == math.ceil(ratio * 16)
    assert random_mask(5, ratio).flatten(1).sum(1).tolist() == [cells] * 5


def test_the_mask_token_and_the_linear_layer_learn() -> None:
    learner = prepared(SimMIM, encoder="vit64-p7")
    learner.step(learner.draw(8, 0)).backward()
    assert learner.mask_token.grad.any()
    assert learner.predict.weight.grad.any()


def test_a_block_is_a_sixth_of_the_image_or_what_divides_it() -> None:
    assert block_side((12, 12)) == 2
    assert block_side((14, 14)) == 2
    assert block_side((4, 4)) == 1
    assert block_side((7, 7)) == 1
    assert block_side((24, 12)) == 2
