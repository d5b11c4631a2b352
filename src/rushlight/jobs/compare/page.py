"""The page about a comparison: which recipe to ship, how sure that is, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.jobs.compare.run import Board
from rushlight.measure import stats
from rushlight.measure.stats import Interval
from rushlight.present import plots
from rushlight.present.page import (
    Block,
    Commands,
    FactSheet,
    Gallery,
    Named,
    Notice,
    Plot,
    Plots,
    Report,
    Section,
    Strip,
    Table,
    Text,
    Thumb,
)
from rushlight.present.phrases import count, duration, footer, host, quarantine, versions
from rushlight.run.trial import Result, machine
from rushlight.tasks import scores

MISTAKES = 24


def comparison_report(board: Board) -> Report:
    """The report of a finished comparison."""
    return Report(
        title=f"Comparison on {plots.shorten(board.data.info.source, 60)}",
        verdict=stats.verdict(board.ranking, {name: _unbroken(name) for name in board.ranking.names}),
        about=_about(board),
        figures=_figures(board),
        sections=[
            Section("Leaderboard", [_leaderboard(board), *_failures(board)]),
            Section("Paired differences", _differences(board), _how_paired(board)),
            Section("Learning and cost", [Plots([_curves(board), _cost(board)])]),
            Section("What the best model gets wrong", _mistakes(board), _which_model(board)),
            Section("Data", _data(board)),
            Section("Budget used", [_budget(board)]),
            Section("Repeat it", _repeat(board)),
        ],
        footer=footer(),
    )


# --- the head ---


def _about(board: Board) -> str:
    trial = board.results[0].trial
    kept = f"{trial.keep} known labels a class, drawn anew by each seed" if trial.keep else "all known labels"
    return (
        f"{count(len(board.ranking.names), 'recipe')} over {count(_seeds(board), 'paired seed')}, at an equal budget "
        f"of {_budget_text(trial.budget)} a trial, with {kept}, judged on {count(len(_judged(board)), 'test image')} "
        "that no recipe saw the labels of."
    )


def _figures(board: Board) -> list[tuple[str, str]]:
    best, gain = board.ranking.alone[board.best], board.ranking.gains.get(board.best)
    figures = [(f"{100 * best.mean:.1f} %", f"{board.metric} of {board.best}")]
    if gain is not None:
        figures.append((f"{_signed(gain.mean)} points", f"over {board.ranking.reference}"))
    figures.append((f"{len(board.results) - len(board.failed)}", f"trials: {count(_seeds(board), 'seed')} a recipe"))
    return [*figures, (duration(sum(r.spent.seconds for r in board.results)), "of training, all trials together")]


def _seeds(board: Board) -> int:
    return len({result.trial.seed for result in board.results})


def _colours(board: Board) -> dict[str, str]:
    return plots.series(board.ranking.names)


# --- leaderboard and differences ---


def _leaderboard(board: Board) -> Table:
    rows, names = board.rows(), board.ranking.names
    span = plots.span_of([100 * row[end] for row in rows for end in ("low", "high")])
    percent = f"{100 * board.ranking.level:g} %"
    return Table(
        columns=["recipe", f"{board.metric} %", f"{percent} interval", "low", "high", "seeds", "seconds"],
        rows=[
            [
                Named(row["recipe"], _colours(board)[row["recipe"]], _badge(board, row["recipe"])),
                f"{100 * row[board.metric]:.1f}",
                _strip(board.ranking.alone[row["recipe"]], span, _colours(board)[row["recipe"]]),
                f"{100 * row['low']:.1f}",
                f"{100 * row['high']:.1f}",
                str(row["seeds"]),
                f"{row['seconds']:.0f}",
            ]
            for row in rows
        ],
        numeric=[1, 3, 4, 5, 6],
        lead=[i for i, name in enumerate(names) if name in board.ranking.best],
        caption="Each interval covers other seeds and other test images. Recipes share both, so overlapping intervals "
        "here do not mean that two recipes are equal: the paired differences below tell. Seconds are of a trial.",
    )


def _badge(board: Board, name: str) -> str:
    if name in board.ranking.best:
        return "best" if len(board.ranking.best) == 1 else "among the best"
    return "baseline" if name == board.ranking.reference else ""


def _strip(interval: Interval, span: tuple[float, float], colour: str, *, zero: bool = False) -> Strip:
    mean, low, high = (100 * x for x in (interval.mean, interval.low, interval.high))
    return Strip(plots.strip(mean, low, high, span, colour=colour, zero=zero))


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


def _forest(board: Board, shown: Mapping[str, Interval], title: str) -> Table:
    span = plots.span_of([100 * x for i in shown.values() for x in (i.low, i.high)], zero=True)
    return Table(
        columns=["recipe", "points", "interval", "low", "high", "shown"],
        rows=[
            [
                Named(name, _colours(board)[name]),
                _signed(i.mean),
                _strip(i, span, _colours(board)[name], zero=True),
                _signed(i.low),
                _signed(i.high),
                "no difference" if 0 in i else "better" if i.low > 0 else "worse",
            ]
            for name, i in shown.items()
        ],
        title=title,
        numeric=[1, 3, 4, 5],
    )


def _failures(board: Board) -> list[Block]:
    return [Notice(f"A trial failed. {result.failed}") for result in board.failed]


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
    points = {row["recipe"]: (row["seconds"], row[board.metric], row["low"], row["high"]) for row in board.rows()}
    return Plot(
        plots.cost(points, metric=board.metric, colours=_colours(board)),
        "Cost against " + board.metric,
        "Seconds of a trial, and the interval of the mean. At an equal budget of compute, seconds differ by what a "
        "recipe does beside it.",
        list(_colours(board).items()),
    )


# --- mistakes ---


def _judged(board: Board) -> Dataset:
    """The test images whose label is known, in the order of a result's parts."""
    test = board.data.fold(TEST)
    return test.select(test.known(board.task))


def _which_model(board: Board) -> str:
    result = board.best_trial()
    return (
        f"{board.best}, seed {result.trial.seed}: the median of its seeds, {100 * result.value:.1f} % {board.metric}. "
        "It is the model that is kept to be used."
    )


def _mistakes(board: Board) -> list[Block]:
    result = board.best_trial()
    if board.task == "tags":
        return [_tag_table(result, board.data.info.tag_names)]
    if board.task == "mask":
        names = board.data.info.mask_names or board.data.info.class_names
        return [_confusion(result.parts["confusion"].sum(0).numpy(), names, "pixels")]
    true, predicted = (result.parts[name].long().numpy() for name in ("true", "predicted"))
    names = board.data.info.class_names
    k = max(len(names), int(max(true.max(), predicted.max())) + 1)
    counts = np.bincount(true * k + predicted, minlength=k * k).reshape(k, k)
    return [_confusion(counts, names, "images"), *_gallery(board, result, true, predicted)]


def _confusion(counts: np.ndarray, names: Sequence[str], what: str) -> Plot:
    return Plot(
        plots.confusion(counts, names),
        "Confusion matrix",
        f"Per cent of the {what} of each true class (rows) by prediction (columns). Red is wrong; its shade is doubled "
        "to be seen." + (" The 20 most mistaken classes." if len(counts) > 20 else ""),
    )


def _gallery(board: Board, result: Result, true: np.ndarray, predicted: np.ndarray) -> list[Block]:
    judged, names = _judged(board), board.data.info.class_names
    confidence = _array(result.parts.get("confidence"), len(true))
    wrong = np.flatnonzero(true != predicted)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    if not len(chosen) or len(judged) != len(true):
        return []
    files = judged.names
    thumbs = [
        Thumb(
            plots.thumbnail(judged.read("image", i).numpy()),
            files[i],
            [f"{_name(names, int(predicted[i]))}, {100 * confidence[i]:.0f} %", f"is {_name(names, int(true[i]))}"],
        )
        for i in chosen.tolist()
    ]
    return [
        Gallery(
            thumbs,
            f"The {len(chosen)} mistakes it is most sure of, of {len(wrong):,}. Some may be mistakes of the labels.",
        )
    ]


def _array(values: Tensor | None, rows: int) -> np.ndarray:
    return np.zeros(rows) if values is None else values.float().numpy()


def _tag_table(result: Result, names: Sequence[str]) -> Table:
    s, t = result.parts["scores"], result.parts["true"]
    each = [(i, scores.mean_average_precision(s[:, [i]], t[:, [i]])) for i in range(t.shape[1])]
    ranked = sorted(each, key=lambda pair: (np.isnan(pair[1]), pair[1]))
    return Table(
        ["tag", "average precision %", "present in"],
        [
            [_name(names, i), "—" if np.isnan(ap) else f"{100 * ap:.1f}", f"{int((t[:, i] == 1).sum()):,}"]
            for i, ap in ranked
        ],
        "Average precision of each tag, the hardest first.",
        numeric=[1, 2],
    )


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else str(index)


# --- data, budget, how to repeat ---


def _data(board: Board) -> list[Block]:
    info, train = board.data.info, board.data.fold(TRAIN)
    facts = {
        "source": info.source,
        "images": f"{len(board.data):,} of {board.data.height} × {board.data.width} pixels "
        f"({len(train):,} to learn from, {len(board.data.fold(TEST)):,} to judge)",
        "labels known": ", ".join(f"{int(train.known(name).sum()):,} of {name}" for name in train.label_names)
        or "none",
        "learned": board.task,
    }
    if board.results[0].trial.keep:
        facts["labels kept"] = f"{board.results[0].trial.keep} a class, the others hidden"
    if info.class_names:
        facts["classes"] = f"{len(info.class_names)}: {', '.join(info.class_names[:30])}" + (
            ", …" if len(info.class_names) > 30 else ""
        )
    if info.licence:
        facts["licence"] = info.licence
    return [FactSheet(facts), *quarantine(info.quarantined)]


def _budget(board: Board) -> Table:
    rows = []
    for row in board.rows():
        finished = board.of(row["recipe"])
        steps = float(np.mean([r.spent.steps for r in finished]))
        rows.append(
            [
                Named(row["recipe"], _colours(board)[row["recipe"]]),
                f"{row['passes']:,.0f}",
                _flops(row["flops"]),
                f"{steps:,.0f}",
                f"{row['seconds']:,.0f}",
            ]
        )
    return Table(
        ["recipe", "image passes", "FLOPs", "steps", "seconds"],
        rows,
        "Means of a trial, as counted, not as planned; the budget was "
        f"{_budget_text(board.results[0].trial.budget)}. An image pass is the compute of one image forward and "
        "backward through the encoder; whatever else a recipe computes is charged in the same unit. The whole "
        f"comparison took {duration(board.seconds)}, without what had been finished before.",
        numeric=[1, 2, 3, 4],
    )


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
        Text("To use the best model:"),
        Commands([use]),
        FactSheet(info),
    ]


# --- figures as words ---


def _signed(x: float) -> str:
    """Points, with a sign."""
    return f"{100 * x:+.1f}".replace("-", "−")


def _unbroken(name: str) -> str:
    """A recipe's name that stays on one line where it can."""
    return name.replace(" > ", "\u00a0>\u00a0").replace("-", "\u2011") if len(name) < 32 else name


def _budget_text(budget: str) -> str:
    return f"{budget.removesuffix('m')} minutes" if budget.endswith("m") else f"{budget} image passes"


def _flops(flops: float) -> str:
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops / 1e6:.3g} M"
