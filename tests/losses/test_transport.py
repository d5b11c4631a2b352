"""Sinkhorn–Knopp: rows sum to 1, columns have equal shares, and it is lightly's."""

from __future__ import annotations

import pytest
import torch
from lightly.loss.swav_loss import sinkhorn as lightlys

from rushlight.losses.transport import sinkhorn


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_it_is_lightlys(iterations: int) -> None:
    scores = torch.rand(12, 5, dtype=torch.float64) * 2 - 1
    found = sinkhorn(scores, epsilon=0.05, iterations=iterations)
    torch.testing.assert_close(found, lightlys(scores, iterations=iterations, epsilon=0.05))


def test_rows_sum_to_one_and_columns_to_equal_shares() -> None:
    found = sinkhorn(torch.randn(64, 8, dtype=torch.float64), epsilon=1.0, iterations=200)
    torch.testing.assert_close(found.sum(1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(found.sum(0), torch.full((8,), 8.0, dtype=torch.float64))


def test_a_constant_added_to_all_scores_changes_nothing_and_large_ones_do_not_overflow() -> None:
    scores = torch.rand(6, 4)
    torch.testing.assert_close(sinkhorn(scores + 100), sinkhorn(scores), atol=1e-3, rtol=1e-3)
    assert bool(sinkhorn(scores * 300).isfinite().all())


def test_it_carries_no_gradient() -> None:
    assert not sinkhorn(torch.rand(4, 3, requires_grad=True)).requires_grad
