"""Probes of feature maps: classes of pixels and boxes."""

from __future__ import annotations

import pytest
import torch
from margins import Margin
from torch.nn import functional as F

from rushlight.methods.evaluate.backbones import dense_probe
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo


def model_of(name: str = "conv16", size: int = 28) -> Model:
    return Model(encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size))).eval()


def test_a_linear_decoder_reads_classes_that_lie_in_the_map(margin: Margin):
    masks = torch.randint(0, 3, (60, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    maps = F.one_hot(masks.long(), 3).permute(0, 3, 1, 2).float() + 0.1
    masks[:, 0, 0] = 255
    decoder = dense_probe.segmentation(maps[:40], masks[:40], 3)
    margin("mIoU", dense_probe.mask_score(decoder, maps[40:], masks[40:], 3), 0.99)
    noise = torch.randn(60, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    blind = dense_probe.segmentation(noise, masks, 3)
    margin("mIoU from noise", dense_probe.mask_score(blind, noise.flip(0), masks, 3), 0.5, below=True)


def planted(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of 8×8 cells in which a box's cell holds its class and its half-sides; and the boxes on 64×64 pixels."""
    generator = torch.Generator().manual_seed(seed)
    maps, boxes = 0.02 * torch.randn(n, 4, 8, 8, generator=generator), torch.zeros(n, 1, 6)
    row, column, label = (torch.randint(2, 6, (n,), generator=generator) for _ in range(3))
    label, half = label % 2, torch.randint(8, 16, (n,), generator=generator).float()
    every = torch.arange(n)
    maps[every, label, row, column] += 1
    maps[every, 2, row, column] = half / 16
    x, y = 8 * column + 4.0, 8 * row + 4.0
    boxes[:, 0] = torch.stack([x - half, y - half, x + half, y + half, label.float(), torch.ones(n)], 1)
    return maps, boxes


def test_a_centre_head_finds_planted_boxes(margin: Margin):
    (maps, boxes), (other, true) = planted(200, 0), planted(60, 1)
    head = dense_probe.detection(maps, boxes, (64, 64), 2)
    found = dense_probe.box_score(head, other, true, (64, 64))
    margin("AP50", found["AP50"], 0.9)
    margin("AP", found["AP"], 0.5)
    swapped = true.clone()
    swapped[..., 4] = 1 - swapped[..., 4]
    wrong = dense_probe.box_score(head, other, swapped, (64, 64))
    margin("AP50 of wrong classes", wrong["AP50"], 0.5, below=True)


def test_boxes_are_assigned_to_the_cell_of_their_centre_the_smallest_first():
    boxes = torch.tensor([[[0, 0, 32, 16, 1, 1], [12, 4, 20, 12, 0, 1.0], [0, 0, 8, 8, 1, 0]]])
    owner, sides = dense_probe.assigned(boxes, (32, 32), (4, 4))
    assert owner[0, 1, 2] == 0
    assert (owner >= 0).sum() == 1
    centre = torch.tensor([20.0, 12.0]) / 32
    expected = [centre[0] - 12 / 32, centre[1] - 4 / 32, 20 / 32 - centre[0], 12 / 32 - centre[1]]
    torch.testing.assert_close(sides[0, 1, 2], torch.stack(expected).clamp(min=0))


def test_average_precision_of_perfect_boxes_is_one_and_torchmetrics_counts_misses():
    _, boxes = planted(10, 3)
    perfect = [{"boxes": b[:, :4], "scores": torch.ones(1), "labels": b[:, 4].long()} for b in boxes]
    assert dense_probe.average_precision(perfect, boxes) == {"AP": pytest.approx(1), "AP50": pytest.approx(1)}
    perfect[0]["boxes"] = perfect[0]["boxes"] + 40
    assert 0.7 < dense_probe.average_precision(perfect, boxes)["AP50"] < 1


def test_the_focal_loss_is_the_plain_formula():
    logits = torch.randn(20, dtype=torch.float64, requires_grad=True)
    goal = (torch.arange(20) % 3 == 0).double()
    p = logits.sigmoid()
    terms = [-0.25 * (1 - q) ** 2 * q.log() if g else -0.75 * q**2 * (1 - q).log() for q, g in zip(p, goal)]
    expected, found = torch.stack(terms), dense_probe.focal(logits, goal)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*grads)
