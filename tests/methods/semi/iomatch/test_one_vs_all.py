from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rushlight.methods.semi.iomatch.one_vs_all import hardest_negative, inlier_probabilities, open_set_target


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loops(logits, labels):
    total = logits.new_zeros(())
    for row, label in zip(logits, labels.tolist(), strict=True):
        negatives = [logits.new_zeros(())]
        for k in range(row.shape[1]):
            outlier, inlier = row[:, k].exp() / row[:, k].exp().sum()
            if k == label:
                total = total - (inlier + 1e-8).log()
            else:
                negatives.append(-(outlier + 1e-8).log())
        total = total + max(negatives)
    return total / len(labels)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 4, -1, 2]])
def test_equals_plain_loops_in_value_and_gradient(labels):
    logits, labels = draw(4, 2, 4).requires_grad_(), torch.tensor(labels)
    got, want = hardest_negative(logits, labels), loops(logits, labels)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, logits), torch.autograd.grad(want, logits))


def test_only_the_hardest_negative_has_a_gradient():
    logits = draw(1, 2, 6).requires_grad_()
    gradient = torch.autograd.grad(hardest_negative(logits, torch.tensor([2])), logits)[0]
    touched = gradient.abs().sum((0, 1)) > 0
    hardest = inlier_probabilities(logits)[0].detach().clone()
    hardest[2] = -1
    assert touched.nonzero().flatten().tolist() == sorted([2, int(hardest.argmax())])


def test_inlier_is_the_second_of_the_pair():
    logits = draw(3, 2, 5)
    torch.testing.assert_close(inlier_probabilities(logits), logits.softmax(1)[:, 1])


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_the_fused_target_is_a_distribution(rows, classes, seed):
    closed, inlier = draw(rows, classes, seed=seed).softmax(1), draw(rows, classes, seed=seed + 1).sigmoid()
    target = open_set_target(closed, inlier)
    torch.testing.assert_close(target.sum(1), torch.ones(rows, dtype=torch.float64))
    torch.testing.assert_close(target[:, -1], 1 - target[:, :-1].sum(1))
    for k in range(classes):
        torch.testing.assert_close(target[:, k], closed[:, k] * inlier[:, k])


def test_sure_inliers_leave_nothing_unseen_and_sure_outliers_nothing_else():
    closed = draw(3, 4).softmax(1)
    assert open_set_target(closed, torch.ones(3, 4).double())[:, -1].tolist() == [0, 0, 0]
    torch.testing.assert_close(open_set_target(closed, torch.zeros(3, 4).double())[:, -1], torch.ones(3).double())
