"""No labels at all: pretrain with several methods at an equal budget, rank their encoders by label-free signals, and
say how far such a ranking can be trusted.

Seed s gives every method the same initial encoder; the images that signals are measured on are held out from training,
the same for all. Trials are files in a store, as those of `compare` are: what was killed goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rushlight.core.catalogue import cards, load_method
from rushlight.core.errors import UserError
from rushlight.core.files import write_whole
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.jobs.claims import run as claims
from rushlight.jobs.compare import run as compare
from rushlight.jobs.compare.run import ComparisonState
from rushlight.measure.atlas import FEWEST, Atlas, chart
from rushlight.run import hardware, trial
from rushlight.run.budget import Budget, Spent
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Diverged, RunContext
from rushlight.run.store import Store
from rushlight.run.trial import Result, Trial
from rushlight.run.worker_pool import WorkerPool, workers_for

METHODS = ("barlow-twins", "simclr", "vicreg", "byol")
"""What `--methods auto` pretrains with where no label is known: methods for any encoder that need no long training."""
UNTRAINED = "untrained"
JUDGE = "label-free"
BEST = "best"


@dataclass(frozen=True)
class Ranking:
    """The outcome of a comparison without labels.

    Attributes:
        results: of every trial; rows: a method each, from the best by its mean rank over seeds: `recipe`, `mean rank`,
            its lowest and highest over the seeds, the mean of each signal, image passes and seconds.
        trust: how far the order can be trusted, in a sentence made from the ledger.
        atlas: a map of the held-out images by the best encoder; None for fewer images than it needs.
        data, out, choices, command, seconds: as those of `compare.Board`.
    """

    results: list[Result]
    rows: list[dict[str, Any]]
    trust: str
    atlas: Atlas | None = field(repr=False)
    data: Dataset = field(repr=False)
    out: Path
    choices: tuple[str, ...]
    command: str
    seconds: float

    @property
    def best(self) -> str:
        return self.rows[0]["recipe"]

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.failed]

    @property
    def verdict(self) -> str:
        """Which encoder to take, in one sentence."""
        if self.best == UNTRAINED:
            return "No pretraining looks better than the untrained encoder: give it a larger budget, or more images."
        first = self.rows[0]
        near = [row["recipe"] for row in self.rows[1:] if row["lowest rank"] <= first["highest rank"] + 1e-9]
        rest = f"; over the seeds it is not clear of {', '.join(near)}" if near else ""
        return f"Without labels, {self.best} looks best (mean rank {first['mean rank']:.2f} of {len(self.rows)}){rest}."

    def best_model(self) -> Model:
        """The first seed's encoder of the best method."""
        return Model.load(self.out / BEST)

    def to_pandas(self) -> Any:
        import pandas as pd

        return pd.DataFrame(self.rows)

    def _repr_html_(self) -> str:
        import html

        said = f"<p>{html.escape(self.verdict)}</p><p>{html.escape(self.trust)}</p>"
        return said + self.to_pandas().to_html(index=False, float_format="%.3g")

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        shown = [Text(self.verdict, style="bold"), Text(self.trust), *(Text(choice) for choice in self.choices)]
        shown.append(Text(f"encoder: {self.out / BEST}"))
        failures = [Text(f"failed: {result.failed}") for result in self.failed]
        return Group(table(self.rows), *shown, *failures)


def table(rows: list[dict[str, Any]]) -> Any:
    """The ranking for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD, padding=(0, 1), caption="ranks: 1 is best; signals are means over seeds")
    for column in ("recipe", "mean rank", *signals(), "s a trial"):
        widest = max(map(len, column.split()))  # headings break between words, recipes where they must
        shown.add_column(column, justify="left" if column == "recipe" else "right", overflow="fold", min_width=widest)
    for number, row in enumerate(rows):
        cells = [f"{row[name]:.3g}" for name in ("mean rank", *signals())]
        shown.add_row(row["recipe"].replace("[", r"\["), *cells, f"{row['seconds']:.0f}",
                      style="bold green" if number == 0 else None)  # fmt: skip
    return shown


def signals() -> list[str]:
    """The signals that encoders are ordered by."""
    return list(_judge().better)


def rank_encoders(
    data: Dataset,
    methods: str | Sequence[str] = "auto",
    *,
    budget: str | float | Budget = "200k",
    seeds: int = 3,
    out: str | Path = "rushlight-out",
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    test_share: float = 0.25,
    device: str = "auto",
    workers: int | None = None,
    command: str | None = None,
    on_update: Callable[[ComparisonState], None] | None = None,
) -> Ranking:
    """Pretrain by every method on every seed at an equal budget, and rank the encoders without a label.

    Args:
        data: images; whatever labels they have are not looked at.
        methods: recipes of learners without labels (a list, or text separated by commas); `auto` takes `METHODS`.
        budget, seeds, out, encoder, weights, pretrained, device, workers, command, on_happening: as for `compare`.
        test_share: of the images that are held out for the signals, where the data has no test fold.

    Raises:
        UserError: a recipe that needs labels, too few images, no trial finished, …
    """
    began, device = time.monotonic(), hardware.device(device)
    data = _held_out(data.without(*data.label_names), test_share)
    recipes = _recipes(methods, data)
    name, start, why = compare.chosen_encoder(encoder, weights, data, device, [r for r in recipes if r != UNTRAINED])
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}: give at least 1, better 3 or more")
    common = Trial(
        recipe="", seed=0, budget=str(Budget.parse(budget)), data=data.content_hash, task="none", encoder=name,
        weights=start, pretrained=pretrained, device=device, precision=hardware.precision(device, name),
    )  # fmt: skip
    compare.suits(recipes[1:], common, data)
    store = Store(out)
    trials = [replace(common, recipe=recipe, seed=seed) for seed in range(seeds) for recipe in recipes]
    with store.lock():
        results = compare.run_all(trials, data, store, WorkerPool(workers_for(workers, device)), on_update, one=_one)
        rows = ranked(results, recipes)
        model = _hand_out(store, [r for r in results if r.trial.recipe == rows[0]["recipe"] and not r.failed])
    held = data.fold(TEST)
    ranking = Ranking(
        results=sorted(results, key=lambda r: (recipes.index(r.trial.recipe), r.trial.seed)),
        rows=rows,
        trust=trust(),
        atlas=chart(model, held) if len(held) >= FEWEST else None,
        data=data,
        out=Path(out),
        choices=(f"signals on {len(held):,} images held out from training", why),
        command=command or _command(data, recipes, common, seeds, out),
        seconds=time.monotonic() - began,
    )
    _write(ranking)
    return ranking


def ranked(results: Sequence[Result], recipes: Sequence[str]) -> list[dict[str, Any]]:
    """A row a method, from the best: its rank in each seed (among the methods of that seed), averaged.

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
    ranks = [_judge().ordered(each) for each in found]
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


def trust() -> str:
    """What the ledger measured of orders without labels: never a figure that is not there."""
    entry = claims.ledger().get(JUDGE)
    if entry is None:
        return (
            "How far an order without labels can be trusted has not been measured here: rushlight claims run label-free"
        )
    order, chosen = entry["effects"][0], 2.0 - next(e["mean"] for e in entry["effects"] if e["name"] == "saved")
    models = round(float(np.mean(entry["recorded"]["models"])))
    return (
        f"How far this order can be trusted: over {models} small encoders on the embedded photos it correlated with "
        f"the order by labels by ρ = {order['mean']:.2f} ({order['low']:.2f} … {order['high']:.2f}, {entry['seeds']} "
        f"seeds), and its first choice cost {chosen:.1f} points of accuracy against the best one. "
        "A few labels tell more."
    )


# One trial ------------------------------------------------------------------------------------------------------------


def run(
    spec: Trial, data: Dataset, store: Store, *, on_progress: Any = None, checkpoint_seconds: float = 30.0
) -> Result:
    """Pretrain on the training fold, and measure the signals on the other; or take what was measured before."""
    if store.has(spec.key):
        return trial.load(spec.key, store)
    model, spent = trial.initial(spec, data), Spent()
    if spec.recipe != UNTRAINED:
        folder, seconds = store.work(spec.key), checkpoint_seconds
        ctx = replace(spec.ctx, folder=folder, checkpoint_seconds=seconds, on_progress=on_progress)
        try:
            outcome = trial.train(spec, data, ctx, store)
            model, spent = outcome.model, outcome.spent
        except Diverged as error:
            return trial.diverged(spec, error, store)
    numbers = load_method(JUDGE)().judge(model, data.fold(TEST), RunContext(seed=spec.seed)).numbers
    parts = {name: torch.tensor([value], dtype=torch.float64) for name, value in numbers.items()}
    result = Result(spec, float("nan"), parts, [], spent)
    trial.keep(result, store, model)
    return result


def _one(spec: Trial, folder: str, out: str) -> Result:
    """One trial in a worker."""
    return compare.guarded(run, spec, folder, out)


def _signals(result: Result) -> dict[str, float]:
    return {name: float(values) for name, values in result.parts.items()}


# Plans ----------------------------------------------------------------------------------------------------------------


def _judge() -> Any:
    return load_method(JUDGE)


def _recipes(methods: str | Sequence[str], data: Dataset) -> list[str]:
    """The untrained encoder and the methods, checked: each stage must do without labels."""
    if isinstance(methods, str):
        asked = list(METHODS) if methods == "auto" else compare.split_recipes(methods)
    else:
        asked = list(methods)
    recipes = [str(Recipe.parse(text)) for text in asked if text != UNTRAINED]
    for text in recipes:
        for step in Recipe.parse(text).steps:
            card = cards()[step.name]
            if card.task or card.lacks(data, None):
                raise UserError(f"'{step.name}' needs labels, and this comparison has none: name methods that learn "
                                "without, such as barlow-twins, simclr or mae")  # fmt: skip
    if not recipes:
        raise UserError("no method is named: leave --methods away, or name some, such as barlow-twins, simclr")
    return [UNTRAINED, *dict.fromkeys(recipes)]


def _held_out(data: Dataset, share: float) -> Dataset:
    """The data with a test fold: its own, or a share drawn by a fixed seed."""
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
    """The first seed's model, copied to where it is found."""
    first = min(results, key=lambda result: result.trial.seed)
    model = Model.load(store.model_path(first.trial.key))
    model.save(store.folder / BEST)
    return model


def _command(data: Dataset, recipes: list[str], common: Trial, seeds: int, out: str | Path) -> str:
    words = ["rushlight", "compare", data.info.source, "--unlabelled-only", "--methods", ", ".join(recipes[1:])]
    words += ["--budget", common.budget, "--seeds", str(seeds), "--encoder", common.encoder, "--out", str(out)]
    return shlex.join(words)


def _write(ranking: Ranking) -> None:
    content = {"verdict": ranking.verdict, "trust": ranking.trust, "rows": ranking.rows, "choices": ranking.choices}
    content |= {"command": ranking.command, "model": BEST}
    write_whole(ranking.out / "leaderboard.json", json.dumps(content, indent=1).encode())
