"""The main job: every fitting recipe, over several seeds, at an equal budget, and which of them to ship.

Seed s gives every recipe the same labelled subset and the same initial encoder; the test fold is the same for all.
A comparison that was killed goes on where it was: finished trials are files, and the same spec never runs twice.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from rushlight import tasks
from rushlight.core.catalogue import fitting
from rushlight.core.errors import UserError
from rushlight.core.files import write_whole
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.measure import stats
from rushlight.measure.units import units
from rushlight.nets.vit import is_vit
from rushlight.run import choose, hardware, trial
from rushlight.run.budget import Budget, Spent
from rushlight.run.executor import Executor
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Progress
from rushlight.run.store import Store
from rushlight.run.trial import Result, Trial
from rushlight.run.worker_pool import WorkerPool, workers_for

BASELINES = ("supervised", "fixmatch")
PRETRAINING = ("barlow-twins",)
"""What `--methods auto` pretrains with: one method, since there are as many as there are learners of labels, and each
doubles the comparison. Any other one is named: `--methods "supervised, dino > supervised"`."""


@dataclass(frozen=True)
class ComparisonState:
    """What a comparison tells while it runs.

    Attributes:
        trials, finished: how many there are, and are done. under_way: key → (trial, its latest progress).
        results: the finished ones; resumed: how many of them an earlier run had finished.
    """

    trials: list[Trial]
    results: list[Result]
    under_way: dict[str, Progress]
    started: float
    resumed: int = 0

    @property
    def share(self) -> float:
        """The share of all trials that is done, parts of trials included."""
        return (len(self.results) + sum(p.done for p in self.under_way.values())) / max(len(self.trials), 1)


@dataclass(frozen=True)
class Board:
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
        """Which recipe to ship, in one sentence."""
        return stats.verdict(self.ranking)

    @property
    def best(self) -> str:
        """The recipe with the highest mean."""
        return self.ranking.names[0]

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.failed]

    def of(self, recipe: str) -> list[Result]:
        """A recipe's finished trials, by seed."""
        return [r for r in self.results if r.trial.recipe == recipe and not r.failed]

    def best_trial(self) -> Result:
        """The median seed of the best recipe: a model that is neither lucky nor unlucky."""
        trials = sorted(self.of(self.best), key=lambda result: result.value)
        return trials[(len(trials) - 1) // 2]

    def best_model(self) -> Model:
        """The trained model of `best_trial`."""
        return Model.load(self.best_folder)

    @property
    def best_folder(self) -> Path:
        return Store(self.out).model_path(self.best_trial().trial.key)

    def rows(self) -> list[dict[str, Any]]:
        """The leaderboard: one row a recipe, from the best."""
        return [self._row(name) for name in self.ranking.names]

    def _row(self, name: str) -> dict[str, Any]:
        alone, gain = self.ranking.alone[name], self.ranking.gains.get(name)
        spent = [result.spent for result in self.of(name)]
        return {
            "recipe": name,
            self.metric: alone.mean,
            "low": alone.low,
            "high": alone.high,
            "gain": gain.mean if gain else float("nan"),
            "gain_low": gain.low if gain else float("nan"),
            "gain_high": gain.high if gain else float("nan"),
            "among_best": name in self.ranking.best,
            "seeds": len(spent),
            "passes": float(np.mean([s.passes for s in spent])),
            "flops": float(np.mean([s.flops for s in spent])),
            "seconds": float(np.mean([s.seconds for s in spent])),
        }

    def to_pandas(self) -> Any:
        """The leaderboard as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(self.verdict)}</p>" + self.to_pandas().to_html(index=False, float_format="%.4g")

    def __rich__(self) -> Any:
        from rich.console import Group

        lines = [f"[bold]{self.verdict}[/bold]", f"model: {self.best_folder}"]
        return Group(table(self.rows(), self.metric), *lines, *[f"failed: {r.failed}" for r in self.failed])


def table(rows: list[dict[str, Any]], metric: str) -> Any:
    """A leaderboard for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    passes, seeds = max(row["passes"] for row in rows), max(row["seeds"] for row in rows)
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1), caption=f"{seeds} seeds, up to {passes:,.0f} image passes a trial")
    for column in ("recipe", f"{metric} %", "95 % interval", "gain over supervised", "s a trial"):
        shown.add_column(column, justify="left" if column == "recipe" else "right", overflow="fold")
    for row in rows:
        gain = f"{100 * row['gain']:+.1f} ({100 * row['gain_low']:+.1f} … {100 * row['gain_high']:+.1f})"
        shown.add_row(
            row["recipe"].replace("[", r"\["),
            f"{100 * row[metric]:.1f}",
            f"{100 * row['low']:.1f} … {100 * row['high']:.1f}",
            "" if np.isnan(row["gain"]) else gain,
            f"{row['seconds']:.0f}",
            style="bold green" if row["among_best"] else None,
        )
    return shown


def so_far(state: ComparisonState) -> list[Any]:
    """The leaderboard over the seeds that every recipe has finished: one table, or nothing yet."""
    if state.trials[0].task not in tasks.names():
        return []
    recipes = list(dict.fromkeys(t.recipe for t in state.trials))
    done = {r.trial.recipe for r in state.results if not r.failed}
    if len(done) < len(recipes):
        return []
    try:
        ranking = rank(state.results, state.trials[0].task)
    except UserError:
        return []
    out = Board(state.results, ranking, state.trials[0].task, None, Path(), (), "", 0.0)
    return [table(out.rows(), out.metric)]


def automatic(data: Dataset, task: str) -> list[str]:
    """The recipes that fit the data: baselines, every learner of the task, and `PRETRAINING` before some of them."""
    fits = [card for card, lacks in fitting(data, task) if not lacks and card.role == "learner"]
    learners = sorted(
        (c.id for c in fits if c.task),
        key=lambda name: (BASELINES.index(name) if name in BASELINES else len(BASELINES), name),
    )
    semi = [card.id for card in fits if card.family == "semi" and card.task]
    pretrainers = [card.id for card in fits if card.id in PRETRAINING]
    after = [name for name in ("supervised", *semi[:1]) if name in learners]
    return learners + [f"{before} > {name}" for before in pretrainers for name in after]


def compare(
    data: Dataset,
    methods: str | Sequence[str] = "auto",
    *,
    budget: str | float | Budget = "200k",
    seeds: int = 5,
    out: str | Path = "rushlight-out",
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    task: str | None = None,
    keep: int | None = None,
    test_share: float = 0.25,
    device: str = "auto",
    workers: int | None = None,
    command: str | None = None,
    on_update: Callable[[ComparisonState], None] | None = None,
) -> Board:
    """Run every recipe on every seed at an equal budget, and rank them.

    Args:
        data: images with whatever labels exist; where it has no test fold, one is held out (`test_share` of the
            labelled images).
        methods: recipes, or `auto`: every one that fits. `supervised` always runs, `fixmatch` where it fits.
        budget: image passes or minutes for each trial.
        seeds: how many; they are 0 … seeds − 1.
        out: folder for trials, models and the report; a comparison that was killed goes on there.
        encoder: a name, or `auto`; weights: a safetensors file to start from; pretrained: fetch timm's.
        task: `class`, `tags` or `mask`; by default what is known.
        keep: known labels a class, drawn anew by each seed; by default all that are known (the embedded photos
            keep 10).
        workers: trials side by side; by default one a core on a CPU.
        on_happening: called about twice a second with how far it is.

    Raises:
        UserError: nothing to learn from, a recipe that does not fit, an output folder that is in use, …
    """
    began = time.monotonic()
    task = _task(data, task)
    device = hardware.device(device)
    data, chosen = _with_test(data, task, test_share)
    if why := tasks.find(task).unscorable(data.fold(TEST)):
        raise UserError(f"{data.info.source}: {why}")
    keep = data.info.keep if keep is None else keep
    recipes = _recipes(methods, data, task, keep)
    name, start, why = chosen_encoder(encoder, weights, data, device, recipes)
    store = Store(out)
    common = Trial(
        recipe="",
        seed=0,
        budget=str(Budget.parse(budget)),
        data=data.content_hash,
        task=task,
        keep=keep,
        encoder=name,
        weights=start,
        pretrained=pretrained,
        device=device,
        precision=hardware.precision(device, name),
    )
    if seeds == 2:
        chosen = (*chosen, "two seeds: the coverage of the intervals was measured for 3 to 10")
    suits(recipes, common, data)
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}: give at least 1, better 3 or more (intervals need several)")
    trials = [replace(common, recipe=recipe, seed=seed) for seed in range(seeds) for recipe in recipes]
    with store.lock():
        results = run_all(trials, data, store, WorkerPool(workers_for(workers, device)), on_update)
    board = Board(
        results=sorted(results, key=lambda r: (recipes.index(r.trial.recipe), r.trial.seed)),
        ranking=rank(results, task, reference="supervised"),
        task=task,
        data=data,
        out=Path(out),
        choices=(*chosen, why),
        command=command or _command(data, recipes, common, seeds, out),
        seconds=time.monotonic() - began,
    )
    _write_leaderboard(board)
    return board


def rank(results: Sequence[Result], task: str, reference: str = "supervised") -> stats.Ranking:
    """Rank recipes over the seeds that all of them have finished."""
    done: dict[str, dict[int, Result]] = {}
    for result in results:
        if not result.failed:
            done.setdefault(result.trial.recipe, {})[result.trial.seed] = result
    if not done:
        raise UserError("no trial finished: " + next((r.failed for r in results if r.failed), "none was run"))
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in done.values())))
    if not seeds:
        raise UserError("no seed has finished for every recipe: there is nothing to compare")
    matrices = {r: np.stack([units(tasks.find(task), by[s].parts) for s in seeds]) for r, by in done.items()}
    return stats.compare_with_best(matrices, reference=reference if reference in matrices else None)


def run_all(
    trials: list[Trial],
    data: Dataset,
    store: Store,
    executor: Executor,
    tell: Callable[[ComparisonState], None] | None,
    one: Callable[[Trial, str, str], Result] | None = None,
) -> list[Result]:
    """Return every trial's result, of those that were run before and those that are run now, by `one`.

    First stages that several trials have in common run once, before them.
    """
    results = [trial.load(t.key, store) for t in trials if store.has(t.key)]
    left = [t for t in trials if not store.has(t.key)]
    started, resumed = time.monotonic(), len(results)

    def idle() -> None:
        if tell is not None:
            under_way = {t.key: p for t in left if (p := _progress(t, store)) is not None}
            finished = {result.trial.key for result in results}
            under_way = {k: p for k, p in under_way.items() if k not in finished}
            tell(ComparisonState(trials, results, under_way, started, resumed))

    idle()
    if left:
        folder = _shared(data, store)
        for result in executor.map(_run, list(_jobs(left, str(folder), str(store.folder), one or _one)), on_idle=idle):
            results += [result] if result is not None else []
            idle()
    return results


def _jobs(trials: list[Trial], folder: str, out: str, one: Callable[..., Result]) -> Iterator[tuple[Any, ...]]:
    """First the stages that several trials begin with, then the trials that wait for none of them, then the others."""
    starts = trial.common_starts(trials)
    yield from ((one, spec, stages, folder, out) for spec, stages in starts)
    begun = {Recipe.parse(spec.recipe).prefix(0) for spec, _ in starts}
    waits = [Recipe.parse(spec.recipe).prefix(0) in begun for spec in trials]
    for late in (False, True):
        yield from ((one, spec, 0, folder, out) for spec, each in zip(trials, waits, strict=True) if each is late)


def _run(one: Callable[..., Result], spec: Trial, stages: int, folder: str, out: str) -> Result | None:
    """Run one job in a worker: a whole trial, or the first stages that it shares with others."""
    if not stages:
        return one(spec, folder, out)
    guarded(partial(trial.run_start, stages=stages), spec, folder, out)  # what fails here, the trial tells
    return None


def _one(spec: Trial, folder: str, out: str) -> Result:
    """One trial in a worker."""
    return guarded(trial.run, spec, folder, out)


def guarded(run: Callable[..., Result], spec: Trial, folder: str, out: str) -> Result:
    """A trial by `run`: a failure becomes a result that says so, and the others go on."""
    store = Store(out)

    def tell(progress: Progress) -> None:
        write_whole(store.work(spec.key) / "progress.json", json.dumps(vars(progress)).encode())

    try:
        return run(spec, _opened(folder), store, on_progress=tell)
    except UserError as error:
        return Result(spec, float("nan"), {}, [], Spent(), str(error))
    except Exception as error:
        log = store.work(spec.key) / "error.txt"
        write_whole(log, traceback.format_exc().encode())
        reason = f"{spec.recipe}, seed {spec.seed}: {type(error).__name__}: {error} (details in {log})"
        return Result(spec, float("nan"), {}, [], Spent(), reason)


@lru_cache(maxsize=1)
def _opened(folder: str) -> Dataset:
    return Dataset.open(folder)


def _shared(data: Dataset, store: Store) -> Path:
    """The data set as memory-mapped files that every worker reads."""
    folder = store.folder / "data" / data.content_hash[:24]
    if not _holds(folder, data):
        shutil.rmtree(folder, ignore_errors=True)
        data.save(folder, reference=True)
    return folder


def _holds(folder: Path, data: Dataset) -> bool:
    """Whether a folder holds this data set: it may refer to a pack that is gone."""
    try:
        return Dataset.open(folder).content_hash == data.content_hash
    except (OSError, ValueError, KeyError, UserError):
        return False


def _progress(spec: Trial, store: Store) -> Progress | None:
    try:
        return Progress(**json.loads((store.work(spec.key) / "progress.json").read_text()))
    except (OSError, ValueError):
        return None


def _task(data: Dataset, task: str | None) -> str:
    found = tasks.chosen(data)
    if task is None and found is None:
        raise UserError(
            f"no label is known in {data.info.source}: put images into a folder a class, or give --labels FILE "
            "(a CSV with the columns image and class); --unlabelled-only compares pretraining without any"
        )
    if task is not None and not data.known(tasks.find(task).column).any():
        raise UserError(
            f"--task {task}: no '{task}' is known in {data.info.source}" + (f", but {found}" if found else "")
        )
    return task or found or ""


def _with_test(data: Dataset, task: str, share: float) -> tuple[Dataset, tuple[str, ...]]:
    if "fold" in data and bool((data["fold"] == TEST).any()):
        n = int(data.fold(TEST).known(tasks.find(task).column).sum())
        return data, (f"tested on the {n:,} labelled images of the data's own test fold",)
    held = tasks.find(task).split(data, share)
    n = int((held["fold"] == TEST).sum())
    return held, (f"tested on {n:,} labelled images ({share:.0%}) held out from training, the same for every seed",)


def chosen_encoder(
    name: str, weights: str | None, data: Dataset, device: str, recipes: Sequence[str]
) -> tuple[str, str | None, str]:
    """The encoder's name, the weights it starts from, and why it was chosen, in a sentence."""
    if name != "auto":
        return name, weights, f"encoder {name}, as named"
    planned = [Recipe.parse(recipe) for recipe in recipes]
    choice = choose.encoder(max(data.height, data.width), device, recipes=planned)
    return choice.name, weights or choice.weights, f"encoder {choice.name}: {choice.why}"


def _recipes(methods: str | Sequence[str], data: Dataset, task: str, keep: int | None) -> list[str]:
    """The recipes to run, checked against the data as the stages will see it; the baselines first."""
    train = data.fold(TRAIN)
    seen = train if keep is None else tasks.find(task).keep(train, keep, seed=0)
    if isinstance(methods, str):
        asked = automatic(seen, task) if methods == "auto" else split_recipes(methods)
    else:
        asked = list(methods)
    fits = {card.id for card, lacks in fitting(seen, task) if not lacks}
    recipes = [str(Recipe.parse(text)) for text in [*(b for b in BASELINES if b in fits), *asked]]
    for text in recipes:
        Recipe.parse(text).check(seen, task)
    return list(dict.fromkeys(recipes))


def suits(recipes: Sequence[str], common: Trial, data: Dataset) -> None:
    """An encoder or weights that cannot be had, and recipes that the encoder does not suit, are said before the trials.

    Raises:
        UserError: it is one of these.
    """
    encoder = trial.initial(common, data).encoder
    for name in {step.name for recipe in recipes for step in Recipe.parse(recipe).steps}:
        if choose.needs_vit(name) and not is_vit(encoder):
            raise UserError(f"'{name}' works on the tokens of a vision transformer, and '{encoder.name}' is none: "
                            "name one, such as --encoder vit96")  # fmt: skip


def split_recipes(text: str) -> list[str]:
    """Recipes separated by commas; commas inside of brackets belong to arguments."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _command(data: Dataset, recipes: list[str], common: Trial, seeds: int, out: str | Path) -> str:
    words = [
        "rushlight",
        "compare",
        data.info.source,
        "--methods",
        ", ".join(recipes),
        "--budget",
        common.budget,
    ]
    words += ["--seeds", str(seeds), "--encoder", common.encoder, "--out", str(out)]
    words += ["--keep", str(common.keep)] if common.keep is not None else []
    return shlex.join(words)


def _write_leaderboard(board: Board) -> None:
    content = {
        "verdict": board.verdict,
        "metric": board.metric,
        "rows": board.rows(),
        "choices": board.choices,
    }
    content |= {"command": board.command, "model": str(board.best_folder.relative_to(board.out))}
    write_whole(board.out / "leaderboard.json", json.dumps(content, indent=1).encode())
