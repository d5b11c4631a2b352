from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rushlight.core.errors import UserError
from rushlight.nets import encoders
from rushlight.run.budget import Budget, Spent, count_flops, pass_flops


@pytest.mark.parametrize(
    ("text", "passes", "minutes"),
    [
        ("200k", 200_000, None),
        ("1.5M", 1_500_000, None),
        ("10M", 10_000_000, None),
        ("10m", None, 10),
        ("90s", None, 1.5),
        ("2h", None, 120),
        ("1e4", 10_000, None),
        (5000, 5000, None),
    ],
)
def test_budgets_are_read(text: str, passes: float | None, minutes: float | None) -> None:
    assert Budget.parse(text) == Budget(passes, minutes)


@pytest.mark.parametrize("text", ["", "k", "ten", "10 parsecs", "-3", "1.2.3", "nan", "inf"])
def test_what_is_no_budget_is_said(text: str) -> None:
    with pytest.raises(UserError, match="is no budget"):
        Budget.parse(text)


@given(st.floats(1, 1e12), st.floats(0.01, 1))
def test_a_budget_survives_its_text_and_shares_add_up(passes: float, part: float) -> None:
    budget = Budget(passes=passes)
    assert Budget.parse(str(budget)).passes == pytest.approx(passes, rel=1e-9)
    rest = budget.share(1 - part).passes or 0 if part < 1 else 0
    assert (budget.share(part).passes or 0) + rest == pytest.approx(passes)


def test_spending_adds() -> None:
    assert Spent(1, 2, 3, 4) + Spent(10, 20, 30, 40) == Spent(11, 22, 33, 44)


def test_flops_of_a_matrix_product_forward_and_backward() -> None:
    a, b = torch.rand(3, 5, requires_grad=True), torch.rand(5, 7, requires_grad=True)
    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    assert count_flops(lambda: (a @ b).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_a_pass_of_the_small_encoder_by_hand() -> None:
    """Forward of six convolutions; backward costs twice that, but for the images' gradient."""
    encoder = encoders.create("conv16", image_size=28, seed=0)
    shapes = [(3, 16, 28), (16, 16, 14), (16, 32, 14), (32, 32, 7), (32, 64, 7), (64, 64, 4)]
    forward = [2 * 9 * i * o * side * side for i, o, side in shapes]
    assert pass_flops(encoder, (28, 28)) == pytest.approx(3 * sum(forward) - forward[0], rel=0.01)


def test_counting_leaves_the_encoder_alone() -> None:
    encoder = encoders.create("conv16", image_size=28, seed=0)
    before = {name: values.clone() for name, values in encoder.state_dict().items()}
    pass_flops(encoder, (28, 28))
    assert all(torch.equal(values, before[name]) for name, values in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())
