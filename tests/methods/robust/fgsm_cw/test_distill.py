from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rushlight.methods.robust.fgsm_cw.distill import defensive, knowledge, soften


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(got, want, *inputs):
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs))


def probabilities(row, temperature):
    powers = [(z / temperature).exp() for z in row]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("hard", [False, True])
def test_knowledge_distillation_equals_plain_loops(temperature, hard):
    student, teacher = draw(3, 4).requires_grad_(), draw(3, 4, seed=1)
    labels = torch.tensor([0, 3, 1]) if hard else None
    want = student.new_zeros(())
    for n in range(3):
        p, q = probabilities(student[n], temperature), probabilities(teacher[n], temperature)
        divergence = temperature**2 * sum(b * (b.log() - a.log()) for a, b in zip(p, q))
        own = -probabilities(student[n], 1.0)[labels[n]].log() if hard else 0
        want = want + (0.7 * divergence + 0.3 * own if hard else divergence) / 3
    same(knowledge(student, teacher, labels, temperature=temperature, alpha=0.7), want, student)


def test_defensive_distillation_equals_plain_loops():
    student, teacher = draw(3, 4).requires_grad_(), draw(3, 4, seed=1)
    want = student.new_zeros(())
    for n in range(3):
        p, q = probabilities(student[n], 7.0), probabilities(teacher[n], 7.0)
        want = want - sum(b * a.log() for a, b in zip(p, q)) / 3
    same(defensive(student, soften(teacher, temperature=7.0), temperature=7.0), want, student)


def test_one_hot_at_temperature_one_trains_as_plain_cross_entropy_bit_for_bit():
    labels = torch.tensor([0, 3, 1, 2, 2])
    one_hot = F.one_hot(labels, 4).float()
    weights = [torch.zeros(6, 4).requires_grad_() for _ in range(2)]
    images = draw(5, 6).float()
    losses = (lambda z: defensive(z, one_hot, temperature=1.0), lambda z: F.cross_entropy(z, labels))
    for weight, loss in zip(weights, losses, strict=True):
        optimiser = torch.optim.Adam([weight], lr=0.1)
        for _ in range(20):
            optimiser.zero_grad()
            loss(images @ weight).backward()
            optimiser.step()
    assert torch.equal(*weights)
    assert weights[0].abs().sum() > 0


def test_the_teacher_gets_no_gradient_and_an_equal_student_costs_nothing():
    teacher = draw(3, 4).requires_grad_()
    student = teacher.detach().clone().requires_grad_()
    loss = knowledge(student, teacher)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    gradients = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert gradients[0].abs().max() < 1e-12
    assert gradients[1] is None
    assert not soften(teacher, temperature=2.0).requires_grad


def test_high_temperatures_keep_the_gradients_size():
    student, teacher = draw(8, 5).requires_grad_(), draw(8, 5, seed=1)
    sizes = [torch.autograd.grad(knowledge(student, teacher, temperature=t), student)[0].norm() for t in (10.0, 1000.0)]
    assert 0.5 < sizes[0] / sizes[1] < 2
    assert soften(teacher, temperature=1e9).sub(0.2).abs().max() < 1e-6
    assert math.isclose(soften(teacher, temperature=3.0).sum().item(), 8)


def test_pixels_are_samples():
    student, teacher = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    flat = [x.movedim(1, -1).reshape(-1, 3) for x in (student, teacher)]
    torch.testing.assert_close(knowledge(student, teacher), knowledge(*flat))
