"""What comparisons with and without labels share: trials side by side in workers, their state, and what is checked
before them."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from rushlight.core.errors import UserError
from rushlight.core.files import write_whole
from rushlight.data.dataset import Dataset
from rushlight.nets.vit import check_vit
from rushlight.run import choose, trial
from rushlight.run.budget import Spent
from rushlight.run.executor import Executor
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Progress
from rushlight.run.store import Store
from rushlight.run.trial import Result, Trial


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
        """Return the share of all trials that is done, parts of trials included."""
        return (len(self.results) + sum(p.done for p in self.under_way.values())) / max(len(self.trials), 1)


def run_all(
    trials: list[Trial],
    data: Dataset,
    store: Store,
    executor: Executor,
    tell: Callable[[ComparisonState], None] | None,
    one: Callable[[Trial, str, str], Result] | None = None,
) -> list[Result]:
    """Return every trial's result: those from earlier runs, and those that `one` runs now.

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
        for result in executor.map(_run, list(_jobs(left, str(folder), store.place, one or _one)), on_idle=idle):
            results += [result] if result is not None else []
            idle()
    return results


def _jobs(trials: list[Trial], folder: str, out: str, one: Callable[..., Result]) -> Iterator[tuple[Any, ...]]:
    """Yield first the stages that several trials begin with, then the trials that wait for none, then the others."""
    starts = trial.common_starts(trials)
    yield from ((one, spec, stages, folder, out) for spec, stages in starts)
    begun = {Recipe.parse(spec.recipe).prefix(0) for spec, _ in starts}
    waits = [">" in spec.recipe and Recipe.parse(spec.recipe).prefix(0) in begun for spec in trials]
    for late in (False, True):
        yield from ((one, spec, 0, folder, out) for spec, each in zip(trials, waits, strict=True) if each is late)


def _run(one: Callable[..., Result], spec: Trial, stages: int, folder: str, out: str) -> Result | None:
    """Run one job in a worker: a whole trial, or the first stages that it shares with others."""
    if not stages:
        return one(spec, folder, out)
    guarded(partial(trial.run_start, stages=stages), spec, folder, out)  # what fails here, the trial tells
    return None


def _one(spec: Trial, folder: str, out: str) -> Result:
    """Run one trial in a worker."""
    return guarded(trial.run, spec, folder, out)


def guarded(run: Callable[..., Any], spec: Trial, folder: str, out: str) -> Any:
    """Return what `run` gives of a trial; a failure becomes a result that says so, and the others go on."""
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
    """Return the data set's folder of memory-mapped files that every worker reads."""
    folder = store.folder / "data" / data.content_hash[:24]
    if not _holds(folder, data):
        shutil.rmtree(folder, ignore_errors=True)
        data.save(folder, reference=True)
    return folder


def _holds(folder: Path, data: Dataset) -> bool:
    """Return whether a folder holds this data set: it may refer to a pack that is gone."""
    try:
        return Dataset.open(folder).content_hash == data.content_hash
    except (OSError, ValueError, KeyError, UserError):
        return False


def _progress(spec: Trial, store: Store) -> Progress | None:
    try:
        return Progress(**json.loads((store.work(spec.key) / "progress.json").read_text()))
    except (OSError, ValueError):
        return None


# --- after the trials ---


def noted(results: Sequence[Result]) -> list[str]:
    """Return what stages say of their training, once a recipe, with the seeds that it holds for."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for result in results:
        for note in result.notes:
            seeds.setdefault((result.trial.recipe, note), []).append(result.trial.seed)
    return [
        f"{recipe}, seed{'s' * (len(own) > 1)} {', '.join(map(str, sorted(own)))}: {note}"
        for (recipe, note), own in seeds.items()
    ]


# --- before the trials ---


def chosen_encoder(
    name: str, weights: str | None, data: Dataset, device: str, recipes: Sequence[str]
) -> tuple[str, str | None, str]:
    """Return the encoder's name, the weights it starts from, and why it was chosen, in a sentence."""
    if name != "auto":
        return name, weights, f"encoder {name}, as named"
    planned = [Recipe.parse(recipe) for recipe in recipes]
    choice = choose.encoder(max(data.height, data.width), device, recipes=planned)
    return choice.name, weights or choice.weights, f"encoder {choice.name}: {choice.why}"


def suits(recipes: Sequence[str], common: Trial, data: Dataset) -> None:
    """Check before the trials that the encoder and its weights exist, and that the encoder suits the recipes.

    Raises:
        UserError: one of them cannot be had, or a recipe does not suit.
    """
    encoder = trial.initial(common, data).encoder
    for name in {step.name for recipe in recipes for step in Recipe.parse(recipe).steps}:
        if choose.needs_vit(name):
            check_vit(encoder, name)


def split_recipes(text: str) -> list[str]:
    """Return recipes separated by commas; commas inside brackets belong to arguments."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]
