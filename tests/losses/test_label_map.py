from __future__ import annotations

import math
import sys

import pytest
import torch
import torchvision.ops  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.losses.label_map import class_map, densify, one_hot_targets, pooled_logits, pooled_targets, sparsify


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bilinear(plane, y, x):
    """The value at a point in cell coordinates, RoIAlign's rules at the border."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0 * plane[0, 0]
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = plane[top, left] * (1 - fx) + plane[top, right] * fx
    return upper * (1 - fy) + (plane[bottom, left] * (1 - fx) + plane[bottom, right] * fx) * fy


def loops(scores, boxes):
    out = []
    for planes, (x1, y1, x2, y2) in zip(scores, boxes.tolist(), strict=True):
        height, width = planes.shape[1:]
        x, y = x1 * width - 0.5, y1 * height - 0.5
        w, h = max((x2 - x1) * width, 1.0), max((y2 - y1) * height, 1.0)
        ny, nx = math.ceil(h), math.ceil(w)
        points = [(y + (i + 0.5) * h / ny, x + (j + 0.5) * w / nx) for i in range(ny) for j in range(nx)]
        out.append(torch.stack([sum(bilinear(p, *at) for at in points) / len(points) for p in planes]))
    return torch.stack(out)


fraction = st.floats(0, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.lists(st.tuples(*[fraction] * 4), min_size=1, max_size=3))
def test_pooling_equals_plain_loops_in_value_and_gradient(height, width, corners):
    ordered = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    boxes = torch.tensor(ordered, dtype=torch.float64)
    scores = draw(len(boxes), 2, height, width).requires_grad_()
    got, want, probe = pooled_logits(scores, boxes), loops(scores, boxes), draw(len(boxes), 2, seed=1)
    torch.testing.assert_close(got, want)
    gradients = [torch.autograd.grad((x * probe).sum(), scores)[0] for x in (got, want)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("aligned", "shift"), [(True, 0.0), (False, 0.5)])
def test_equals_torchvisions_roi_align_in_both_conventions(aligned, shift):
    plain = sys.modules["torchvision.ops.roi_align"]._roi_align.__wrapped__  # not compiled: that takes a minute
    scores = draw(3, 4, 6, 9).float()
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.2, 0.1, 0.9, 0.55], [0.5, 0.25, 0.75, 0.8]])
    cells = boxes * torch.tensor([9.0, 6, 9, 6]) - shift
    rois = torch.cat([torch.arange(3.0)[:, None], cells], 1)
    want = plain(scores, rois, 1.0, 1, 1, -1, aligned)
    torch.testing.assert_close(pooled_logits(scores, boxes), want[:, :, 0, 0])


def test_the_whole_image_pools_to_the_mean_and_a_constant_map_to_itself():
    scores = draw(2, 3, 5, 8)
    whole = torch.tensor([[0.0, 0, 1, 1]] * 2, dtype=torch.float64)
    torch.testing.assert_close(pooled_logits(scores, whole), scores.mean((2, 3)))
    constant = draw(2, 3, 1, 1).expand(2, 3, 5, 8)
    part = torch.tensor([[0.1, 0.3, 0.45, 0.8]] * 2, dtype=torch.float64)
    torch.testing.assert_close(pooled_targets(constant, part), constant[:, :, 0, 0].softmax(1))


def test_a_crop_within_the_hot_quadrant_of_an_oblong_map_sees_only_it():
    scores = torch.zeros(1, 3, 8, 12, dtype=torch.float64)
    scores[0, 1, :4, 6:] = 5.0  # upper right
    inside = torch.tensor([[0.625, 0.1875, 0.9, 0.4]], dtype=torch.float64)  # x first
    hot = torch.tensor([[0.0, 5, 0]]).double()
    torch.testing.assert_close(pooled_targets(scores, inside), hot.softmax(1))
    swapped = inside[:, [1, 0, 3, 2]]
    assert pooled_targets(scores, swapped)[0, 1] < 0.5


def test_the_map_averages_to_the_classifiers_logits():
    maps, weight, bias = draw(2, 6, 4, 5), draw(3, 6, seed=1), draw(3, seed=2)
    logits = torch.nn.functional.linear(maps.mean((2, 3)), weight, bias)
    torch.testing.assert_close(class_map(maps, weight, bias).mean((2, 3)), logits)
    torch.testing.assert_close(class_map(maps, weight).mean((2, 3)), logits - bias)


def test_the_sparse_round_trip_keeps_the_best_and_loses_nothing_at_full_k():
    scores = draw(2, 7, 3, 4)
    for k in (7, 20):
        torch.testing.assert_close(densify(*sparsify(scores, k=k), classes=7), scores)
    values, ids = sparsify(scores, k=2)
    dense = densify(values, ids, classes=7)
    kept = dense != 0
    assert (kept.sum(1) == 2).all()
    assert torch.equal(dense[kept], scores[kept])
    assert (scores.masked_fill(kept, -9).amax(1) <= values.amin(1)).all()


def test_unknown_ids_leave_no_trace():
    values, ids = torch.full((1, 2, 1, 1), 3.0), torch.tensor([[[[-1]], [[0]]]])
    assert densify(values, ids, classes=2).flatten().tolist() == [3, 0]


def test_one_hot_keeps_the_best_class():
    assert one_hot_targets(torch.tensor([[0.2, 0.5, 0.3]])).tolist() == [[0, 1, 0]]
