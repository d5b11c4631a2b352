"""Draws that are even at every level: shares by plain counting, frequencies within two of them, seeds."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.data.edit.balance import Balance

Numbers = list[tuple[int, int, int]]
NUMBERS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 9), st.integers(-1, 2)), min_size=1, max_size=120)


def balance(numbers: Numbers) -> Balance:
    return Balance.of(list(torch.tensor(numbers).unbind(1)), torch.arange(len(numbers)))


def share(numbers: Numbers, row: int) -> float:
    """Study → slide → magnification → patch, counted."""
    found = 1.0
    for level in range(3):
        found /= len({other[level] for other in numbers if other[:level] == numbers[row][:level]})
    return found / numbers.count(numbers[row])


@given(NUMBERS)
def test_each_level_is_even_within_the_one_above(numbers: Numbers) -> None:
    found = balance(numbers)
    assert sorted(found.rows.tolist()) == list(range(len(numbers)))
    for row, value in zip(found.rows.tolist(), found.shares.tolist(), strict=True):
        assert value == pytest.approx(share(numbers, row))
    assert float(found.shares.sum()) == pytest.approx(1)


@given(NUMBERS, st.integers(1, 300), st.integers(0, 99))
@settings(max_examples=60)
def test_a_batch_has_of_each_group_its_share(numbers: Numbers, count: int, seed: int) -> None:
    found = balance(numbers)
    drawn = found.draw(count, torch.Generator().manual_seed(seed)).tolist()
    assert len(drawn) == count
    for level in range(4):
        wanted: Counter = Counter()
        for row in range(len(numbers)):
            wanted[numbers[row][:level]] += count * share(numbers, row)
        seen = Counter(numbers[row][:level] for row in drawn)
        assert set(seen) <= set(wanted)
        assert all(abs(seen[group] - expected) < 2 for group, expected in wanted.items())


def test_over_many_batches_rows_of_a_group_are_drawn_alike() -> None:
    numbers = [(0, 0, 0)] * 3 + [(0, 1, 0)] * 2 + [(0, 1, 1)] * 40 + [(1, 2, 0)] * 55
    found, seen = balance(numbers), torch.zeros(100)
    for step in range(400):
        seen += found.draw(50, torch.Generator().manual_seed(step)).bincount(minlength=100)
    expected = torch.tensor([20_000 * share(numbers, row) for row in range(100)])
    assert float(((seen - expected).abs() / expected.sqrt()).max()) < 4.5  # of a hundred, in deviations


def test_the_seed_alone_decides_and_the_order_is_mixed() -> None:
    found = balance([(row % 2, row, 0) for row in range(40)])
    one, again, other = (found.draw(30, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert int((one[:15] % 2).sum()) not in (0, 15)


def test_without_levels_rows_are_even_and_each_is_drawn_once() -> None:
    rows = torch.tensor([2, 3, 5, 7, 11])
    found = Balance.of([], rows)
    assert found.even
    assert not balance([(0, 0, 0), (1, 0, 0), (1, 0, 0)]).even
    assert found.draw(5, torch.Generator().manual_seed(0)).sort().values.tolist() == rows.tolist()


def test_rows_that_are_not_named_do_not_count() -> None:
    level = torch.tensor([0, 0, 1, 2, 2])
    found = Balance.of([level], torch.tensor([0, 1, 2]))
    assert dict(zip(found.rows.tolist(), found.shares.tolist(), strict=True)) == {0: 0.25, 1: 0.25, 2: 0.5}
