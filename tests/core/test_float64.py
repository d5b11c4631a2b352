from __future__ import annotations

import pytest
import torch

from rushlight.augment.mask import dirichlet_tokens
from rushlight.augment.mix import beta
from rushlight.core import float64


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that stands for a device without float64."""
    monkeypatch.setattr(float64, "LACKING", ("cpu",))


def test_which_devices_have_it() -> None:
    assert float64.has_float64("cpu")
    assert float64.has_float64(torch.device("cuda", 1))
    assert not float64.has_float64("mps:0")


def test_a_tensor_stays_where_it_can_be_doubled() -> None:
    values = torch.rand(3)
    assert float64.where_float64(values) is values
    assert torch.equal(float64.double(values), values.double())


def test_a_generator_on_a_device_without_it_seeds_one_of_the_cpu(lacking: None) -> None:
    one, two = (float64.drawing(torch.Generator().manual_seed(seed)) for seed in (1, 1))
    other = float64.drawing(torch.Generator().manual_seed(2))
    drawn = [torch.rand(4, generator=each, dtype=torch.float64) for each in (one, two, other)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    generator = torch.Generator().manual_seed(1)
    assert float64.drawing(generator) is not generator


def test_a_generator_that_draws_float64_is_left_alone() -> None:
    generator = torch.Generator()
    assert float64.drawing(generator) is generator


def test_draws_move_to_the_cpu_and_back(lacking: None) -> None:
    """Beta(½, ½) has the mean ½ and the variance 1/8: of 4,000 draws to within 0.03 and 0.01 (five deviations)."""
    generator = torch.Generator().manual_seed(0)
    drawn = beta(0.5, 4000, generator)
    assert drawn.dtype == torch.float32
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.03)
    assert drawn.var().item() == pytest.approx(0.125, abs=0.01)
    masked = dirichlet_tokens(6, (9, 9), kept=5, alpha=1.0, generator=generator)
    assert ((~masked).sum(1) == 5).all()
