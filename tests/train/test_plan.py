from __future__ import annotations

from rushlight.run.budget import Spent
from rushlight.train.plan import Plan


def test_steps_cost_what_was_counted() -> None:
    plan = Plan(batch=8, steps=100, step_flops=30.0, pass_flops=10.0)
    assert plan.spent(4, 2.5) == Spent(passes=12.0, flops=120.0, steps=4, seconds=2.5)
