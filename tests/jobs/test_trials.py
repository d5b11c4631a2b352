"""What comparisons share: recipes in one text, a failure that stops no other trial, the share that is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.jobs import trials
from rushlight.run.budget import Spent
from rushlight.run.stage import Progress
from rushlight.run.store import Store
from rushlight.run.trial import Result, Trial


def spec(recipe: str = "supervised", seed: int = 0) -> Trial:
    return Trial(recipe=recipe, seed=seed, budget="100", data="", task="class")


@pytest.fixture
def folder(photos: Dataset, tmp_path: Path) -> str:
    photos.save(tmp_path / "data")
    return str(tmp_path / "data")


def test_commas_inside_of_brackets_belong_to_arguments() -> None:
    text = "a(b=1, c=[2, 3]), d > e(f=(1, 2)),, g "
    assert trials.split_recipes(text) == ["a(b=1, c=[2, 3])", "d > e(f=(1, 2))", "g"]


def test_a_failure_becomes_a_result_and_says_where_its_details_are(folder: str, tmp_path: Path) -> None:
    def known(*arguments: object, **settings: object) -> Result:
        raise UserError("what is wrong")

    def unknown(*arguments: object, **settings: object) -> Result:
        raise ZeroDivisionError("of nothing")

    out = str(tmp_path / "out")
    assert trials.guarded(known, spec(), folder, out).failed == "what is wrong"
    failed = trials.guarded(unknown, spec(), folder, out).failed
    assert failed.startswith("supervised, seed 0: ZeroDivisionError: of nothing (details in ")
    assert "ZeroDivisionError" in (Store(out).work(spec().key) / "error.txt").read_text()


def test_the_share_counts_parts_of_trials() -> None:
    done = Result(spec(), 0.5, {}, [], Spent())
    four = [spec(seed=seed) for seed in range(4)]
    progress = Progress("supervised", 0.5)
    state = trials.ComparisonState(four, [done], {"key": progress}, 0.0)
    assert state.share == pytest.approx(1.5 / 4)
    assert trials.ComparisonState([], [], {}, 0.0).share == 0


def test_shared_starts_come_first_and_those_that_wait_for_none_next() -> None:
    recipes = ["mae > supervised", "supervised", "mae > fixmatch"]
    jobs = list(trials._jobs([spec(recipe) for recipe in recipes], "data", "out", trials._one))
    assert [(job[1].recipe.split(" > ")[0], job[2]) for job in jobs[:2]] == [("mae", 1), ("supervised", 0)]
    assert [job[1].recipe for job in jobs[2:]] == ["mae > supervised", "mae > fixmatch"]
    assert all(job[2] == 0 for job in jobs[1:])
