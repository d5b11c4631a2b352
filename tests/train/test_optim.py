"""Optimisers and schedules against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rushlight.train.optim import LARS, clip_each, half_cosine, optimiser, parameter_groups, rate_for_batch, schedule


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))


def test_weights_decay_and_biases_and_norms_do_not() -> None:
    module = network()
    module[0].bias.requires_grad_(False)
    decayed, plain = parameter_groups(module, 0.3)
    assert [p is module[0].weight for p in decayed["params"]] == [True]
    assert {id(p) for p in plain["params"]} == {id(module[1].weight), id(module[1].bias)}
    assert (decayed["weight_decay"], plain["weight_decay"], plain["plain"]) == (0.3, 0.0, True)
    (together,) = parameter_groups(module, 0.3, exclude=False)
    assert (len(together["params"]), together["weight_decay"]) == (3, 0.3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD), ("lars", LARS)],
)
def test_each_group_starts_at_its_own_rate(name, kind) -> None:
    decayed, plain = parameter_groups(network(), 0.0)
    plain.pop("plain")
    made = optimiser(name, [{**decayed, "scale": 0.25}, plain], learning_rate=0.4)
    assert type(made) is kind
    assert [(group["lr"], group["peak"]) for group in made.param_groups] == [(0.1, 0.1), (0.4, 0.4)]


def test_lars_is_the_papers_update() -> None:
    """v ← μ·v + η·‖w‖/‖g + β·w‖ · (g + β·w), w ← w − γ·v; biases and norms by momentum alone."""
    module, decay, momentum, trust, rate = network(), 0.1, 0.9, 0.001, 0.5
    made = optimiser("lars", parameter_groups(module, decay), learning_rate=rate, momentum=momentum)
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    velocity = {name: torch.zeros_like(p) for name, p in weights.items()}
    for step in range(3):
        for number, (name, p) in enumerate(module.named_parameters()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * step + number))
            change = p.grad.clone()
            if p.ndim > 1:
                change += decay * weights[name]
                change *= trust * weights[name].square().sum().sqrt() / change.square().sum().sqrt()
            velocity[name] = momentum * velocity[name] + change
            weights[name] = weights[name] - rate * velocity[name]
        made.step()
    for name, p in module.named_parameters():
        torch.testing.assert_close(p.detach(), weights[name], atol=1e-7, rtol=1e-5)


def test_lars_takes_a_plain_step_where_weights_or_gradients_are_zero() -> None:
    start, rest = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    start.grad, rest.grad = torch.ones(2, 2), torch.zeros(2, 2)
    LARS([{"params": [start, rest], "lr": 0.5}]).step()
    assert torch.equal(start.detach(), torch.full((2, 2), -0.5))
    assert torch.equal(rest.detach(), torch.ones(2, 2))


@pytest.mark.parametrize("done", [0.0, 0.2, 0.5, 1.0])
def test_schedules_are_their_formulas(done: float) -> None:
    progress = 0.1 + 0.9 * done  # after a warm-up of a tenth
    for name, expected in {
        "cosine": 0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * done)),
        "fixmatch": math.cos(7 * math.pi * done / 16),
        "poly": (1 - done) ** 0.9,
        "constant": 1.0,
    }.items():
        assert schedule(name, progress, warm_up=0.1) == pytest.approx(expected, abs=1e-9)
        assert schedule(name, 0.025, warm_up=0.1) == pytest.approx(0.25)


def test_one_cycle_rises_over_a_fifth_and_falls_to_nothing() -> None:
    found = [schedule("one-cycle", progress) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert found == pytest.approx([0.04, 0.52, 1.0, 0.5, 0.0], abs=1e-9)


def test_rates_follow_the_batch() -> None:
    assert [rate_for_batch(name, 0.25) for name in ("sgd", "adam", "adamw", "lars")] == [0.25, 0.5, 0.5, 1.0]
    assert [half_cosine(progress) for progress in (0, 0.5, 1, 2)] == pytest.approx([1, 0.5, 0, 0], abs=1e-9)


def test_each_gradient_is_clipped_by_its_own_norm() -> None:
    small, large, none = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    small.grad, large.grad = torch.tensor([0.3, 0.4]), torch.tensor([30.0, 40.0])
    clip_each([small, large, none], 1.0)
    torch.testing.assert_close(small.grad, torch.tensor([0.3, 0.4]), atol=1e-5, rtol=0)
    torch.testing.assert_close(large.grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)
    assert none.grad is None
