"""The page about a comparison: which recipe to ship, how sure that is, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rushlight import tasks
from rushlight.core.findings import NAN, Kind, Table
from rushlight.data.columns import TEST, TRAIN
from rushlight.jobs.compare.result import Board, leaderboard
from rushlight.jobs.trials import noted
from rushlight.measure.stats import Interval
from rushlight.present import dataset, findings, plots
from rushlight.present import table as tables
from rushlight.present.page import Block, Commands, FactSheet, Notice, Plot, Plots, Report, Section, Text
from rushlight.present.phrases import count, duration, flops, footer, host, versions
from rushlight.run.trial import machine


def comparison_report(board: Board) -> Report:
    """Return the report of a finished comparison."""
    return Report(
        title=f"Comparison on {plots.shorten(board.data.info.source, 60)}",
        verdict=board.verdict_with({name: _unbroken(name) for name in (*board.ranking.names, *board.unranked)}),
        about=_about(board),
        figures=_figures(board),
        sections=[
            Section("Leaderboard", [_leaderboard(board), *_beside(board), *_failures(board), *_notes(board)]),
            Section("Paired differences", _differences(board), _how_paired(board)),
            Section("Learning and cost", [Plots([_curves(board), _cost(board)])]),
            Section("What the model to ship gets wrong", _mistakes(board), _which_model(board)),
            Section("Data", _data(board)),
            Section("Budget used", [_budget(board)]),
            Section("Repeat it", _repeat(board)),
        ],
        footer=footer(),
    )


# --- the head ---


def _about(board: Board) -> str:
    trial = board.results[0].trial
    kept = f"{trial.keep} known labels a class, drawn by each seed" if trial.keep else "all known labels"
    return (
        f"{count(len(board.ranking.names), 'recipe')} over {count(_seeds(board), 'paired seed')}, at an equal budget "
        f"of {_budget_text(trial.budget)} a trial, with {kept}, judged on {count(_judged(board), 'test image')} "
        "that no recipe saw the labels of."
    )


def _judged(board: Board) -> int:
    """Return how many test images have a known label."""
    return int(board.data.fold(TEST).known(tasks.find(board.task).column).sum())


def _figures(board: Board) -> list[tuple[str, str]]:
    best, gain = board.ranking.alone[board.ship], board.ranking.gains.get(board.ship)
    figures = [(f"{100 * best.mean:.1f} %", f"{board.metric} of {board.ship}")]
    if gain is not None:
        figures.append((f"{_signed(gain.mean)} points", f"over {board.ranking.reference}"))
    figures.append((f"{len(board.results) - len(board.failed)}", f"trials: {count(_seeds(board), 'seed')} a recipe"))
    return [*figures, (duration(sum(r.spent.seconds for r in board.results)), "of training, all trials together")]


def _seeds(board: Board) -> int:
    return len({result.trial.seed for result in board.results})


def _colours(board: Board) -> dict[str, str]:
    return plots.series(board.ranking.names)


# --- leaderboard and differences ---


def _leaderboard(board: Board) -> Block:
    badges = {name: _badge(board, name) for name in (*board.ranking.names, *board.unranked)}
    caption = (
        "Each interval covers other seeds and other test images. Recipes share both, so overlapping intervals here do "
        "not mean that two recipes are equal: the paired differences below tell. "
    )
    rows = [{**row, "gain": NAN} for row in board.rows()]  # the paired differences below hold the gains
    table = leaderboard(rows, board.metric, None)
    table = replace(table.without("verdict"), caption=caption + table.caption)  # the badges say it
    return tables.page(table, colours=_colours(board), badges=badges)


def _beside(board: Board) -> list[Block]:
    table = board.beside()
    return [tables.page(table, colours=_colours(board), title=table.name.capitalize())] if table is not None else []


def _badge(board: Board, name: str) -> str:
    if name in board.unranked:
        return "failed"
    if name == board.ship:
        return "ship"
    if name in board.ranking.best:
        return "among the best"
    return "baseline" if name == board.ranking.reference else ""


def _how_paired(board: Board) -> str:
    return (
        "Points of difference, seed by seed and image by image. Seed s gives every recipe the same labels, the same "
        "initial encoder and the same test images. The intervals of each table hold together with "
        f"{100 * board.ranking.level:g} % confidence; one that is clear of zero shows a difference."
    )


def _differences(board: Board) -> list[Block]:
    ranking = board.ranking
    leader = {b: gap for (a, b), gap in ranking.gaps.items() if a == ranking.names[0]}
    tables: list[Block] = []
    if ranking.gains:
        tables.append(_forest(board, ranking.gains, f"Gain over {ranking.reference}"))
    if leader and not (len(leader) == 1 and ranking.gains):
        tables.append(_forest(board, leader, f"Lead of {ranking.names[0]} over the others"))
    return tables


def _forest(board: Board, shown: Mapping[str, Interval], title: str) -> Block:
    rows = [
        {"recipe": name, "difference": i.mean, "low": i.low, "high": i.high, "shown": _shows(i)}
        for name, i in shown.items()
    ]
    kinds: dict[str, Kind] = dict.fromkeys(("difference", "low", "high"), "points")
    table = Table.of_rows(title, rows, kinds=kinds, intervals={"difference": ("low", "high")})
    return tables.page(table, colours=_colours(board), title=title)


def _shows(i: Interval) -> str:
    return "no difference" if 0 in i else "better" if i.low > 0 else "worse"


def _failures(board: Board) -> list[Block]:
    return [Notice(f"A trial failed. {result.failed}") for result in board.failed]


def _notes(board: Board) -> list[Block]:
    return [Text(f"Note. {note}", quiet=True) for note in noted(board.results)]


# --- learning and cost ---


def _curves(board: Board) -> Plot:
    curves = {name: [r.curve for r in board.of(name)] for name in board.ranking.names}
    return Plot(
        plots.learning_curves(curves, metric=board.metric, colours=_colours(board)),
        "Learning curves",
        "Mean over seeds; the band is from the lowest to the highest seed. A recipe that begins with pretraining has "
        "nothing to show before its last stage.",
        list(_colours(board).items()),
    )


def _cost(board: Board) -> Plot:
    points = {
        row["recipe"]: (row["seconds"], row[board.metric], row["low"], row["high"])
        for row in board.rows()[: len(board.ranking.names)]
    }
    return Plot(
        plots.cost(points, metric=board.metric, colours=_colours(board)),
        "Cost against " + board.metric,
        "Seconds of a trial, and the interval of the mean. At an equal budget of compute, seconds differ by what a "
        "recipe does beside it.",
        list(_colours(board).items()),
    )


# --- mistakes ---


def _which_model(board: Board) -> str:
    result = board.best_trial()
    return (
        f"{board.ship}, seed {result.trial.seed}: the median of its seeds, {100 * result.value:.1f} % {board.metric}. "
        "It is the model that is kept to be used."
    )


def _mistakes(board: Board) -> list[Block]:
    """Return the task's findings on the scores of the model to ship, on the test images with a known label."""
    task, test = tasks.find(board.task), board.data.fold(TEST)
    rows = test.known(task.column).nonzero()[:, 0]
    parts = board.best_trial().parts
    if len(rows) != len(next(iter(parts.values()))):
        return []
    found = task.findings(parts, test, rows, task.names(board.data.info))
    return [block for each in sorted(found, key=lambda each: -each.priority) for block in findings.blocks(each)]


# --- data, budget, how to repeat ---


def _data(board: Board) -> list[Block]:
    train, task = board.data.fold(TRAIN), tasks.find(board.task)
    further = {
        "split": f"{len(train):,} images to learn from, {_judged(board):,} labelled ones to judge",
        "labels to learn from": ", ".join(f"{int(train.known(name).sum()):,} of {name}" for name in train.label_names),
        "learned": board.task,
    }
    if keep := board.results[0].trial.keep:
        further["labels kept"] = f"{keep} a {task.noun}, the others hidden"
    if names := task.names(board.data.info):
        further["names"] = dataset.listed(names)
    return dataset.blocks(board.data, further)


def _budget(board: Board) -> Block:
    rows = [
        {
            "recipe": row["recipe"],
            "image passes": round(row["passes"]),
            "FLOPs": flops(row["flops"]),
            "steps": round(row["steps"]),
            "seconds": round(row["seconds"]),
        }
        for row in board.rows()
        if row["seeds"]
    ]
    caption = (
        "Means of a trial, as counted, not as planned; the budget was "
        f"{_budget_text(board.results[0].trial.budget)}. An image pass is the compute of one image forward and "
        "backward through the encoder; whatever else a recipe computes is charged in the same unit. The whole "
        f"comparison took {duration(board.seconds)}, without what had been finished before."
    )
    return tables.page(Table.of_rows("budget", rows, caption=caption), colours=_colours(board))


def _repeat(board: Board) -> list[Block]:
    measured, trial = machine(), board.results[0].trial
    info = {"chosen": "; ".join(board.choices)} if board.choices else {}
    info |= {
        "encoder": trial.encoder + (f", from {trial.weights}" if trial.weights else ", from scratch"),
        "device": f"{trial.device}, {trial.precision}",
        "machine": host(measured),
        "data": f"SHA-256 {board.data.content_hash[:16]}…",
        "versions": versions(measured["python"]),
    }
    use = f"rushlight predict {board.best_folder} IMAGES --out predictions.csv"
    return [
        Commands([board.command]),
        Text("To use the model:"),
        Commands([use]),
        FactSheet(info),
    ]


# --- figures as words ---


def _signed(x: float) -> str:
    """Return points, with a sign."""
    return f"{100 * x:+.1f}".replace("-", "−")


def _unbroken(name: str) -> str:
    """Return a recipe's name without line breaks, as far as possible."""
    return name.replace(" > ", "\u00a0>\u00a0").replace("-", "\u2011") if len(name) < 32 else name


def _budget_text(budget: str) -> str:
    return f"{budget.removesuffix('m')} minutes" if budget.endswith("m") else f"{budget} image passes"
