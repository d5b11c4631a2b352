from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.measure.spectrum import (
    alpha_req,
    covariance_eigenvalues,
    effective_rank,
    singular_values,
    threshold_rank,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rankme(embeddings, **settings):
    return effective_rank(singular_values(embeddings), **settings).item()


def test_orthonormal_columns_count_themselves():
    assert rankme(torch.linalg.qr(draw(200, 16))[0]) == pytest.approx(16, abs=0.01)


@pytest.mark.parametrize(("width", "expected"), [(256, 3.001), (2048, 3.010)])
def test_a_rank_of_three_is_seen_in_any_width_but_for_epsilon(width, expected):
    basis = torch.linalg.qr(draw(256, 3))[0]
    values = torch.zeros(width, dtype=torch.float64)
    values[:256] = singular_values(basis @ basis.T)
    got = effective_rank(values).item()
    assert got == pytest.approx(expected, abs=6e-4)
    assert math.log(got / 3) == pytest.approx(width * 1e-7 * math.log(1e7), rel=0.1)


def test_scale_and_rotation_change_nothing():
    embeddings = draw(60, 12) @ draw(12, 12, seed=1)
    rotation = torch.linalg.qr(draw(12, 12, seed=2))[0]
    assert rankme(embeddings * 1e4) == pytest.approx(rankme(embeddings))
    assert rankme(embeddings @ rotation) == pytest.approx(rankme(embeddings))
    shifted = rankme(embeddings + 50)
    assert abs(shifted - rankme(embeddings)) > 1  # it is not centred


def test_one_dominant_direction_is_one():
    assert rankme(draw(100, 1) @ draw(1, 20, seed=1)) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.zeros(10, 4)) == 0


def test_few_samples_cap_the_value():
    embeddings = draw(400, 50)
    ranks = [rankme(embeddings[:n]) for n in (10, 40, 100, 400)]
    assert ranks == sorted(ranks)
    assert ranks[0] <= 10 + 1e-3
    assert ranks[-1] > 45


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_equals_plain_loops_and_scipys_entropy(samples, dim, seed):
    values = singular_values(draw(samples, dim, seed=seed))
    total = sum(values.tolist())
    entropy = -sum((s / total + 1e-7) * math.log(s / total + 1e-7) for s in values.tolist())
    assert effective_rank(values).item() == pytest.approx(math.exp(entropy))
    assert effective_rank(values, eps=0.0).item() == pytest.approx(math.exp(scipy.stats.entropy(values.numpy())))


def test_copied_columns_add_no_rank():
    embeddings = draw(80, 10)
    copied = torch.cat([embeddings, embeddings], 1)
    assert rankme(copied, eps=0.0) == pytest.approx(rankme(embeddings, eps=0.0))


def test_half_precision_is_judged_in_double():
    embeddings = draw(50, 8).bfloat16()
    assert singular_values(embeddings).dtype == torch.float64
    assert rankme(embeddings) == rankme(embeddings.double())


def test_the_classical_rank_counts_above_its_tolerance():
    assert threshold_rank(torch.tensor([10.0, 1.0, 0.011, 0.009])) == 3
    assert threshold_rank(torch.tensor([10.0, 1.0, 0.011, 0.009]), tolerance=0.5) == 1


def test_covariance_eigenvalues_are_those_of_the_covariance():
    embeddings = draw(30, 5) + 7
    want = torch.linalg.eigvalsh(embeddings.T.cov(correction=0)).flip(0)
    torch.testing.assert_close(covariance_eigenvalues(embeddings), want)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.3])
def test_alpha_is_the_exponent_of_a_power_law(alpha):
    eigenvalues = 3 * torch.arange(1, 51, dtype=torch.float64) ** -alpha
    padded = torch.cat([eigenvalues, torch.zeros(5, dtype=torch.float64)])
    assert alpha_req(padded) == pytest.approx(alpha)
    bent = torch.cat([eigenvalues[:20], eigenvalues[20:] * torch.arange(1, 31) ** -2.0])
    assert alpha_req(bent) > alpha + 0.1
    assert alpha_req(bent, first=2, last=20) == pytest.approx(alpha)


def test_what_has_no_spectrum_or_slope_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        singular_values(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ValueError, match="without samples"):
        singular_values(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="two positive"):
        alpha_req(torch.tensor([1.0, 0.0, 0.0]))
