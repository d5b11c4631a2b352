from __future__ import annotations

import dataclasses

import pytest
import torch
import torchattacks
from torch import nn

from rushlight.methods.robust.fgsm_cw.method import PRESETS
from rushlight.methods.robust.fgsm_cw.perturb import (
    BOXES,
    FAST,
    FULL,
    CarliniWagner,
    _to_w,
    carlini_wagner_l2,
    cross_entropy,
    fgsm,
    fooled,
    gradient_masking,
    margin,
    pgd,
)

SMALL = CarliniWagner(c=0.5, steps=60, rate=0.05, searches=5)


class Net(nn.Module):
    """A small network with a bumpy decision, and logits that stay above zero if told so."""

    def __init__(self, shift: float = 0.0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(128, 5)
            )
        self.shift = shift
        self.double().eval()

    def forward(self, x):
        return self.layers((x - 0.5) * 8) * 4 + self.shift


@pytest.fixture(scope="module")
def net():
    return Net()


@pytest.fixture(scope="module")
def batch(net):
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = images * 0.96 + 0.02
    return images, net(images).argmax(1).detach()


def wrong(labels):
    return (labels + 1) % 5


def by_images(attack, images, labels):
    return torch.cat([attack(images[i : i + 1], labels[i : i + 1]) for i in range(len(images))])


def test_margin_and_fooled_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert margin(logits, torch.tensor([0, 1])).tolist() == [1, -2]
    assert fooled(logits, torch.tensor([0, 1])).tolist() == [False, True]
    assert fooled(logits, torch.tensor([0, 1]), targeted=True).tolist() == [True, False]


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_equals_torchattacks_and_fools(net, batch, targeted):
    images, labels = batch
    goal = wrong(labels) if targeted else labels
    oracle = torchattacks.FGSM(net, eps=0.05)
    if targeted:
        oracle.set_mode_targeted_by_label(quiet=True)
    got = fgsm(net, images, goal, eps=0.05, targeted=targeted)
    torch.testing.assert_close(got, oracle(images, goal), rtol=0, atol=1e-6)
    assert (got - images).abs().max() <= 0.05 + 1e-12
    before, after = (margin(net(x), goal).mean() for x in (images, got))
    assert (after > before + 0.5) if targeted else (after < before - 0.5)
    assert targeted or fooled(net(got), goal).double().mean() > 0.5


def test_no_strength_no_change(net, batch):
    assert torch.equal(fgsm(net, *batch, eps=0.0), batch[0])
    assert torch.equal(pgd(net, *batch, eps=0.0), batch[0])
    assert torch.equal(pgd(net, *batch, eps=0.0, norm="l2"), batch[0])


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_equals_torchattacks_with_and_without_its_random_start(net, batch, norm, targeted):
    images, labels = batch
    goal = wrong(labels) if targeted else labels
    kind, eps = (torchattacks.PGD, 0.03) if norm == "linf" else (torchattacks.PGDL2, 0.4)
    for start in (False, True):
        oracle = kind(net, eps=eps, alpha=eps / 4, steps=7, random_start=start)
        if targeted:
            oracle.set_mode_targeted_by_label(quiet=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            want = oracle(images, goal)
        generator = torch.Generator().manual_seed(3) if start else None
        got = pgd(
            net,
            images,
            goal,
            eps=eps,
            step=eps / 4,
            steps=7,
            norm=norm,
            generator=generator,
            targeted=targeted,
        )
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.04), ("l2", 0.5)])
def test_pgd_stays_in_its_ball_and_box_and_beats_one_step(net, batch, norm, eps):
    images, labels = batch
    images = images.round()  # black and white: the box matters
    labels = net(images).argmax(1)
    got = pgd(net, images, labels, eps=eps, norm=norm, generator=torch.Generator().manual_seed(0), steps=20)
    change = (got - images).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert size.max() <= eps + 1e-9
    assert got.min() >= 0
    assert got.max() <= 1
    assert margin(net(got), labels).mean() < margin(net(images), labels).mean() - 0.5
    if norm == "linf":
        one = fgsm(net, images, labels, eps=eps)
        assert cross_entropy(net(got), labels).mean() > cross_entropy(net(one), labels).mean()


def test_pgd_that_stops_early_computes_less_and_leaves_fooled_images_alone(net, batch):
    images, labels = batch
    seen: list[int] = []

    def counting(x):
        seen.append(len(x))
        return net(x)

    full = pgd(net, images, labels, eps=0.05, steps=10)
    got = pgd(counting, images, labels, eps=0.05, steps=10, stop_early=True)
    assert sum(seen) < 10 * len(images)
    assert fooled(net(got), labels)[fooled(net(full), labels)].all()
    already = pgd(net, images, wrong(labels), eps=0.05, stop_early=True)
    assert torch.equal(already, images)


def test_each_image_is_attacked_as_if_alone(net, batch):
    images, labels = batch
    attacks = [
        lambda x, y: fgsm(net, x, y, eps=0.05),
        lambda x, y: pgd(net, x, y, eps=0.05, steps=5, stop_early=True),
        lambda x, y: carlini_wagner_l2(net, x, y, settings=dataclasses.replace(SMALL, searches=2, stop_early=True)),
    ]
    for attack in attacks:
        torch.testing.assert_close(attack(images, labels), by_images(attack, images, labels), rtol=0, atol=1e-9)


def test_attacks_take_any_loss_and_leave_parameters_without_gradients(batch):
    net = Net()
    fgsm(net, *batch, eps=0.05)
    carlini_wagner_l2(net, *batch, settings=dataclasses.replace(FAST, steps=2))
    assert all(p.grad is None for p in net.parameters())
    by_margin = fgsm(net, *batch, eps=0.05, loss=lambda z, y: -margin(z, y))
    assert margin(net(by_margin), batch[1]).mean() < margin(net(batch[0]), batch[1]).mean() - 0.5


def test_attacks_take_losses_whose_gradient_is_one_number():
    images, labels = torch.full((2, 3, 2, 2), 0.5), torch.zeros(2, dtype=torch.long)
    for attack in (fgsm, pgd):
        got = attack(lambda x: x.flatten(1), images, labels, eps=0.1, loss=lambda z, _: z.sum(1))
        torch.testing.assert_close(got, images + 0.1)


def test_attacks_work_where_gradients_are_off(net, batch):
    with torch.no_grad():
        off = fgsm(net, *batch, eps=0.05)
    torch.testing.assert_close(off, fgsm(net, *batch, eps=0.05), rtol=0, atol=0)
    assert not off.requires_grad


def linear_binary():
    weight = torch.randn(12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def logits(x):
        half = ((x.flatten(1) - 0.5) @ weight + 0.13) / 2
        return torch.stack([-half, half], 1)

    return weight, logits


def test_fgsm_flips_a_linear_classifier_exactly_where_it_must():
    weight, logits = linear_binary()
    images = 0.5 + 0.1 * (torch.rand(200, 3, 2, 2, generator=torch.Generator().manual_seed(6)).double() - 0.5)
    signed = (images.flatten(1) - 0.5) @ weight + 0.13
    labels = (signed > 0).long()
    eps = 0.012
    must = eps * weight.abs().sum() > signed.abs()
    assert 20 < must.sum() < 180
    assert torch.equal(fooled(logits(fgsm(logits, images, labels, eps=eps)), labels), must)


def test_carlini_wagner_finds_the_nearest_point_across_a_line():
    weight, logits = linear_binary()
    images = 0.5 + 0.1 * (torch.rand(20, 3, 2, 2, generator=torch.Generator().manual_seed(6)).double() - 0.5)
    signed = (images.flatten(1) - 0.5) @ weight + 0.13
    labels = (signed > 0).long()
    settings = CarliniWagner(c=1e-1, steps=150, rate=0.01, searches=8)
    got = carlini_wagner_l2(logits, images, labels, settings=settings)
    assert fooled(logits(got), labels).all()
    distance = (got - images).flatten(1).norm(dim=1)
    nearest = signed.abs() / weight.norm()
    assert (distance >= nearest - 1e-9).all()
    assert (distance <= nearest * 1.03 + 1e-4).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_fast_carlini_wagner_equals_torchattacks_where_that_is_sound(batch, targeted):
    """Positive logits and no early return avoid the oracle's quirks; its start is not shrunk: hence 1e-6."""
    net, (images, labels) = Net(shift=1000.0), batch
    goal = wrong(labels) if targeted else labels
    oracle = torchattacks.CW(net, c=20.0, kappa=0, steps=9, lr=0.02)  # steps // 10 == 0: it may return at any step
    if targeted:
        oracle.set_mode_targeted_by_label(quiet=True)
    settings = CarliniWagner(c=20.0, steps=9, rate=0.02, box="tanh")
    alone = [(images[i : i + 1], goal[i : i + 1]) for i in range(len(images))]
    equal = 0
    for x, y in alone:
        want, got = oracle(x, y), carlini_wagner_l2(net, x, y, settings=settings, targeted=targeted)
        if (want - x).norm() > 0:  # otherwise it failed, or returned early
            near = (got - x).norm() <= (want - x).norm() + 1e-6
            assert near
            equal += bool((got - want).abs().max() < 1e-5)
    assert equal >= 3


@pytest.mark.parametrize("targeted", [False, True])
def test_carlini_wagner_with_search_always_fools_and_is_nearer_than_without(net, batch, targeted):
    images, labels = batch
    goal = wrong(labels) if targeted else labels
    searched = carlini_wagner_l2(net, images, goal, settings=SMALL, targeted=targeted)
    assert fooled(net(searched), goal, targeted=targeted).all()
    assert searched.min() >= 0
    assert searched.max() <= 1
    single = carlini_wagner_l2(
        net, images, goal, settings=dataclasses.replace(SMALL, c=100.0, searches=1), targeted=targeted
    )
    distances = [(x - images).flatten(1).norm(dim=1) for x in (searched, single)]
    assert distances[0].mean() < distances[1].mean()
    assert (distances[0] > 0).sum() >= len(images) - targeted


def test_confidence_is_the_margin_by_which_the_network_is_fooled(net, batch):
    images, labels = batch
    sure = carlini_wagner_l2(net, images, labels, settings=dataclasses.replace(SMALL, c=10.0, confidence=1.0))
    changed = (sure - images).flatten(1).norm(dim=1) > 0
    assert changed.double().mean() > 0.9
    assert (margin(net(sure), labels)[changed] <= -1).all()


def test_stopping_early_computes_less_at_nearly_no_loss(net, batch):
    images, labels = batch
    counts = {}
    results = {}
    for stop in (False, True):
        seen: list[int] = []

        def counting(x, seen=seen):
            seen.append(len(x))
            return net(x)

        settings = dataclasses.replace(SMALL, steps=100, searches=3, stop_early=stop)
        results[stop] = carlini_wagner_l2(counting, images, labels, settings=settings)
        counts[stop] = sum(seen)
    assert counts[True] < 0.9 * counts[False]
    far = [(results[stop] - images).flatten(1).norm(dim=1).mean() for stop in (False, True)]
    assert fooled(net(results[True]), labels).all()
    assert far[1] < 1.1 * far[0]


def test_black_and_white_pixels_move(net):
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64).round()
    labels = net(images).argmax(1)
    got = carlini_wagner_l2(net, images, labels, settings=PRESETS["standard"])
    assert fooled(net(got), labels).all()


@pytest.mark.parametrize("box", ["sine", "tanh"])
def test_a_box_returns_what_it_was_given(box):
    images = torch.linspace(0, 1, 24, dtype=torch.float64).view(2, 3, 2, 2)
    back = (BOXES[box].map(_to_w(images, box)) + 1) / 2
    torch.testing.assert_close(back, images, rtol=0, atol=1e-4)
    assert back.min() >= 0
    assert back.max() <= 1


def test_what_cannot_be_fooled_comes_back_unchanged(batch):
    images, labels = batch
    always = torch.nn.functional.one_hot(labels, 5).double()
    got = carlini_wagner_l2(lambda x: always + 0 * x.flatten(1)[:, :5], images, labels, settings=FAST)
    assert torch.equal(got, images)


def test_full_is_the_original_attack():
    original = {"c": 1e-3, "confidence": 0.0, "steps": 10_000, "rate": 0.01, "searches": 9}
    assert CarliniWagner(**original, stop_early=True, box="tanh") == FULL


def test_masked_gradients_are_seen_and_honest_ones_are_not(net, batch):
    images, labels = batch[0].float(), batch[1]
    single = Net().float()

    def steep(x):
        return single(x) * 1000

    honest = gradient_masking(single, images, labels, eps=0.05)
    assert honest.zero == 0
    assert not honest.masked
    hidden = gradient_masking(steep, images, labels, eps=0.05, temperature=1000.0)
    assert hidden.zero > 0.3
    assert hidden.masked
    assert hidden.scaled == honest.plain
    exact = gradient_masking(steep, images, labels, eps=0.05, temperature=1.0, precise_fn=lambda x: net(x) * 1000)
    assert exact.precise >= exact.plain
