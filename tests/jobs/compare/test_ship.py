"""The verdict names one recipe: of those that cannot be told from the best, the cheapest to run, then to train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushlight.core.errors import UserError
from rushlight.jobs.compare.rank import rank
from rushlight.jobs.compare.ship import ALIKE, Choice, Cost, cost, ship, verdict
from rushlight.measure.stats import Interval, Ranking

POINT = Interval(0.0, 0.0, 0.0, 0.0, 1.0)


def ranked(names, best):
    gaps = {(a, b): Interval(0.03, 0.01, 0.05, 0.04, 4.0) for i, a in enumerate(names) for b in names[i + 1 :]}
    return Ranking(tuple(names), tuple(best), dict.fromkeys(names, POINT), gaps)


def said(best, costs, names=None, failed=()):
    ranking = ranked(names or [*best], best)
    costs = {name: Cost(*costs.get(name, (1e6, 1000.0))) for name in ranking.names}
    choice = ship(ranking, costs)
    return choice.name, verdict(ranking, choice, costs, failed)


def test_the_cheapest_to_run_is_shipped_first():
    costs = {"a": (3e9, 10.0), "b": (4e8, 1000.0), "c": (2e9, 1.0)}
    assert said("abc", costs) == (
        "b",
        "Ship b: a and c cannot be told from it, and it is the cheapest to run "
        "(400 MFLOPs an image against 3 GFLOPs an image of a).",
    )


def test_of_those_that_run_alike_the_cheapest_to_train():
    costs = {"a": (1.0e6, 130_000.0), "b": (1.04e6, 2_000.0), "c": (9e6, 1.0)}
    name, text = said("abc", costs, names="abcd")
    assert name == "b"
    assert "cheapest to run (1.04 MFLOPs an image against 9 MFLOPs an image of c)" in text
    assert "and then to train (2,000 image passes against 130,000 image passes of a); d is behind." in text


def test_where_all_cost_alike_the_highest_mean():
    assert said("ab", {"b": (0.97e6, 960.0)}) == (
        "a",
        "Ship a: b cannot be told from it, and of these, which cost the same within 5 %, it has the highest mean.",
    )


def test_a_mean_over_a_standard_error_lower_is_not_made_up_for_by_its_cost():
    ranking, costs = ranked("abc", "abc"), {"a": Cost(9e6, 9.0), "b": Cost(1e6, 1.0), "c": Cost(5e6, 1.0)}
    far = {("a", "b"): Interval(0.3, -0.1, 0.7, 0.2, 2.0)}
    one = replace(ranking, gaps={**ranking.gaps, **far})
    choice = ship(one, costs)
    assert (choice.name, choice.lower) == ("c", ("b",))
    assert verdict(one, choice, costs).endswith("of a); the mean of b lies over a standard error lower.")
    both = replace(one, best=("a", "b"))
    assert verdict(both, ship(both, costs), costs) == (
        "Ship a: b cannot be told from it, and the mean of b lies over a standard error lower; c is behind."
    )


def test_some_that_cost_as_much_are_named():
    costs = {"a": (9e6, 1.0), "b": (1e6, 1.0), "c": (1e6, 1.0)}
    name, text = said("abc", costs)
    assert name == "b"
    assert text.endswith("of a); c, at the same cost, has no higher mean.")


def test_one_that_is_best_alone_is_shipped_at_any_cost():
    name, text = said("a", {"a": (9e9, 9e9)}, names="ab")
    assert (name, text) == ("a", "Ship a: it is best, 3.0 points above b, the next (95 % interval 1.0 to 5.0).")


def test_one_recipe_and_failed_ones_are_told():
    assert said("a", {})[1] == "Ship a: it ran alone, so there is nothing to compare it with."
    assert said("a", {}, failed=["x"])[1] == "Ship a: no other finished; x is not ranked, because a trial failed."
    assert "x and y are not ranked" in said("ab", {}, failed=["x", "y"])[1]


def test_a_cost_that_was_not_counted_is_the_dearest():
    assert said("ab", {"a": (np.nan, 1.0)})[0] == "b"
    assert "an unknown cost of a" in said("ab", {"a": (np.nan, 1.0)})[1]
    assert said("ab", {"a": (np.nan, 1.0), "b": (np.nan, 1.0)})[0] == "a"


@given(st.lists(st.tuples(st.floats(1, 1e3), st.floats(1, 1e3)), min_size=1, max_size=6), st.integers(1, 6))
def test_nothing_among_the_best_is_cheaper_by_more_than_counts(costs, best):
    names = [str(i) for i in range(len(costs))]
    paid = {name: Cost(*each) for name, each in zip(names, costs)}
    choice = ship(ranked(names, names[:best]), paid)
    assert choice.name in names[:best]
    mine = paid[choice.name]
    least = min(paid[name].run for name in names[:best])
    assert mine.run <= ALIKE * least
    alike = [name for name in names[:best] if paid[name].run <= ALIKE * least]
    assert mine.train <= ALIKE * min(paid[name].train for name in alike)
    again = [name for name in alike if paid[name].train <= ALIKE * min(paid[n].train for n in alike)]
    assert choice.name == again[0], "the highest mean"


def test_the_board_ships_hands_out_and_shows_the_same(board):
    first, second, third = board.ranking.names[:3]
    results = [replace(r, inference_flops=1e6 if r.trial.recipe == second else 7e6) for r in board.results]
    even = dict.fromkeys(board.ranking.gaps, Interval(0.0, -0.1, 0.1, 0.05, 4.0))
    tied = replace(board, results=results, ranking=replace(board.ranking, best=(first, second, third), gaps=even))
    assert tied.best == first
    assert tied.ship == tied.best_trial().trial.recipe == second
    assert tied.verdict.startswith(f"Ship {second}: {first} and {third} cannot be told from it")
    assert str(tied.best_folder).endswith(tied.best_trial().trial.key)
    assert tied.to_pandas()["verdict"].tolist() == ["among the best", "ship", "among the best", "behind", "behind"]
    table = tied.table()
    assert table["MFLOPs an image"] == [row["inference_flops"] / 1e6 for row in tied.rows()]
    assert table["passes to train"] == [round(row["passes"]) for row in tied.rows()]


def test_costs_are_means_over_the_seeds(board):
    trials = [replace(r, inference_flops=float(i)) for i, r in enumerate(board.of("iomatch"))]
    found = cost(trials)
    assert found.run == pytest.approx(1.5)
    assert found.train == pytest.approx(np.mean([r.spent.passes for r in trials]))
    assert np.isnan(cost([]).run)


def test_where_every_trial_failed_nothing_is_shipped(board):
    failed = [replace(r, parts={}, value=float("nan"), failed="out of memory") for r in board.results]
    with pytest.raises(UserError, match="no trial finished: out of memory"):
        rank(failed, "class")


def test_equal_scores_and_costs_ship_the_first():
    assert ship(ranked("ab", "ab"), {"a": Cost(1.0, 1.0), "b": Cost(1.0, 1.0)}) == Choice("a", {}, ("b",))
