from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rushlight.losses.consistency import (
    align,
    dynamic_threshold,
    enqueue,
    linear_ramp,
    masked_cross_entropy,
    mean_squared_log,
    soft_cross_entropy,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(got, want, *inputs):
    torch.testing.assert_close(got, want)
    pairs = zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True)
    for x, y in pairs:
        torch.testing.assert_close(x, y)


def loops(logits, targets, mask, weight):
    """Mean over all entries of weight · −Σ t log p, entry by entry."""
    total = logits.new_zeros(())
    for n in range(len(logits)):
        if mask[n]:
            norm = sum(math.e ** logits[n, k] for k in range(logits.shape[1])).log()
            for k in range(logits.shape[1]):
                total = total + weight[n] * targets[n, k] * (norm - logits[n, k])
    return total / len(logits)


@pytest.mark.parametrize("space", [(), (2, 3)])
@pytest.mark.parametrize("soft", [True, False])
def test_masked_cross_entropy_equals_plain_loops(space, soft):
    logits = draw(5, 4, *space).requires_grad_()
    mask = draw(5, *space, seed=1) > 0
    weight = draw(5, *space, seed=2).square()
    targets = draw(5, 4, *space, seed=3).softmax(1) if soft else draw(5, 4, *space, seed=3).argmax(1)
    dense = targets if soft else torch.nn.functional.one_hot(targets, 4).movedim(-1, 1).double()
    given_targets = targets if soft else targets.masked_fill(~mask, 255).to(torch.uint8)
    got = masked_cross_entropy(logits, given_targets, mask, weight)
    flat = [x.movedim(1, -1).reshape(-1, 4) for x in (logits, dense)]
    same(got, loops(*flat, mask.flatten(), weight.flatten()), logits)


def test_the_mean_is_over_all_entries_and_an_empty_mask_costs_nothing():
    logits, targets = draw(4, 3), torch.tensor([0, 1, 2, 0])
    one = torch.tensor([True, False, False, False])
    alone = torch.nn.functional.cross_entropy(logits[:1], targets[:1])
    torch.testing.assert_close(masked_cross_entropy(logits, targets, one), alone / 4)
    assert masked_cross_entropy(logits, torch.full((4,), -1), torch.zeros(4, dtype=torch.bool)) == 0


def test_an_unknown_target_within_the_mask_is_an_error():
    with pytest.raises(IndexError):
        masked_cross_entropy(draw(2, 3), torch.tensor([0, -1]), torch.ones(2, dtype=torch.bool))


def test_soft_targets_that_are_one_hot_are_hard_targets():
    logits, hard = draw(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    soft = torch.nn.functional.one_hot(hard, 3).double()
    torch.testing.assert_close(soft_cross_entropy(logits, soft), soft_cross_entropy(logits, hard))


@pytest.mark.parametrize(("mean", "threshold"), [(0.5, 0.300), (1.0, 0.337), (0.0, 0.3)])
def test_dynamic_threshold_has_its_closed_form(mean, threshold):
    got = dynamic_threshold(torch.full((2, 3), mean, dtype=torch.float64))
    assert got.item() == pytest.approx(threshold, abs=6e-4)
    raw = 0.9 / (1 + math.exp(-4 * (mean - 0.5)))
    got = dynamic_threshold(torch.full((2, 3), mean), base=0.9, sensitivity=4.0, low=0.2, high=0.75)
    assert got.item() == pytest.approx(min(max(raw, 0.2), 0.75), abs=1e-6)


def test_alignment_with_a_uniform_history_changes_nothing_and_with_a_skewed_one_repairs_it():
    probabilities = draw(50, 4).softmax(1)
    torch.testing.assert_close(align(probabilities, torch.full((8, 4), 0.25).double()), probabilities)
    skewed = (draw(500, 4) + torch.tensor([2.0, 0, 0, 0])).softmax(1)
    aligned = align(skewed, skewed.mean(0, keepdim=True))
    torch.testing.assert_close(aligned.sum(1), torch.ones(500).double())
    assert (aligned.mean(0) - 0.25).abs().max() < (skewed.mean(0) - 0.25).abs().max() / 3


def test_alignment_follows_the_official_queue_batch_for_batch():
    history, prior = torch.zeros(3, 4).double(), torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    means: list[torch.Tensor] = []
    for step in range(5):
        probabilities = draw(6, 4, seed=step).softmax(1)
        before = history
        history = enqueue(history, probabilities, step)
        assert not torch.equal(before, history)
        means.append(probabilities.mean(0))
        mean = sum(means[-3:]) / 3
        want = probabilities * (prior + 1e-6) / (mean + 1e-6)
        torch.testing.assert_close(align(probabilities, history, prior=prior), want / want.sum(1, keepdim=True))


def test_mean_squared_log_equals_plain_loops():
    p, q = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()
    want = sum(sum((q[i, c] - p[i, c]) ** 2 for i in range(4)) / 4 for c in range(3))
    same(mean_squared_log(q, p), want, p, q)


@given(st.floats(0, 50), st.floats(0, 20))
def test_the_ramp_rises_to_one(step, length):
    assert 0 <= linear_ramp(step, length) <= linear_ramp(step + 1, length) <= 1
    assert linear_ramp(length, length) == linear_ramp(0, 0) == 1
    assert linear_ramp(5, 20) == 0.25
