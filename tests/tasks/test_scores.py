from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from rushlight.tasks.scores import balanced_accuracy, band_iou, border_band, confusion, mean_iou


def near_another(masks, width):
    found = torch.zeros_like(masks, dtype=torch.bool)
    height, across = masks.shape
    for y in range(height):
        for x in range(across):
            around = masks[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
            classes = set(around.flatten().tolist()) - {255}
            found[y, x] = masks[y, x] != 255 and len(classes) > 1
    return found


@given(st.integers(0, 50), st.integers(1, 3))
def test_the_band_is_what_lies_near_another_class(seed, width):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (2, 3, 4), generator=generator, dtype=torch.uint8)
    masks = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    masks[:, :2, :3] = 255
    want = torch.stack([near_another(one, width) for one in masks])
    assert torch.equal(border_band(masks, width), want)


def test_errors_far_from_borders_do_not_count_in_the_band():
    true = torch.zeros(1, 12, 12, dtype=torch.uint8)
    true[:, :, 6:] = 1
    far, near = true.long().clone(), true.long().clone()
    far[:, :, :2], near[:, :, 5] = 1, 1
    assert band_iou(far, true, 2) == 1.0
    assert band_iou(near, true, 2) == (0.5 + 2 / 3) / 2
    assert mean_iou(confusion(far, true, 2).sum(0)) < 1


@given(st.integers(0, 100))
def test_balanced_accuracy_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, 4, 30), rng.integers(0, 5, 30)
    predicted = np.where(np.isin(predicted, true), predicted, true[0])
    got = balanced_accuracy(torch.from_numpy(predicted), torch.from_numpy(true))
    assert abs(got - balanced_accuracy_score(true, predicted)) < 1e-12
