"""Self-distillation: lightly's and the paper's loss, the centre, and what a uniform answer costs."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import DINOLoss

from rushlight.losses.self_distillation import Centre, across_views, cross_entropy, sharpened


def outputs(views: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 10, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(views)]


def test_it_is_lightlys_loss_in_value_and_gradient() -> None:
    student, teacher = outputs(4, 0), [each.detach() for each in outputs(2, 1)]
    theirs = DINOLoss(output_dim=10, teacher_temp=0.05, student_temp=0.1, warmup_teacher_temp_epochs=0).double()
    theirs.center.data = torch.linspace(-1, 1, 10, dtype=torch.float64).view(1, 1, 10)
    centre = theirs.center.data.flatten().clone()
    loss = across_views(student, [sharpened(each, centre, 0.05) for each in teacher], temperature=0.1)
    expected = theirs(teacher, student, teacher_temp=0.05)
    torch.testing.assert_close(loss, expected)
    for mine, their in zip(torch.autograd.grad(loss, student), torch.autograd.grad(expected, student), strict=True):
        torch.testing.assert_close(mine, their)


def test_it_is_the_mean_over_pairs_of_different_views() -> None:
    student, targets = outputs(3, 2), [each.detach().softmax(1) for each in outputs(2, 3)]
    total, pairs = torch.zeros((), dtype=torch.float64), 0
    for i in range(2):
        for j in range(3):
            if i != j:
                pairs += 1
                for n in range(6):
                    total = total - (targets[i][n] * (student[j][n] / 0.2).log_softmax(0)).sum() / 6
    torch.testing.assert_close(across_views(student, targets, temperature=0.2), total / pairs)


def test_uniform_answers_cost_the_logarithm_of_their_number() -> None:
    student, target = torch.zeros(3, 32, requires_grad=True), torch.full((3, 32), 1 / 32, requires_grad=True)
    loss = cross_entropy(student, target)
    torch.testing.assert_close(loss, torch.full((3,), math.log(32)))
    assert torch.autograd.grad(loss.sum(), target, allow_unused=True) == (None,)


def test_the_centre_is_a_slow_mean_and_goes_to_a_constant_teacher() -> None:
    centre, teacher = Centre(4, momentum=0.9), torch.tensor([[1.0, -2.0, 0.5, 0.0]]).expand(8, -1)
    centre.update(teacher)
    torch.testing.assert_close(centre.value, 0.1 * teacher[0])
    for _ in range(200):
        centre.update(teacher)
    torch.testing.assert_close(centre.value, teacher[0], atol=1e-4, rtol=0)


def test_tokens_count_each_for_itself_in_the_centre() -> None:
    centre, tokens = Centre(3, momentum=0.0), torch.rand(2, 5, 3)
    centre.update(tokens)
    torch.testing.assert_close(centre.value, tokens.flatten(0, 1).mean(0))


@pytest.mark.parametrize("temperature", [1.0, 0.04])
def test_sharpening_is_a_softmax_without_gradient(temperature: float) -> None:
    logits, centre = torch.randn(3, 5, requires_grad=True), torch.rand(5)
    found = sharpened(logits, centre, temperature)
    assert not found.requires_grad
    torch.testing.assert_close(found, ((logits.detach() - centre) / temperature).softmax(1))
