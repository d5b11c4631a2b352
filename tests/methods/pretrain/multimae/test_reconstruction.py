"""Each target's error against plain loops over patches and pixels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rushlight.methods.pretrain.multimae.multimodal import UNKNOWN, label_stride
from rushlight.methods.pretrain.multimae.reconstruction import errors, over_images

PATCH, SIDE, CELLS = 8, 16, 4


def cell(values: torch.Tensor, number: int, side: int = PATCH) -> torch.Tensor:
    """A patch of the last two axes, in reading order."""
    row, column = divmod(number, 2)
    return values[..., row * side : (row + 1) * side, column * side : (column + 1) * side]


@pytest.mark.parametrize("target", ["image", "normalised"])
def test_images(target: str) -> None:
    said, images = torch.randn(2, CELLS, 3 * PATCH**2), torch.rand(2, 3, SIDE, SIDE)
    error, counts = errors(target, said, images, torch.ones(2, SIDE, SIDE, dtype=torch.bool), patch=PATCH)
    assert bool((counts == 1).all())
    for number in range(CELLS):
        patch = cell(images, number).permute(0, 2, 3, 1).flatten(1)  # a pixel's three channels lie side by side
        if target == "normalised":
            patch = (patch - patch.mean(1, keepdim=True)) / (patch.var(1, keepdim=True) + 1e-6).sqrt()
        torch.testing.assert_close(error[:, number], (said[:, number] - patch).square())


def test_depth_is_asked_for_where_it_is_known() -> None:
    said, depth = torch.randn(2, CELLS, PATCH**2), torch.randn(2, SIDE, SIDE)
    known = torch.rand(2, SIDE, SIDE) < 0.7
    error, counts = errors("depth", said, depth, known, patch=PATCH)
    for number in range(CELLS):
        torch.testing.assert_close(error[:, number], (said[:, number] - cell(depth, number).flatten(1)).abs())
        assert torch.equal(counts[:, number].bool(), cell(known, number).flatten(1))


def test_classes_are_asked_for_on_a_coarse_grid() -> None:
    stride, classes = label_stride(PATCH), 5
    side = PATCH // stride
    said = torch.randn(2, CELLS, classes * side**2)
    masks = torch.randint(classes, (2, SIDE, SIDE), dtype=torch.uint8)
    masks[0, :stride, :stride] = UNKNOWN
    error, counts = errors("mask", said, masks, masks != UNKNOWN, patch=PATCH)
    coarse = masks[:, ::stride, ::stride].long()
    for number in range(CELLS):
        for place in range(side**2):
            of = cell(coarse, number, side).flatten(1)[:, place]
            logits = said[:, number].view(2, side**2, classes)[:, place]
            expected = F.cross_entropy(logits, of.clamp(max=classes - 1), reduction="none") * (of != UNKNOWN)
            torch.testing.assert_close(error[:, number, place], expected)
            assert torch.equal(counts[:, number, place].bool(), of != UNKNOWN)


def test_the_mean_is_over_images_that_have_any() -> None:
    error = torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]], [[100.0, 100.0]]], requires_grad=True)
    counts = torch.tensor([[[1.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    loss = over_images(error, counts)
    assert loss.item() == (2 + 7) / 2
    loss.backward()
    assert error.grad is not None
    assert error.grad.flatten().tolist() == [0.25, 0.25, 0, 0.5, 0, 0]
    assert over_images(error, torch.zeros(3, 1, 2)).item() == 0
