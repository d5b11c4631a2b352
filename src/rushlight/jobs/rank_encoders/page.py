"""The page about a comparison without labels: which encoder to take, by what signals, and how far to trust it."""

from __future__ import annotations

import shlex

from rushlight.data.columns import TEST
from rushlight.jobs.rank_encoders.result import BEST, UNTRAINED, Ranking, names
from rushlight.jobs.trials import noted
from rushlight.present import atlas, dataset, plots
from rushlight.present import table as tables
from rushlight.present.page import (
    Block,
    Commands,
    FactSheet,
    Listing,
    Notice,
    Report,
    Section,
    Text,
)
from rushlight.present.phrases import count, duration, footer, host, versions
from rushlight.run.trial import machine


def ranking_report(ranking: Ranking) -> Report:
    """Return the report of a finished comparison without labels."""
    return Report(
        title=f"Pretraining on {plots.shorten(ranking.data.info.source, 60)}",
        verdict=ranking.verdict,
        about=f"{count(len(ranking.rows), 'encoder')} on {count(len(ranking.data), 'image')} without a label, "
        f"{count(ranking.rows[0]['seeds'], 'seed')} each.",
        figures=[
            (f"{ranking.rows[0]['mean rank']:.2f}", f"mean rank of {len(ranking.rows)}"),
            *((tables.written(ranking.rows[0][name]), name) for name in names()[:2]),
        ],
        sections=[
            Section("Order", [Notice(ranking.trust), *_tables(ranking),
                              *(Text(f"Note. {note}", quiet=True) for note in noted(ranking.results))]),
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


def _tables(ranking: Ranking) -> list[Block]:
    order, measured, best = ranking.order(), ranking.measured(), ranking.best
    return [
        tables.page(order, colours={best: "s0"}, badges={best: "take this one"}),
        tables.page(measured, title="What was measured"),
    ]


def _use(ranking: Ranking) -> list[Block]:
    """Return how a training with labels starts from the chosen encoder; nothing if that is untrained."""
    if ranking.best == UNTRAINED:
        return []
    weights = str(ranking.out / BEST / "model.safetensors")
    words = ["rushlight", "compare", ranking.data.info.source, "--labels", "labels.csv", "--encoder"]
    said = "When there are labels, even a few: every method that fits them, each starting from this encoder."
    return [Text(said), Commands([shlex.join([*words, ranking.results[0].trial.encoder, "--weights", weights])])]


def _data(ranking: Ranking) -> list[Block]:
    shown = dataset.blocks(ranking.data, {"labels": "none was looked at"})
    return [shown[0], *(Text(choice, quiet=True) for choice in ranking.choices), *shown[1:]]


def _repeat(ranking: Ranking) -> list[Block]:
    first, here = ranking.results[0].trial, machine()
    facts = {
        "took": duration(ranking.seconds),
        "budget": f"{first.budget} image passes or minutes for each training",
        "encoder": first.encoder,
        "data": f"SHA-256 {ranking.data.content_hash[:16]}…",
        "versions": versions(here["python"], "scikit-learn"),
        "machine": host(here),
    }
    return [Commands([ranking.command]), FactSheet(facts)]
