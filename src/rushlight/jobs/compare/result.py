"""The outcome of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.core.findings import NAN, Kind, Table
from rushlight.data.dataset import Dataset
from rushlight.jobs.compare import ship as shipping
from rushlight.jobs.compare.rank import beside, rank, reference
from rushlight.jobs.compare.ship import Choice, Cost, cost, ship
from rushlight.jobs.trials import ComparisonState, noted
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
        ranking: recipes from the highest mean, their intervals, and the set that cannot be told from the best.
        task: what was learned; data: with the test fold that was used.
        out: the folder with trials, models and report; place: what was given as such, a path or the URL of which that
            folder is a mirror.
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
    place: str = ""

    @property
    def store(self) -> Store:
        """Return where trials, models and the report are kept."""
        return Store(self.place or self.out)

    @property
    def metric(self) -> str:
        return tasks.find(self.task).metric.name

    @property
    def verdict(self) -> str:
        """Return which recipe to ship, and how sure that is, in one sentence."""
        return self.verdict_with({})

    def verdict_with(self, names: Mapping[str, str]) -> str:
        """Return the verdict with some recipes shown by these names."""
        return shipping.verdict(self.ranking, self.choice, self.costs, self.unranked, names)

    @property
    def ship(self) -> str:
        """Return the recipe that the verdict names: of those that cannot be told from the best, the cheapest to run,
        then to train; the rule stands in `rushlight.jobs.compare.ship`."""
        return self.choice.name

    @property
    def best(self) -> str:
        """Return the recipe with the highest mean, whether it can be told from the next or not; see `ship`."""
        return self.ranking.names[0]

    @property
    def choice(self) -> Choice:
        return ship(self.ranking, self.costs)

    @property
    def costs(self) -> dict[str, Cost]:
        """Return what each ranked recipe costs to run and to train, as means over its trials."""
        return {name: cost(self.of(name)) for name in self.ranking.names}

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
        """Return the median seed of the recipe to ship: a model that is neither lucky nor unlucky."""
        trials = sorted(self.of(self.ship), key=lambda result: result.value)
        return trials[(len(trials) - 1) // 2]

    def best_model(self) -> Model:
        """Return the trained model of `best_trial`, which is the recipe to ship's."""
        return Model.load(self.best_folder)

    @property
    def best_folder(self) -> Path:
        return self.store.model_path(self.best_trial().trial.key)

    def rows(self) -> list[dict[str, Any]]:
        """Return the leaderboard: one row per recipe, from the best; those that failed on a seed stand last.

        Beside the metric stand the gain, the costs, `verdict` (`ship`, `among the best`, `behind`, `failed`), and the
        task's further metrics with their intervals, where it has some.
        """
        further = beside(self.results, self.task)
        rows = _rows(self.ranking, self.metric, {name: self.of(name) for name in (*self.ranking.names, *self.unranked)})
        return [row | _further(further, row["recipe"]) for row in rows]

    def table(self) -> Table:
        """Return the leaderboard as a table."""
        return leaderboard(self.rows(), self.metric, self.ranking.reference)

    def beside(self) -> Table | None:
        """Return the task's further metrics, such as how well unseen classes are rejected; None where it has none."""
        further = beside(self.results, self.task)
        if not further:
            return None
        rows = [{"recipe": name} | _further(further, name) for name in self.ranking.names]
        ends = {name: _ends(name) for name in further}
        shares = {metric.name for metric in tasks.find(self.task).also if metric.bounds == (0.0, 1.0)}
        kinds: dict[str, Kind] = {column: "share" for name in shares & set(further) for column in (name, *ends[name])}
        lead = frozenset(i for i, name in enumerate(self.ranking.names) if name == self.ship)
        return Table.of_rows(f"beside {self.metric}", rows, kinds=kinds, intervals=ends, lead=lead, caption=BESIDE)

    def to_pandas(self) -> Any:
        """Return the leaderboard as a pandas DataFrame."""
        return Table.of_rows("leaderboard", self.rows()).to_pandas()

    def parts(self) -> Iterable[str | Table]:
        """Return the leaderboard, further scores, the verdict, the model's folder, what failed and what is noted."""
        yield self.table()
        yield from (table for table in (self.beside(),) if table is not None)
        yield self.verdict
        yield f"model: {self.best_folder}"
        yield from (f"failed: {result.failed}" for result in self.failed)
        yield from (f"note: {note}" for note in noted(self.results))


BESIDE = (
    "Means over the seeds. Each interval covers other seeds and other test images, and holds by itself; where there "
    "are too few images of a kind, there is none. Recipes are not ranked by these."
)


def _ends(name: str) -> tuple[str, str]:
    return f"{name}, low", f"{name}, high"


def _further(measured: Mapping[str, Mapping[str, stats.Interval]], recipe: str) -> dict[str, float]:
    """Return each further metric of a recipe with its interval; NaN for a recipe that is not ranked."""
    none = stats.Interval(NAN, NAN, NAN, NAN, NAN)
    found = {name: by.get(recipe, none) for name, by in measured.items()}
    return {key: value for name, i in found.items()
            for key, value in zip((name, *_ends(name)), (i.mean, i.low, i.high), strict=True)}  # fmt: skip


def _rows(ranking: stats.Ranking, metric: str, finished: Mapping[str, Sequence[Result]]) -> list[dict[str, Any]]:
    """Return the rows of the leaderboard, in the order of `finished`."""
    choice = ship(ranking, {name: cost(finished[name]) for name in ranking.names})
    return [_row(ranking, metric, name, results, choice) for name, results in finished.items()]


def _row(ranking: stats.Ranking, metric: str, name: str, finished: Sequence[Result], choice: Choice) -> dict[str, Any]:
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
        "verdict": _word(ranking, name, choice),
        "seeds": len(spent),
        "inference_flops": cost(finished).run,
        **{key: float(np.mean([getattr(s, key) for s in spent])) if spent else NAN
           for key in ("passes", "flops", "steps", "seconds")},
    }  # fmt: skip


def _word(ranking: stats.Ranking, name: str, choice: Choice) -> str:
    if name not in ranking.names:
        return "failed"
    if name == choice.name:
        return "ship"
    return "among the best" if name in ranking.best else "behind"


def leaderboard(rows: Sequence[dict[str, Any]], metric: str, against: str | None) -> Table:
    """Return rows of `Board.rows` as they are shown."""
    gain = f"gain over {against}" if against else "gain"
    unit, size = _unit([row["inference_flops"] for row in rows])
    columns = {"recipe": "recipe", "verdict": "verdict", metric: metric, "low": "low", "high": "high"}
    if any(row["gain"] == row["gain"] for row in rows):
        columns |= {gain: "gain", "gain_low": "gain_low", "gain_high": "gain_high"}
    shown = [
        {new: row[old] for new, old in columns.items()}
        | {f"{unit} an image": row["inference_flops"] / size, "passes to train": _whole(row["passes"])}
        | {"seeds": row["seeds"], "s a trial": _whole(row["seconds"])}
        for row in rows
    ]
    shares: dict[str, Kind] = dict.fromkeys((metric, "low", "high"), "share")
    points: dict[str, Kind] = dict.fromkeys((gain, "gain_low", "gain_high"), "points")
    return Table.of_rows(
        "",
        shown,
        kinds=shares | points,
        intervals={metric: ("low", "high"), gain: ("gain_low", "gain_high")},
        lead=frozenset(i for i, row in enumerate(rows) if row["among_best"]),
        caption=COSTS.format(unit=unit),
    )


COSTS = (
    "{unit} an image: what an answer of the trained model costs, encoder and heads. Passes to train: image passes of a "
    "trial, all its stages together."
)


def _unit(values: Sequence[float]) -> tuple[str, float]:
    """Return the unit in which these FLOPs are written: that of the largest."""
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    return next(((unit, size) for unit, size in (("GFLOPs", 1e9), ("MFLOPs", 1e6)) if largest >= size), ("kFLOPs", 1e3))


def _whole(value: float) -> float:
    return round(value) if math.isfinite(value) else value


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
    rows = _rows(ranking, metric, {name: [r for r in results if r.trial.recipe == name] for name in ranking.names})
    return leaderboard(rows, metric, ranking.reference)
