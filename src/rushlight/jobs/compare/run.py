"""The main job: every fitting recipe, over several seeds, at an equal budget, and which of them to ship.

Seed s gives every recipe the same labelled subset and the same initial encoder; the test fold is the same for all.
A comparison that was interrupted continues when it is started again: finished trials are files, and the same spec
never runs twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from rushlight import tasks
from rushlight.core.card import Card
from rushlight.core.catalogue import cards, fitting, serving
from rushlight.core.errors import UserError
from rushlight.core.files import plain_json
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.jobs.command import repeat
from rushlight.jobs.compare.rank import TOO_FEW, rank, reference
from rushlight.jobs.compare.result import Board
from rushlight.jobs.source import no_label
from rushlight.jobs.trials import ComparisonState, chosen_encoder, run_all, split_recipes, suits
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.evaluate import GROUP, groups
from rushlight.run.recipe import Recipe
from rushlight.run.store import Store
from rushlight.run.trial import Trial, headless
from rushlight.run.worker_pool import WorkerPool, workers_for
from rushlight.tasks.base import some

TEST_SHARE = 0.25
Folder = str | os.PathLike[str]


def automatic(data: Dataset, task: str) -> list[str]:
    """Return the recipes that fit the data: every learner of the task, the baselines first, and some pretrained.

    There are as many ways to pretrain as learners, and each doubles the comparison; so the cards that serve
    `pretraining` alone stand before the reference and the first method that learns from a few labels.
    Any other is named: `methods="supervised, dino > supervised"`.
    """
    fits = [card for card, lacks in fitting(data, task) if not lacks and card.role == "learner"]
    known = baselines()
    learners = sorted((card for card in fits if card.task), key=lambda card: (_place(card, known), card.id))
    plain = [card for card in learners if card.serves == "reference"]
    better = [card for card in learners if card.family == "semi"]
    pretrainers = [card for card in fits if card.serves == "pretraining"]
    after = [*plain, *better[:1]]
    return [card.id for card in learners] + [f"{before.id} > {card.id}" for before in pretrainers for card in after]


def _place(card: Card, known: list[str]) -> int:
    return known.index(card.id) if card.id in known else len(known)


def baselines() -> list[str]:
    """Return the ids of the baselines, the reference first."""
    return [card.id for service in ("reference", "baseline") for card in serving(service)]


def compare(
    data: Dataset,
    methods: str | Sequence[str] = "auto",
    *,
    budget: str | float | Budget = "200k",
    seeds: int = 5,
    out: Folder = "rushlight-out",
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    task: str | None = None,
    keep: int | None = None,
    test_share: float = TEST_SHARE,
    device: str = "auto",
    workers: int | None = None,
    command: str | None = None,
    on_update: Callable[[ComparisonState], None] | None = None,
) -> Board:
    """Run every recipe on every seed at an equal budget, and rank them.

    Args:
        data: images with whatever labels exist; where it has no test fold, one is held out (`test_share` of the
            labelled images).
        methods: recipes, or `auto`: every one that fits. The baselines that fit always run.
        budget: image passes or minutes for each trial.
        seeds: how many; they are 0 … seeds − 1.
        out: folder (or URL) for trials, models and the report; a comparison that was killed goes on there.
        encoder: a name, or `auto`; weights: a safetensors file to start from; pretrained: fetch timm's.
        task: the id of the task to be learned; by default that of the labels that are known.
        keep: known labels a class, drawn by each seed; by default all that are known (the embedded photos
            keep 10).
        workers: trials side by side; by default one a core on a CPU; 0 runs them in this process, one after another.
        command: what repeats this; by default it is written from the arguments.
        on_update: called about twice a second with how far it is.

    Raises:
        UserError: nothing to learn from, a recipe that does not fit, an output folder that is in use, …
    """
    began, given = time.monotonic(), data
    task = _task(data, task)
    device = hardware.device(device)
    data, chosen = _with_test(data, task, test_share)
    data, unseen = tasks.find(task).opened(data)
    if unseen:
        what = "classes that occur" if len(unseen) > 1 else "class that occurs"
        chosen = (*chosen, f"{some(unseen)}: {what} in the test fold alone, unseen in training and to be rejected")
    if why := tasks.find(task).unscorable(data.fold(TEST)):
        raise UserError(f"{data.info.source}: {why}")
    keep = data.info.keep if keep is None else keep
    recipes, added = _recipes(methods, data, task, keep)
    if added:
        chosen = (*chosen, f"{' and '.join(added)} added: the baselines that fit always run, as what others must beat")
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
    _tellable(data, task, seeds)
    trials = [replace(common, recipe=recipe, seed=seed) for seed in range(seeds) for recipe in recipes]
    with store.lock():
        results = run_all(trials, data, store, WorkerPool(workers_for(workers, device)), on_update)
    board = Board(
        results=sorted(results, key=lambda r: (recipes.index(r.trial.recipe), r.trial.seed)),
        ranking=rank(results, task, reference=reference()),
        task=task,
        data=data,
        out=store.folder,
        place=store.place,
        choices=(*chosen, why),
        command=command or _command(given, recipes, common, seeds, test_share, out),
        seconds=time.monotonic() - began,
    )
    _write_leaderboard(board)
    return board


def _task(data: Dataset, task: str | None) -> str:
    found = tasks.chosen(data)
    if task is None and found is None:
        raise UserError(f"{no_label(data)}; --unlabelled-only compares pretraining without any")
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
    known = held.known(tasks.find(task).column)
    n, total = int((known & (held["fold"] == TEST)).sum()), int(known.sum())
    said = f"tested on {n:,} labelled images ({n / max(total, 1):.0%} of {total:,})"
    return held, (f"{said} held out from training, the same for every seed",)


def _recipes(methods: str | Sequence[str], data: Dataset, task: str, keep: int | None) -> tuple[list[str], list[str]]:
    """Return the recipes to run, checked against the data as the stages will see it, and which of them were added."""
    train = data.fold(TRAIN)
    seen = train if keep is None else tasks.find(task).keep(train, keep, seed=0)
    if isinstance(methods, str):
        asked = automatic(seen, task) if methods == "auto" else split_recipes(methods)
    else:
        asked = list(methods)
    if not asked:
        raise UserError("--methods names no recipe: leave it away for every one that fits, or name some, such as "
                        f"{baselines()[0]}")  # fmt: skip
    fits = {card.id for card, lacks in fitting(seen, task) if not lacks}
    recipes = [str(Recipe.parse(text)) for text in [*(name for name in baselines() if name in fits), *asked]]
    for text in recipes:
        Recipe.parse(text).check(seen, task)
        if not any(_teaches(cards()[step.name], task) for step in Recipe.parse(text).steps):
            raise UserError(headless(text, task))
    return list(dict.fromkeys(recipes)), [name for name in recipes[: len(recipes) - len(asked)] if name not in asked]


def _teaches(card: Card, task: str) -> bool:
    """Return whether what a card describes leaves a head for the task; a curator of its labels does not."""
    return task in card.task and card.role != "curator"


def _tellable(data: Dataset, task: str, seeds: int) -> None:
    """Check, before anything is trained, that there is more than one number to compare by.

    Raises:
        UserError: one seed is scored on one image, or on one group.
    """
    test = data.fold(TEST)
    rows = test.known(tasks.find(task).column).nonzero()[:, 0]
    if seeds * (len(groups(test)[rows].unique()) if GROUP in test else len(rows)) < 2:
        raise UserError(TOO_FEW)


def _command(data: Dataset, recipes: list[str], common: Trial, seeds: int, test_share: float, out: Folder) -> str:
    return repeat(
        "compare",
        data,
        methods=", ".join(recipes),
        budget=common.budget,
        seeds=seeds,
        keep=common.keep,
        test_share=test_share if test_share != TEST_SHARE else None,
        task=common.task if common.task != tasks.chosen(data) else None,
        encoder=common.encoder,
        weights=common.weights,
        pretrained=common.pretrained,
        device=common.device,
        out=os.fspath(out),
    )


def _write_leaderboard(board: Board) -> None:
    content = {
        "verdict": board.verdict,
        "ship": board.ship,
        "metric": board.metric,
        "rows": board.rows(),
        "choices": board.choices,
    }
    content |= {"command": board.command, "model": str(board.best_folder.relative_to(board.out))}
    board.store.write("leaderboard.json", plain_json(content))
