"""Multi-label cluster losses: gradients and identities of the paper, the margin, and the sampling of classes."""

from __future__ import annotations

import math

import pytest
import torch

from rushlight.methods.pretrain.mlcd.multi_label import active_classes, among, mlc, mlcd, with_margin


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(5, 9, dtype=torch.float64, generator=generator)
    positives = torch.rand(5, 9, generator=generator) < 0.3
    positives[:, 0], positives[:, 1] = True, False
    return logits.requires_grad_(), positives


def test_the_losses_are_their_sums() -> None:
    logits, positives = example()
    for n in range(5):
        s = logits[n].detach()
        pull = sum(math.exp(-float(value)) for value in s[positives[n]])
        push = sum(math.exp(float(value)) for value in s[~positives[n]])
        assert float(mlcd(logits, positives)[n].detach()) == pytest.approx(math.log(1 + pull) + math.log(1 + push))
        assert float(mlc(logits, positives)[n].detach()) == pytest.approx(math.log(1 + push * pull))


def test_mlcd_is_mlcs_pairs_and_the_two_absolute_terms() -> None:
    logits, positives = example()
    for n in range(5):
        s = logits[n].detach()
        pull, push = (-s[positives[n]]).exp(), s[~positives[n]].exp()
        pairs = sum(float(a * b) for a in pull for b in push)
        assert float(mlcd(logits, positives)[n].detach()) == pytest.approx(
            math.log(1 + float(pull.sum()) + float(push.sum()) + pairs)
        )


def test_gradients_of_the_two_sides_do_not_know_each_other() -> None:
    logits, positives = example()
    found = torch.autograd.grad(mlcd(logits, positives).sum(), logits)[0]
    for n in range(5):
        s = logits[n].detach()
        pull, push = (-s[positives[n]]).exp().sum(), s[~positives[n]].exp().sum()
        expected = torch.where(positives[n], -(-s).exp() / (1 + pull), s.exp() / (1 + push))
        torch.testing.assert_close(found[n], expected)


def test_a_constant_on_all_logits_changes_mlcd_and_not_mlc() -> None:
    logits, positives = example()
    torch.testing.assert_close(mlc(logits + 3, positives), mlc(logits, positives))
    assert float((mlcd(logits + 3, positives) - mlcd(logits, positives)).detach().abs().max()) > 1


def test_large_logits_do_not_overflow_and_a_lone_side_is_fine() -> None:
    logits = torch.tensor([[400.0, -400.0], [-400.0, 400.0]])
    positives = torch.tensor([[True, False], [True, False]])
    torch.testing.assert_close(mlcd(logits, positives), torch.tensor([0.0, 800.0]))
    alone = torch.ones(1, 2, dtype=torch.bool)
    assert mlcd(torch.zeros(1, 2), alone).isfinite()
    assert float(mlc(torch.zeros(1, 2), alone)) == 0


def test_the_margin_turns_positives_alone() -> None:
    cosines = torch.tensor([[0.2, -0.5, 0.9]], dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([[True, False, True]])
    for kind, slope in (("exact", [math.sin(math.acos(c) + 0.3) / math.sin(math.acos(c)) for c in (0.2, 0.9)]),
                        ("shift", [1.0, 1.0])):  # fmt: skip
        moved = with_margin(cosines, positives, 0.3, kind=kind)
        expected = [math.cos(math.acos(0.2) + 0.3), -0.5, math.cos(math.acos(0.9) + 0.3)]
        torch.testing.assert_close(moved.detach()[0], torch.tensor(expected, dtype=torch.float64))
        gradient = torch.autograd.grad(moved.sum(), cosines)[0][0]
        torch.testing.assert_close(gradient, torch.tensor([slope[0], 1.0, slope[1]], dtype=torch.float64))
    assert bool(with_margin(torch.tensor([[1.5, -1.5]]), torch.ones(1, 2, dtype=torch.bool), 0.3).isfinite().all())


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_every_positive_takes_part_and_the_others_fill_up(share: float) -> None:
    labels = torch.tensor([[3, 90], [17, 3], [55, 12]])
    active = active_classes(labels.flatten(), 100, share, generator=torch.Generator().manual_seed(1))
    assert len(active) == max(int(share * 100), 5)
    assert active.tolist() == sorted(set(active.tolist()))
    assert set(labels.flatten().tolist()) <= set(active.tolist())
    positives = among(labels, active)
    for n in range(3):
        assert active[positives[n]].tolist() == sorted(labels[n].tolist())


def test_all_classes_active_is_the_dense_loss() -> None:
    labels, logits = torch.tensor([[3, 9], [1, 3]]), torch.randn(2, 12)
    active = active_classes(labels.flatten(), 12, 1.0, generator=torch.Generator().manual_seed(0))
    dense = torch.zeros(2, 12, dtype=torch.bool).scatter_(1, labels, True)
    torch.testing.assert_close(mlcd(logits[:, active], among(labels, active)), mlcd(logits, dense))
