from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.methods.labels.pu_mlc.positive_unlabelled import (
    adaptive_temperature,
    balanced_cross_entropy,
    log_targets,
    mix_log,
    mixed_consistency,
    non_negative,
    rebalance,
    variational,
    variational_multi_label,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(got, want, *inputs):
    torch.testing.assert_close(got, want)
    pairs = zip(*(torch.autograd.grad(x, inputs, retain_graph=True) for x in (got, want)), strict=True)
    for x, y in pairs:
        torch.testing.assert_close(x, y)


def sigmoid(z):
    return 1 / (1 + (-z).exp())


def loops(logits, positives, alpha, gamma):
    """PU-MLC, steps 2 to 4, class by class and sample by sample."""
    batch, classes = logits.shape
    total = logits.new_zeros(())
    for c in range(classes):
        column = [z.item() for z in logits[:, c]]
        mean = sum(column) / batch
        std = math.sqrt(sum((z - mean) ** 2 for z in column) / batch)
        temperature = 1.0 if alpha is None else max(1e-3, min(1.0, alpha * std))
        phi = [sigmoid(logits[i, c] / temperature) for i in range(batch)]
        average = sum(phi) / batch
        total = total + average.item() ** gamma * average.log()
        known = [phi[i].log() for i in range(batch) if positives[i, c]]
        if known:
            total = total - sum(known) / len(known)
    return total


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(2, 6),
    classes=st.integers(1, 4),
    alpha=st.sampled_from([None, 0.5, 1.0, 2.0]),
    gamma=st.sampled_from([0.0, 0.55, 0.85]),
    seed=st.integers(0, 99),
)
def test_equals_plain_loops_in_value_and_gradient(batch, classes, alpha, gamma, seed):
    logits = draw(batch, classes, seed=seed).requires_grad_()
    positives = draw(batch, classes, seed=seed + 1) > 0.3
    got = variational_multi_label(logits, positives, alpha=alpha, gamma=gamma)
    same(got, loops(logits, positives, alpha, gamma), logits)


def test_one_class_without_weight_and_temperature_is_vpu():
    logits, rows = draw(8, 1).requires_grad_(), torch.tensor([0, 3, 5])
    positives = torch.zeros(8, 1, dtype=torch.bool)
    positives[rows] = True
    log_phi = torch.nn.functional.logsigmoid(logits[:, 0])
    same(
        variational_multi_label(logits, positives, alpha=None, gamma=0.0),
        variational(log_phi[rows], log_phi),
        logits,
    )
    want = sum(sigmoid(z) for z in logits[:, 0]).log() - math.log(8) - log_phi[rows].sum() / 3
    same(variational(log_phi[rows], torch.nn.functional.logsigmoid(logits[:, 0])), want, logits)


def test_constant_phi_costs_its_log_times_the_weight_less_one():
    logits, positives = torch.full((6, 1), 0.4).double(), torch.ones(6, 1, dtype=torch.bool)
    log_phi = math.log(1 / (1 + math.exp(-0.4)))
    for gamma in (0.0, 0.55):
        weight = math.exp(gamma * log_phi)
        got = variational_multi_label(logits, positives, alpha=None, gamma=gamma)
        assert got.item() == pytest.approx((weight - 1) * log_phi)


def test_is_blind_to_the_scale_of_phi():
    log_phi = draw(9)
    torch.testing.assert_close(variational(log_phi[:4] + 2.5, log_phi + 2.5), variational(log_phi[:4], log_phi))


def test_temperature_and_weight_carry_no_gradient_and_stay_in_bounds():
    logits = (draw(6, 3) * torch.tensor([0.0, 0.3, 9.0])).requires_grad_()
    temperature, weight = adaptive_temperature(logits), rebalance(torch.nn.functional.logsigmoid(logits))
    assert not temperature.requires_grad
    assert not weight.requires_grad
    torch.testing.assert_close(temperature, logits.detach().std(0, correction=0).clamp(1e-3, 1))
    assert temperature[0] == 1e-3
    assert temperature[2] == 1
    assert ((weight > 0) & (weight < 1)).all()
    loss = variational_multi_label(logits, torch.zeros(6, 3, dtype=torch.bool))
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_saturated_logits_stay_finite_in_single_precision():
    logits = torch.tensor([[-2e4, 2e4], [-3e4, 3e4]], requires_grad=True)
    positives = torch.tensor([[True, False], [False, True]])
    loss = variational_multi_label(logits, positives) + mixed_consistency(logits, log_targets(logits, positives))
    assert loss.isfinite()
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_minimisers_are_proportional_to_the_posterior():
    """Four values of x with p(y = 1 | x) known; positives are drawn from p(x) p(y = 1 | x), normalised."""
    share = torch.tensor([0.1, 0.4, 0.3, 0.2]).double()
    posterior = torch.tensor([0.9, 0.2, 0.5, 0.05]).double()
    among_positives = share * posterior / (share * posterior).sum()
    everything = torch.repeat_interleave(torch.arange(4), (share * 100).round().long())
    counts = (among_positives * 1000).round().long()
    free = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([free], max_iter=100, tolerance_grad=1e-12)

    def closure():
        optimiser.zero_grad()
        loss = variational(free[torch.repeat_interleave(torch.arange(4), counts)], free[everything])
        loss.backward()
        return loss

    optimiser.step(closure)
    phi = free.detach().exp()
    torch.testing.assert_close(phi / phi.sum(), posterior / posterior.sum(), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_consistency_equals_plain_loops_with_gradient_through_the_target(share):
    first, second, mixed = (draw(3, 2, seed=s).requires_grad_() for s in range(3))
    known = [draw(3, 2, seed=s) > 0 for s in (3, 4)]
    target = mix_log(log_targets(first, known[0]), log_targets(second, known[1]), share)
    want = mixed.new_zeros(())
    for i in range(3):
        for c in range(2):
            a, b = (1.0 + 0 * z[i, c] if k[i, c] else sigmoid(z[i, c]) for z, k in zip((first, second), known))
            q = share * a + (1 - share) * b
            want = want + (q.log() - sigmoid(mixed[i, c]).log()) ** 2 / 3
    got = mixed_consistency(mixed, target) + 0 * (first + second).sum()
    same(got, want, first, second, mixed)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_nnpu_equals_plain_loops_on_both_branches(shift):
    positive, unlabelled = (draw(5) + shift).requires_grad_(), (draw(7, seed=1) - shift).requires_grad_()
    prior = 0.4
    risk = prior * sum(sigmoid(-z) for z in positive) / 5
    negative = sum(sigmoid(z) for z in unlabelled) / 7 - prior * sum(sigmoid(z) for z in positive) / 5
    assert (negative < 0) == bool(shift)
    want = -0.5 * negative if shift else risk + negative
    same(non_negative(positive, unlabelled, prior=prior, gamma=0.5), want, positive, unlabelled)
    kept = non_negative(positive, unlabelled, prior=prior, beta=1.0)
    same(kept, risk + negative, positive, unlabelled)


def test_positives_and_others_weigh_alike_however_few_are_known():
    logits, positives = draw(12, 3).requires_grad_(), torch.zeros(12, 3, dtype=torch.bool)
    positives[0, 0] = positives[3:9, 1] = True  # none of the third class
    want = logits.new_zeros(())
    for c in range(2):
        here = [-logits[i, c].sigmoid().log() for i in range(12) if positives[i, c]]
        there = [-(1 - logits[i, c].sigmoid()).log() for i in range(12) if not positives[i, c]]
        want = want + sum(here) / len(here) / 2 + sum(there) / len(there) / 2
    got = balanced_cross_entropy(logits, positives)
    torch.testing.assert_close(got, want)
    for one, other in zip(torch.autograd.grad(got, logits), torch.autograd.grad(want, logits), strict=True):
        torch.testing.assert_close(one, other)
