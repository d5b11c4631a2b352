from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import find_boundaries

from rushlight.methods.semi.cw_bass.boundary import (
    IGNORE,
    boundary_cross_entropy,
    boundary_mask,
    confidence_cross_entropy,
    confidence_floors,
    decay_confidence,
)

SOBEL = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case():
    logits = draw(2, 3, 4, 5).requires_grad_()
    targets = draw(2, 3, 4, 5, seed=1).argmax(1)
    targets[draw(2, 4, 5, seed=2) > 1] = IGNORE
    return logits, targets, draw(2, 4, 5, seed=3).sigmoid(), draw(2, 4, 5, seed=4) > 0


def loops(logits, targets, weight, counts):
    total, number = logits.new_zeros(()), 0
    for b in range(targets.shape[0]):
        for y in range(targets.shape[1]):
            for x in range(targets.shape[2]):
                if targets[b, y, x] != IGNORE and counts[b, y, x]:
                    p = logits[b, :, y, x].softmax(0)[targets[b, y, x]]
                    total, number = total - weight[b, y, x] * p.log(), number + 1
    return total / max(number, 1)


def same(got, want, logits):
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, logits), torch.autograd.grad(want, logits))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_confidence_weighted_loss_equals_plain_loops(gamma):
    logits, targets, confidence, boundary = case()
    got = confidence_cross_entropy(logits, targets, confidence, gamma=gamma)
    same(got, loops(logits, targets, confidence**gamma, torch.ones_like(boundary)), logits)


def test_boundary_loss_equals_plain_loops():
    logits, targets, confidence, boundary = case()
    want = loops(logits, targets, torch.ones_like(confidence), boundary)
    same(boundary_cross_entropy(logits, targets, boundary), want, logits)


def test_without_weights_and_ignored_pixels_it_is_the_mean_cross_entropy():
    logits, targets, confidence, _ = case()
    targets = targets.clamp(max=2)
    want = torch.nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(confidence_cross_entropy(logits, targets, confidence, gamma=0.0), want)
    torch.testing.assert_close(boundary_cross_entropy(logits, targets, torch.ones_like(targets) > 0), want)


def test_nothing_kept_costs_nothing():
    logits, targets, confidence, boundary = case()
    ignored = torch.full_like(targets, IGNORE)
    assert confidence_cross_entropy(logits, ignored, confidence) == 0
    assert boundary_cross_entropy(logits, ignored, boundary) == 0
    assert boundary_cross_entropy(logits, targets, torch.zeros_like(boundary)) == 0


def test_constant_decay_scales_the_weighted_loss_by_its_power():
    logits, targets, confidence, _ = case()
    plain = confidence_cross_entropy(logits, targets, confidence, gamma=2.0)
    decayed = confidence_cross_entropy(logits, targets, decay_confidence(confidence, factor=0.9), gamma=2.0)
    torch.testing.assert_close(decayed, plain * 0.81)
    torch.testing.assert_close(decay_confidence(confidence, factor=0.9, epoch=3), confidence * 0.729)
    torch.testing.assert_close(decay_confidence(confidence, epoch=0), confidence)


def by_loops(labels, classes, outside):
    """|Sobel| summed over classes > 0, pixel by pixel; `outside` gives the label beyond the frame, or None."""
    height, width = labels.shape
    mask = torch.zeros(height, width, dtype=torch.bool)
    for y in range(height):
        for x in range(width):
            for c in range(classes):
                gx = gy = 0
                for i in range(3):
                    for j in range(3):
                        at = outside(y + i - 1, x + j - 1, height, width)
                        one = int(at is not None and labels[at] == c)
                        gx, gy = gx + SOBEL[i][j] * one, gy + SOBEL[j][i] * one
                mask[y, x] |= bool(gx or gy)
    return mask


def replicated(y, x, height, width):
    return min(max(y, 0), height - 1), min(max(x, 0), width - 1)


def cut(y, x, height, width):
    return (y, x) if 0 <= y < height and 0 <= x < width else None


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 99))
def test_boundary_equals_plain_loops_with_both_paddings(height, width, classes, seed):
    labels = torch.randint(classes, (height, width), generator=torch.Generator().manual_seed(seed))
    for zero, outside in ((False, replicated), (True, cut)):
        got = boundary_mask(labels[None], classes=classes, zero_padding=zero)[0]
        assert torch.equal(got, by_loops(labels, classes, outside))


def test_straight_edges_are_scikit_images_thick_boundaries():
    labels = torch.zeros(1, 12, 14, dtype=torch.long)
    labels[:, 3:9, 4:] = 1
    labels[:, 6:, 9:] = 2
    got = boundary_mask(labels, classes=3)[0].numpy()
    want = find_boundaries(labels[0].numpy(), mode="thick", connectivity=2)
    assert (got == want).all()
    assert want.any()


def test_the_frame_is_a_boundary_only_with_zero_padding():
    labels = torch.ones(1, 5, 6, dtype=torch.uint8)
    assert not boundary_mask(labels, classes=2).any()
    frame = boundary_mask(labels, classes=2, zero_padding=True)[0]
    assert frame.sum() == 30 - 12
    assert not frame[1:-1, 1:-1].any()


def test_an_ignored_pixel_is_taken_for_the_last_class_and_breaks_nothing():
    labels = torch.zeros(1, 5, 5, dtype=torch.uint8)
    labels[0, :, 3:] = IGNORE
    labels_last = torch.where(labels == IGNORE, 2, labels)
    assert torch.equal(boundary_mask(labels, classes=3), boundary_mask(labels_last, classes=3))


def test_floors_equal_plain_loops_and_follow_each_class():
    confidence, labels = draw_confidence(), torch.tensor([[[0, 0, 1], [0, 2, 2]]])
    means = [[float(c) for c, k in zip(confidence.flatten(), labels.flatten()) if k == each] for each in range(3)]
    means = [sum(values) / len(values) for values in means]
    want = [0.95 * float(confidence.mean()) * mean / max(means) for mean in means]
    got = confidence_floors(confidence, labels, classes=4)
    assert got[:3].tolist() == pytest.approx(want)
    assert float(got[3]) == pytest.approx(min(want))  # a class that does not occur


def draw_confidence():
    return torch.tensor([[[0.9, 0.8, 0.4], [1.0, 0.5, 0.6]]])
