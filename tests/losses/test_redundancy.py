from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import BarlowTwinsLoss

from rushlight.losses import redundancy
from rushlight.losses.redundancy import (
    barlow_twins,
    barlow_twins_by_columns,
    covariance_loss,
    invariance_loss,
    standardise,
    variance_loss,
    vicreg,
    vicreg_by_columns,
)

FORMS = [(barlow_twins, barlow_twins_by_columns), (vicreg, vicreg_by_columns)]


def views(rows: int, dim: int, seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, dim, generator=generator, dtype=dtype)
    b = a + 0.7 * torch.randn(rows, dim, generator=generator, dtype=dtype)
    return a.requires_grad_(), b.requires_grad_()


def by_loops(a, b, weight):
    rows, dim = a.shape
    za = (a - a.mean(0)) / (a.var(0, correction=0) + 1e-5).sqrt()
    zb = (b - b.mean(0)) / (b.var(0, correction=0) + 1e-5).sqrt()
    loss = a.new_zeros(())
    for i in range(dim):
        for j in range(dim):
            c = sum(za[n, i] * zb[n, j] for n in range(rows)) / rows
            loss = loss + ((1 - c) ** 2 if i == j else weight * c**2)
    return loss


def peak(work) -> int:
    """The most bytes that it holds at a time, beside what was there."""
    with torch.profiler.profile(profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held, most = 0, 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def value_and_gradients(loss, *inputs):
    return loss.detach(), *torch.autograd.grad(loss, inputs)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(2, 7), dim=st.integers(1, 7), weight=st.floats(0, 1), seed=st.integers(0, 99))
def test_equals_plain_loops_in_value_and_gradient_in_both_forms(rows, dim, weight, seed):
    a, b = views(rows, dim, seed)
    want = value_and_gradients(by_loops(a, b, weight), a, b)
    for form in (barlow_twins, barlow_twins_by_columns):
        got = value_and_gradients(form(a, b, weight=weight), a, b)
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("rows", "dim"), [(64, 32), (32, 32), (16, 96)])
def test_equals_lightlys_loss(rows, dim):
    a, b = views(rows, dim)
    got = value_and_gradients(barlow_twins(a, b), a, b)
    want = value_and_gradients(BarlowTwinsLoss(lambda_param=0.0051)(a, b), a, b)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def test_is_blind_to_scale_and_shift_of_each_dimension():
    a, b = views(32, 8)
    moved = a * (torch.arange(8) + 1.0) * 10 + torch.arange(8) - 3
    torch.testing.assert_close(barlow_twins(moved, b), barlow_twins(a, b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [4, 32])
def test_constant_embeddings_cost_the_number_of_dimensions(rows):
    constant = torch.full((rows, 8), 0.37, dtype=torch.float64)
    torch.testing.assert_close(barlow_twins(constant, constant), torch.tensor(8.0, dtype=torch.float64))


def uncorrelated() -> torch.Tensor:
    constant_first = torch.cat([torch.ones(32, 1, dtype=torch.float64), views(32, 8)[0].detach()], 1)
    return torch.linalg.qr(constant_first)[0][:, 1:] * 1e3


def test_equal_uncorrelated_views_cost_nothing():
    basis = torch.linalg.qr(torch.cat([torch.ones(32, 1), views(32, 8)[0].detach()], 1).double())[0][:, 1:] * 1e3
    assert barlow_twins(basis, basis) < 1e-8


def test_a_flipped_dimension_costs_four():
    basis = torch.linalg.qr(torch.cat([torch.ones(32, 1), views(32, 8)[0].detach()], 1).double())[0][:, 1:] * 1e3
    flipped = basis * torch.tensor([-1.0] + [1] * 7, dtype=torch.float64)
    torch.testing.assert_close(barlow_twins(basis, flipped), torch.tensor(4.0, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rows", "dim"), [(256, 64), (64, 256)])
def test_independent_gaussians_cost_what_theory_says(rows, dim):
    pairs = [torch.randn(2, rows, dim, generator=torch.Generator().manual_seed(s)).double() for s in range(20)]
    on = torch.stack([barlow_twins(a, b, weight=0.0) for a, b in pairs]).mean()
    both = torch.stack([barlow_twins(a, b, weight=1.0) for a, b in pairs]).mean()
    assert on == pytest.approx(dim * (1 + 1 / rows), rel=0.02)
    assert both - on == pytest.approx(dim * (dim - 1) / rows, rel=0.05)


@pytest.mark.parametrize("loss", [barlow_twins_by_columns, vicreg_by_columns])
def test_wide_embeddings_need_no_more_than_twice_their_own_memory(loss, monkeypatch):
    monkeypatch.setattr(redundancy, "BLOCK", 64 * 64)
    a, b = views(64, 4096, dtype=torch.float32)
    assert peak(lambda: loss(a, b).backward()) <= 1.6 * 2 * a.nbytes  # the gradients alone are 1


@pytest.mark.parametrize("block", [1, 40, 10**6])
@pytest.mark.parametrize("shape", [(6, 17), (17, 6)])
@pytest.mark.parametrize(("plain", "by_columns"), FORMS)
def test_columns_in_blocks_of_any_size_are_the_plain_form(plain, by_columns, shape, block, monkeypatch):
    a, b = views(*shape)
    monkeypatch.setattr(redundancy, "BLOCK", block)
    got, want = (value_and_gradients(form(a, b), a, b) for form in (by_columns, plain))
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("loss", [form for pair in FORMS for form in pair])
def test_gradients_are_scaled_and_go_to_what_is_trained_alone(loss):
    a, b = views(6, 17)
    (want,) = torch.autograd.grad(loss(a, b), a)
    (got,) = torch.autograd.grad(2 * loss(a, b.detach()) + 1, a)
    torch.testing.assert_close(got, 2 * want)
    assert not loss(a.detach(), b.detach()).requires_grad


def test_half_precision_is_computed_in_single():
    a, b = (x.detach().bfloat16() for x in views(32, 8))
    loss = barlow_twins(a, b)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, barlow_twins(a.float(), b.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(barlow_twins(a.float(), b.float()), loss, rtol=0, atol=0)


def test_standardise_uses_the_biased_deviation():
    x, _ = views(6, 3)
    got = standardise(x * 100)
    torch.testing.assert_close(got.var(0, correction=0), torch.ones(3, dtype=torch.float64))


def test_one_row_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value"):
        barlow_twins(torch.zeros(1, 4), torch.zeros(1, 4))


# VICReg ---------------------------------------------------------------------------------------------------------------


def plain_vicreg(a: torch.Tensor, b: torch.Tensor, sim: float, std: float, cov: float) -> torch.Tensor:
    """The paper's equations 1 to 6, dimension by dimension."""
    n, d = a.shape
    total = sim * sum((a[i] - b[i]).square().sum() for i in range(n)) / (n * d)
    for z in (a, b):
        centred = z - z.mean(0)
        hinge = sum((1 - ((centred[:, j].square().sum() / (n - 1)) + 1e-4).sqrt()).clamp(min=0) for j in range(d)) / d
        shared = torch.zeros((), dtype=a.dtype)
        for i in range(d):
            for j in range(d):
                if i != j:
                    shared = shared + ((centred[:, i] * centred[:, j]).sum() / (n - 1)).square()
        total = total + std * hinge / 2 + cov * shared / d
    return total


@pytest.mark.parametrize("form", [vicreg, vicreg_by_columns])
@pytest.mark.parametrize("shape", [(9, 4), (5, 12)])
def test_vicreg_is_plain_loops_and_lightlys_in_both_forms(shape, form):
    from lightly.loss import VICRegLoss

    torch.manual_seed(1)
    a, b = (0.7 * torch.randn(*shape, dtype=torch.float64) for _ in range(2))
    a.requires_grad_(), b.requires_grad_()
    loss, expected = form(a, b), plain_vicreg(a, b, 25.0, 25.0, 1.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(loss, VICRegLoss()(a, b))
    for mine, theirs in zip(torch.autograd.grad(loss, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_vicregs_terms_each_do_their_part():
    constant, spread = torch.ones(8, 4), 5 * torch.randn(8, 4)
    torch.testing.assert_close(
        vicreg(spread, constant, invariance=3.0, variance=4.0, covariance=5.0),
        3 * invariance_loss(spread, constant)
        + 2 * (variance_loss(spread) + variance_loss(constant))
        + 5 * (covariance_loss(spread) + covariance_loss(constant)),
    )
    alone = {"invariance": 0.0, "variance": 0.0, "covariance": 0.0}
    assert float(vicreg(constant, constant, **(alone | {"variance": 1.0}))) == pytest.approx(0.99, abs=1e-3)
    assert float(vicreg(spread, spread, **(alone | {"variance": 1.0}))) < 0.2
    assert float(vicreg(spread, spread, **(alone | {"invariance": 1.0}))) == 0
    copied = spread[:, :1].expand(-1, 4)
    assert float(vicreg(copied, copied, **(alone | {"covariance": 1.0}))) > 10
    with pytest.raises(ValueError, match="two images"):
        vicreg(constant[:1], constant[:1])
