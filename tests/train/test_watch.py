"""Losses are counted without a wait, and the first that is not finite is found."""

from __future__ import annotations

import pytest
import torch

from rushlight.train.watch import Watch

CPU = torch.device("cpu")
NAN, INFINITY = float("nan"), float("inf")


def seen(losses: list[float], every: int = 100, start: int = 0) -> Watch:
    watch = Watch(CPU, every)
    for step, loss in enumerate(losses, start):
        watch.see(step, torch.tensor(loss))
    return watch


@pytest.mark.parametrize(
    ("losses", "bad"),
    [([1.0, 2.0], None), ([], None), ([1.0, NAN, 3.0], 8), ([INFINITY], 7), ([1.0, 2.0, -INFINITY], 9)],
)
def test_the_first_bad_step_is_found_though_later_losses_are_finite(losses: list[float], bad: int | None) -> None:
    assert seen(losses, start=7).bad() == bad


def test_a_cpu_looks_at_each_loss_and_others_after_some() -> None:
    assert Watch(CPU).every == 1
    watch = seen([1.0], every=3)
    assert watch.due  # nothing is kept yet
    watch.keep({})
    due = []
    for step in range(1, 5):
        watch.see(step, torch.tensor(1.0))
        due.append(watch.due)
    assert due == [False, False, True, True]


def test_what_is_kept_is_a_copy_and_counting_starts_again() -> None:
    watch, weight = seen([1.0, 1.0]), torch.zeros(2)
    watch.keep({"weight": weight})
    weight += 1
    assert watch.kept is not None
    assert watch.kept["weight"].tolist() == [0, 0]
    watch.see(2, torch.tensor(float("nan")))
    assert watch.bad() == 2
