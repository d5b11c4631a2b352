from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.core.errors import UserError
from rushlight.train.memory_bank import MemoryBank, sized


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 4), batches=st.integers(1, 4), pushes=st.integers(0, 9))
def test_a_memory_bank_holds_the_last_that_were_pushed(batch: int, batches: int, pushes: int) -> None:
    bank = MemoryBank(batch * batches, 2)
    for number in range(pushes):
        bank.push(torch.full((batch, 2), float(number)))
        assert bank.full == (number + 1 >= batches)
    held = sorted(int(value) for value in bank.values[:, 0][bank.values[:, 0] == bank.values[:, 1]])
    assert held == sorted(list(range(max(pushes - batches, 0), pushes)) * batch)


def test_it_starts_with_random_directions_and_keeps_no_graph() -> None:
    bank = MemoryBank(6, 5)
    torch.testing.assert_close(bank.values.norm(dim=1), torch.ones(6))
    assert not bank.full
    bank.push(torch.randn(3, 5, requires_grad=True))
    assert not bank.values.requires_grad


def test_a_batch_that_does_not_divide_it_is_refused() -> None:
    with pytest.raises(UserError, match="memory bank of 6 does not divide into batches of 4"):
        MemoryBank(6, 2).push(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("wanted", "images", "size"), [(None, 1000, 992), (None, 10**6, 65536), (None, 5, 32), (64, 5, 64)]
)
def test_its_size_fits_the_data_unless_the_user_gave_one(wanted: int | None, images: int, size: int) -> None:
    assert sized(wanted, images, 32, largest=65536) == size


@pytest.mark.parametrize("wanted", [0, 16, 33])
def test_a_size_that_does_not_divide_is_refused(wanted: int) -> None:
    with pytest.raises(UserError, match=f"memory bank of {wanted} does not divide into batches of 32"):
        sized(wanted, 1000, 32, largest=65536)
