"""The outcome of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.core.findings import NAN, Kind, Table
from rushlight.data.dataset import Dataset
from rushlight.jobs.compare.rank import rank, reference
from rushlight.jobs.trials import ComparisonState
from rushlight.measure import stats
from rushlight.present.shown import Shown
from rushlight.run.model import Model
from rushlight.run.store import Store
from rushlight.run.trial import Result


@dataclass(frozen=True)
class Board(Shown):
    """The outcome of a comparison.

    Attributes:
        results: of every trial, in the order of recipes and seeds.
        ranking: recipes from the best, their intervals, and the set that cannot be told from the best.
        task: what was learned; data: with the test fold that was used.
        out: the folder with trials, models and report.
        choices: sentences about what was chosen for the user (encoder, test fold, …).
        command: what repeats the comparison.
        seconds: the whole comparison took, with everything outside of the trials.
    """

    results: list[Result]
    ranking: stats.Ranking
    task: str
    data: Dataset = field(repr=False)
    out: Path
    choices: tuple[str, ...]
    command: str
    seconds: float

    @property
    def metric(self) -> str:
        return tasks.find(self.task).metric.name

    @property
    def verdict(self) -> str:
        """Return which recipe to ship, in one sentence."""
        return stats.verdict(self.ranking)

    @property
    def best(self) -> str:
        """Return the recipe with the highest mean."""
        return self.ranking.names[0]

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.failed]

    @property
    def unranked(self) -> list[str]:
        """Return the recipes that failed on a seed and so have no rank."""
        return [name for name in dict.fromkeys(r.trial.recipe for r in self.failed) if name not in self.ranking.names]

    def of(self, recipe: str) -> list[Result]:
        """Return a recipe's finished trials, by seed."""
        return [r for r in self.results if r.trial.recipe == recipe and not r.failed]

    def best_trial(self) -> Result:
        """Return the median seed of the best recipe: a model that is neither lucky nor unlucky."""
        trials = sorted(self.of(self.best), key=lambda result: result.value)
        return trials[(len(trials) - 1) // 2]

    def best_model(self) -> Model:
        """Return the trained model of `best_trial`."""
        return Model.load(self.best_folder)

    @property
    def best_folder(self) -> Path:
        return Store(self.out).model_path(self.best_trial().trial.key)

    def rows(self) -> list[dict[str, Any]]:
        """Return the leaderboard: one row a recipe, from the best; those that failed on a seed stand last."""
        return [_row(self.ranking, self.metric, name, self.of(name)) for name in (*self.ranking.names, *self.unranked)]

    def table(self) -> Table:
        """Return the leaderboard as a table."""
        return leaderboard(self.rows(), self.metric, self.ranking.reference)

    def to_pandas(self) -> Any:
        """Return the leaderboard as a pandas DataFrame."""
        return Table.of_rows("leaderboard", self.rows()).to_pandas()

    def parts(self) -> Iterable[str | Table]:
        """Return the leaderboard, the verdict, the model's folder and what failed."""
        yield self.table()
        yield self.verdict
        yield f"model: {self.best_folder}"
        yield from (f"failed: {result.failed}" for result in self.failed)


def _row(ranking: stats.Ranking, metric: str, name: str, finished: Sequence[Result]) -> dict[str, Any]:
    alone, gain = ranking.alone.get(name), ranking.gains.get(name)
    spent = [result.spent for result in finished]
    return {
        "recipe": name,
        metric: alone.mean if alone else NAN,
        "low": alone.low if alone else NAN,
        "high": alone.high if alone else NAN,
        "gain": gain.mean if gain else NAN,
        "gain_low": gain.low if gain else NAN,
        "gain_high": gain.high if gain else NAN,
        "among_best": name in ranking.best,
        "seeds": len(spent),
        **{key: float(np.mean([getattr(s, key) for s in spent])) if spent else NAN
           for key in ("passes", "flops", "steps", "seconds")},
    }  # fmt: skip


def leaderboard(rows: Sequence[dict[str, Any]], metric: str, against: str | None) -> Table:
    """Return rows of `Board.rows` as they are shown."""
    gain = f"gain over {against}" if against else "gain"
    names = {"recipe": "recipe", metric: metric, "low": "low", "high": "high"}
    if any(row["gain"] == row["gain"] for row in rows):
        names |= {"gain": gain, "gain_low": "gain_low", "gain_high": "gain_high"}
    names |= {"seeds": "seeds", "seconds": "s a trial"}
    shares: dict[str, Kind] = dict.fromkeys((metric, "low", "high"), "share")
    points: dict[str, Kind] = dict.fromkeys((gain, "gain_low", "gain_high"), "points")
    shown = [{new: round(row[old]) if old == "seconds" and row[old] == row[old] else row[old]
              for old, new in names.items()} for row in rows]  # fmt: skip
    passes = max((row["passes"] for row in rows if row["passes"] == row["passes"]), default=0)
    return Table.of_rows(
        "",
        shown,
        kinds=shares | points,
        intervals={metric: ("low", "high"), gain: ("gain_low", "gain_high")},
        lead=frozenset(i for i, row in enumerate(rows) if row["among_best"]),
        caption=f"Up to {passes:,.0f} image passes a trial.",
    )


def so_far(state: ComparisonState) -> Table | None:
    """Return the leaderboard over the seeds that every recipe has finished; None if there is none yet."""
    task = state.trials[0].task
    recipes = list(dict.fromkeys(t.recipe for t in state.trials))
    results = [result for result in state.results if not result.failed]
    if task not in tasks.names() or {r.trial.recipe for r in state.results} != set(recipes) or not results:
        return None
    try:
        ranking = rank(state.results, task, reference=reference())
    except UserError:
        return None
    metric = tasks.find(task).metric.name
    rows = [_row(ranking, metric, name, [r for r in results if r.trial.recipe == name]) for name in ranking.names]
    return leaderboard(rows, metric, ranking.reference)
