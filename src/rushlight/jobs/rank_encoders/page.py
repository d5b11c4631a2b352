"""The page about a comparison without labels: which encoder to take, by what signals, and how far to trust it."""

from __future__ import annotations

import shlex

from rushlight.data.columns import TEST
from rushlight.jobs.rank_encoders.run import BEST, UNTRAINED, Ranking, signals
from rushlight.present import atlas, plots
from rushlight.present.page import (
    Block,
    Commands,
    FactSheet,
    Listing,
    Named,
    Notice,
    Report,
    Section,
    Strip,
    Table,
    Text,
)
from rushlight.present.phrases import count, duration, footer, host, quarantine, versions
from rushlight.run.trial import machine

MEANING = {
    "RankMe": "how many directions the features use (higher)",
    "view retrieval": "share of images that another view of theirs finds again (higher)",
    "cluster stability": "whether groups found in one half of the images are found in the other (higher)",
    "alignment + uniformity": "views close to each other, different images far apart (lower)",
}


def ranking_report(ranking: Ranking) -> Report:
    """The report of a finished comparison without labels."""
    return Report(
        title=f"Pretraining on {plots.shorten(ranking.data.info.source, 60)}",
        verdict=ranking.verdict,
        about=f"{count(len(ranking.rows), 'encoder')} on {count(len(ranking.data), 'image')} without a label, "
        f"{count(ranking.rows[0]['seeds'], 'seed')} each.",
        figures=[
            (f"{ranking.rows[0]['mean rank']:.2f}", f"mean rank of {len(ranking.rows)}"),
            (f"{ranking.rows[0]['RankMe']:.0f}", "directions in use (RankMe)"),
            (f"{100 * ranking.rows[0]['view retrieval']:.0f} %", "of images found again by another view"),
        ],
        sections=[
            Section("Order", [Notice(ranking.trust), _order(ranking), _signals(ranking)]),
            Section("Failed", [Listing("What failed, and why", [(r.trial.recipe, r.failed) for r in ranking.failed])]
                    if ranking.failed else []),
            Section("Atlas", atlas.blocks(ranking.atlas, ranking.data.fold(TEST), "best encoder")
                    if ranking.atlas is not None else []),
            Section("Use it", _use(ranking)),
            Section("Data", _data(ranking)),
            Section("Repeat it", _repeat(ranking)),
        ],
        footer=footer(),
    )  # fmt: skip


def _order(ranking: Ranking) -> Table:
    span = (1.0, float(len(ranking.rows)))
    rows = [
        [
            Named(row["recipe"], "s0" if number == 0 else "", "take this one" if number == 0 else ""),
            f"{row['mean rank']:.2f}",
            Strip(plots.strip(row["mean rank"], row["lowest rank"], row["highest rank"], span)),
        ]
        for number, row in enumerate(ranking.rows)
    ]
    return Table(
        ["encoder", "mean rank", "over the seeds"],
        rows,
        "1 is best. Within a seed, encoders are ranked by each of four signals, and the ranks averaged; the bar goes "
        "from the lowest to the highest seed.",
        numeric=[1],
        lead=[0],
    )


def _signals(ranking: Ranking) -> Table:
    names = signals()
    rows = [[row["recipe"], *(f"{row[name]:.3g}" for name in names), duration(row["seconds"])] for row in ranking.rows]
    said = "; ".join(f"{name}: {MEANING[name]}" for name in names if name in MEANING)
    return Table(["encoder", *names, "a training"], rows, f"Means over the seeds, on held-out images. {said}.",
                 title="What was measured", numeric=range(1, len(names) + 2))  # fmt: skip


def _use(ranking: Ranking) -> list[Block]:
    """How a training with labels starts from the encoder that is handed out; nothing if that is untrained."""
    if ranking.best == UNTRAINED:
        return []
    weights = str(ranking.out / BEST / "model.safetensors")
    words = ["rushlight", "compare", ranking.data.info.source, "--labels", "labels.csv", "--encoder"]
    said = "When there are labels, even a few: every method that fits them, each starting from this encoder."
    return [Text(said), Commands([shlex.join([*words, ranking.results[0].trial.encoder, "--weights", weights])])]


def _data(ranking: Ranking) -> list[Block]:
    data, info = ranking.data, ranking.data.info
    info = {
        "source": info.source,
        "images": f"{len(data):,} of {data.height} × {data.width} pixels",
        "labels": "none was looked at",
    }
    return [FactSheet(info), *(Text(choice, quiet=True) for choice in ranking.choices), *quarantine(info.quarantined)]


def _repeat(ranking: Ranking) -> list[Block]:
    first, here = ranking.results[0].trial, machine()
    info = {
        "took": duration(ranking.seconds),
        "budget": f"{first.budget} image passes or minutes for each training",
        "encoder": first.encoder,
        "data": f"SHA-256 {ranking.data.content_hash[:16]}…",
        "versions": versions(here["python"], "scikit-learn"),
        "machine": host(here),
    }
    return [Commands([ranking.command]), FactSheet(info)]
