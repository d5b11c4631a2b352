"""No labels at all: pretrain with several methods at an equal budget, rank their encoders by label-free signals, and
say how far such a ranking can be trusted.

Seed s gives every method the same initial encoder; the images that signals are measured on are held out from training,
the same for all. Trials are files in a store, as those of `compare` are: what was killed goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rushlight.core.catalogue import cards, serving
from rushlight.core.errors import UserError
from rushlight.core.files import plain_json
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.jobs.command import repeat
from rushlight.jobs.rank_encoders.result import BEST, UNTRAINED, Ranking
from rushlight.jobs.rank_encoders.trust import signals, trust
from rushlight.jobs.trials import ComparisonState, chosen_encoder, guarded, run_all, split_recipes, suits
from rushlight.measure.atlas import FEWEST, chart
from rushlight.run import hardware, trial
from rushlight.run.budget import Budget, Spent
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Diverged, RunContext
from rushlight.run.store import Store
from rushlight.run.trial import Result, Trial
from rushlight.run.worker_pool import WorkerPool, workers_for

TEST_SHARE = 0.25
Folder = str | os.PathLike[str]


def rank_encoders(
    data: Dataset,
    methods: str | Sequence[str] = "auto",
    *,
    budget: str | float | Budget = "200k",
    seeds: int = 3,
    out: Folder = "rushlight-out",
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    test_share: float = TEST_SHARE,
    device: str = "auto",
    workers: int | None = None,
    command: str | None = None,
    on_update: Callable[[ComparisonState], None] | None = None,
) -> Ranking:
    """Pretrain by every method on every seed at an equal budget, and rank the encoders without a label.

    Args:
        data: images; whatever labels they have are not looked at.
        methods: recipes of learners without labels (a list, or text separated by commas); `auto` takes those whose
            cards serve `encoder` or `pretraining`.
        budget, seeds, out, encoder, weights, pretrained, device, workers, command, on_update: as for `compare`.
        test_share: of the images that are held out for the signals, where the data has no test fold.

    Raises:
        UserError: a recipe that needs labels, too few images, no trial finished, …
    """
    began, device, given = time.monotonic(), hardware.device(device), data
    data = _held_out(data.without(*data.label_names), test_share)
    recipes = _recipes(methods, data)
    name, start, why = chosen_encoder(encoder, weights, data, device, [r for r in recipes if r != UNTRAINED])
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}: give at least 1, better 3 or more")
    common = Trial(
        recipe="", seed=0, budget=str(Budget.parse(budget)), data=data.content_hash, task="none", encoder=name,
        weights=start, pretrained=pretrained, device=device, precision=hardware.precision(device, name),
    )  # fmt: skip
    suits(recipes[1:], common, data)
    store = Store(out)
    trials = [replace(common, recipe=recipe, seed=seed) for seed in range(seeds) for recipe in recipes]
    with store.lock():
        results = run_all(trials, data, store, WorkerPool(workers_for(workers, device)), on_update, one=_one)
        rows = ranked(results, recipes)
        model = _hand_out(store, [r for r in results if r.trial.recipe == rows[0]["recipe"] and not r.failed])
    held = data.fold(TEST)
    ranking = Ranking(
        results=sorted(results, key=lambda r: (recipes.index(r.trial.recipe), r.trial.seed)),
        rows=rows,
        trust=trust(),
        atlas=chart(model, held) if len(held) >= FEWEST else None,
        data=data,
        out=store.folder,
        place=store.place,
        choices=(f"signals on {len(held):,} images held out from training", why),
        command=command or _command(given, recipes, common, seeds, test_share, out),
        seconds=time.monotonic() - began,
    )
    _write(ranking)
    return ranking


def ranked(results: Sequence[Result], recipes: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per method, from the best: its rank in each seed (among the methods of that seed), averaged.

    Raises:
        UserError: no seed has finished for every method that did not fail.
    """
    done: dict[int, dict[str, Result]] = {}
    for result in results:
        if not result.failed:
            done.setdefault(result.trial.seed, {})[result.trial.recipe] = result
    if not done:
        raise UserError("no trial finished: " + next((r.failed for r in results if r.failed), "none was run"))
    trained = [done[seed] for seed in sorted(done)]
    names = [name for name in recipes if all(name in seed for seed in trained)]
    if not names:
        raise UserError("no method has finished on every seed: there is nothing to rank")
    found = [{name: _signals(seed[name]) for name in names} for seed in trained]
    ranks = [signals().ordered(each) for each in found]
    rows = []
    for name in names:
        own = [each[name] for each in ranks]
        spent = [seed[name].spent for seed in trained]
        rows.append(
            {"recipe": name, "mean rank": float(np.mean(own)), "lowest rank": min(own), "highest rank": max(own)}
            | {key: float(np.mean([each[name][key] for each in found])) for key in found[0][name]}
            | {
                "passes": float(np.mean([s.passes for s in spent])),
                "seconds": float(np.mean([s.seconds for s in spent])),
            }
            | {"seeds": len(trained)}
        )
    return sorted(rows, key=lambda row: row["mean rank"])


# One trial ------------------------------------------------------------------------------------------------------------


def run(
    spec: Trial, data: Dataset, store: Store, *, on_progress: Any = None, checkpoint_seconds: float = 30.0
) -> Result:
    """Pretrain on the training fold, and measure the signals on the other; or load what was measured before."""
    if store.has(spec.key):
        return trial.load(spec.key, store)
    model, spent = trial.initial(spec, data), Spent()
    notes: tuple[str, ...] = ()
    if spec.recipe != UNTRAINED:
        folder, seconds = store.work(spec.key), checkpoint_seconds
        ctx = replace(spec.ctx, folder=folder, checkpoint_seconds=seconds, on_progress=on_progress)
        try:
            outcome = trial.train(spec, data, ctx, store)
            model, spent, notes = outcome.model, outcome.spent, outcome.notes
        except Diverged as error:
            return trial.diverged(spec, error, store)
    numbers = signals()().judge(model, data.fold(TEST), RunContext(seed=spec.seed)).numbers
    parts = {name: torch.tensor([value], dtype=torch.float64) for name, value in numbers.items()}
    result = Result(spec, float("nan"), parts, [], spent, notes=notes)
    trial.keep(result, store, model)
    return result


def _one(spec: Trial, folder: str, out: str) -> Result:
    """Run one trial in a worker."""
    return guarded(run, spec, folder, out)


def _signals(result: Result) -> dict[str, float]:
    return {name: float(values) for name, values in result.parts.items()}


# Plans ----------------------------------------------------------------------------------------------------------------


def automatic() -> list[str]:
    """Return the methods to pretrain where none is named: those for any encoder that need no long training."""
    return [card.id for service in ("pretraining", "encoder") for card in serving(service)]


def _recipes(methods: str | Sequence[str], data: Dataset) -> list[str]:
    """Return the untrained encoder and the methods, checked: each stage must work without labels."""
    if isinstance(methods, str):
        asked = automatic() if methods == "auto" else split_recipes(methods)
    else:
        asked = list(methods)
    recipes = [str(Recipe.parse(text)) for text in asked if text != UNTRAINED]
    for text in recipes:
        for step in Recipe.parse(text).steps:
            card = cards()[step.name]
            if card.task or card.lacks(data, None):
                raise UserError(f"'{step.name}' needs labels, and this comparison has none: name methods that learn "
                                f"without, such as {', '.join(automatic()[:3])}")  # fmt: skip
    if not recipes:
        raise UserError(f"no method is named: leave --methods away, or name some, such as {', '.join(automatic()[:2])}")
    return [UNTRAINED, *dict.fromkeys(recipes)]


def _held_out(data: Dataset, share: float) -> Dataset:
    """Return the data with a test fold: its own, or a share drawn by a fixed seed."""
    if "fold" in data and bool((data["fold"] == TEST).any()):
        return data
    if not 0 < share < 1 or len(data) * share < 20:
        raise UserError(f"{data.info.source} has {len(data)} images: a comparison without labels holds out {share:.0%} "
                        "of them, and needs at least 20 there")  # fmt: skip
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    fold = torch.full((len(data),), TRAIN, dtype=torch.int8)
    fold[order[: round(len(data) * share)]] = TEST
    return data.with_columns(fold=fold)


def _hand_out(store: Store, results: Sequence[Result]) -> Model:
    """Copy the first seed's model into the store's folder and return it."""
    first = min(results, key=lambda result: result.trial.seed)
    model = Model.load(store.model_path(first.trial.key))
    store.write_model(BEST, model)
    return model


def _command(data: Dataset, recipes: list[str], common: Trial, seeds: int, test_share: float, out: Folder) -> str:
    return repeat(
        "compare",
        data,
        unlabelled_only=True,
        methods=", ".join(recipes[1:]),
        budget=common.budget,
        seeds=seeds,
        test_share=test_share if test_share != TEST_SHARE else None,
        encoder=common.encoder,
        weights=common.weights,
        pretrained=common.pretrained,
        device=common.device,
        out=os.fspath(out),
    )


def _write(ranking: Ranking) -> None:
    content = {"verdict": ranking.verdict, "trust": ranking.trust, "rows": ranking.rows, "choices": ranking.choices}
    content |= {"command": ranking.command, "model": BEST}
    ranking.store.write("leaderboard.json", plain_json(content))
