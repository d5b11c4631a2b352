"""The page about a curation: what went, why, what it looks like, and what may still be hidden."""

from __future__ import annotations

from collections import Counter

import torch

from rushlight.core.findings import Table
from rushlight.data.edit.licences import normal
from rushlight.jobs.curate.result import Curation
from rushlight.present import findings, plots
from rushlight.present import table as tables
from rushlight.present.page import Block, Commands, FactSheet, Gallery, Notice, Report, Section, Text, Thumb
from rushlight.present.phrases import count, duration, footer, host, quarantine, versions

SHOWN = 12
"""Thumbnails a reason."""
REASONS = 24
"""Reasons with thumbnails, the commonest first."""
ROWS = 12
"""Licences, and creators, in a table."""


def curation_report(curation: Curation) -> Report:
    """Return the report of a finished curation."""
    pool = curation.pool
    return Report(
        title=f"Curation of {plots.shorten(curation.data.info.source, 60)}",
        verdict=curation.verdict,
        about=f"{curation.recipe} on {count(len(pool), 'image')}.",
        figures=[(f"{int(pool.kept.sum()):,}", "kept"), (f"{int((~pool.kept).sum()):,}", "removed")],
        sections=[
            Section("Why images are gone", [tables.page(curation.reasons())] if len(curation.reasons()) else []),
            Section("What may still be hidden", _hidden(curation)),
            Section("What they look like", _galleries(curation)),
            Section("What is kept", _kept(curation)),
            Section("Files that could not be read", quarantine(curation.data.info.quarantined)),
            Section("Repeat it", _repeat(curation)),
        ],
        footer=footer(),
    )


def _hidden(curation: Curation) -> list[Block]:
    return [block for each in curation.findings for block in findings.blocks(each)]


def _galleries(curation: Curation) -> list[Block]:
    pool, data = curation.pool, curation.data
    common = sorted(pool.rates(), key=lambda rate: -rate["images"])[:REASONS]
    blocks: list[Block] = []
    for reason in (rate["reason"] for rate in common if rate["images"]):
        rows = pool.against[reason].nonzero().flatten()
        picked = rows[torch.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().long()]
        thumbs = [
            Thumb(plots.thumbnail(data.read("image", row).numpy()), pool.names[row], _scores(curation, row))
            for row in picked.tolist()
        ]
        blocks.append(Gallery(thumbs, f"{reason} ({len(thumbs)} of {len(rows):,})"))
    care = Notice("This page shows images that were removed, perhaps for what they show: keep it to yourself.")
    return [care, *blocks] if blocks else []


def _scores(curation: Curation, row: int) -> list[str]:
    measured = {name: float(values[row]) for name, values in curation.pool.scores.items()}
    return [f"{name} {value:.3g}" for name, value in measured.items() if value == value and name != "review"][:3]


def _kept(curation: Curation) -> list[Block]:
    kept, texts = curation.pool.kept.tolist(), curation.texts()
    blocks: list[Block] = [
        Text("curation.csv has a row for each image, with licence and creator where they are known.")
    ]
    for column, tidy in (("licence", normal), ("creator", str)):
        if column not in texts:
            continue
        names = [tidy(text) or "none given" for text in texts[column]]
        before, after = Counter(names), Counter(name for name, there in zip(names, kept, strict=True) if there)
        rows = [{column: name, "images": n, "kept": after[name]} for name, n in before.most_common()]
        blocks.append(tables.page(Table.of_rows(column, rows, shown=ROWS)))
    return blocks


def _repeat(curation: Curation) -> list[Block]:
    info = {
        "seed": str(curation.seed),
        "took": duration(curation.seconds),
        "image passes": f"{curation.spent.passes:,.0f}" if curation.spent.passes else "",
        "machine": host(curation.machine),
        "device": curation.machine["device"],
        "data": f"SHA-256 {curation.data.content_hash[:16]}…",
        "versions": versions(curation.machine["python"], "scikit-image"),
    }
    for each in curation.settings:
        shown = ", ".join(f"{name}={value!r}" for name, value in each.items() if name != "method")
        info[f"settings of {each['method']}"] = shown
    return [Commands([curation.command]), FactSheet({name: value for name, value in info.items() if value})]
