"""The page about a curation: what went, why, what it looks like, and what may still be hidden."""

from __future__ import annotations

from collections import Counter

import torch

from rushlight.data.edit.licences import normal
from rushlight.jobs.curate.run import Curation
from rushlight.present import plots
from rushlight.present.page import Block, Commands, FactSheet, Gallery, Notice, Report, Section, Table, Text, Thumb
from rushlight.present.phrases import count, duration, footer, host, quarantine, versions
from rushlight.run.stage import Findings

SHOWN = 12
"""Thumbnails a reason."""
REASONS = 24
"""Reasons with thumbnails, the commonest first."""
ROWS = 12
"""Licences, and creators, in a table."""


def curation_report(curation: Curation) -> Report:
    """The report of a finished curation."""
    pool = curation.pool
    return Report(
        title=f"Curation of {plots.shorten(curation.data.info.source, 60)}",
        verdict=curation.verdict,
        about=f"{curation.recipe} on {count(len(pool), 'image')}.",
        figures=[(f"{int(pool.kept.sum()):,}", "kept"), (f"{int((~pool.kept).sum()):,}", "removed")],
        sections=[
            Section("Why images are gone", _reasons(curation)),
            Section("What may still be hidden", _hidden(curation)),
            Section("What they look like", _galleries(curation)),
            Section("What is kept", _kept(curation)),
            Section("Files that could not be read", quarantine(curation.data.info.quarantined)),
            Section("Repeat it", _repeat(curation)),
        ],
        footer=footer(),
    )


def _reasons(curation: Curation) -> list[Block]:
    rates = sorted(curation.pool.rates(), key=lambda rate: -rate["images"])
    rows = [[r["reason"], f"{r['images']:,}", f"{100 * r['share']:.1f}", f"{r['alone']:,}"] for r in rates]
    caption = (
        "An image is kept if no reason speaks against it. A later rule may have seen only what the earlier ones left."
    )
    return [Table(["reason", "images", "% of all", "this one alone"], rows, caption, numeric=[1, 2, 3])] if rows else []


def _hidden(curation: Curation) -> list[Block]:
    blocks: list[Block] = []
    for found in curation.findings:
        blocks += [Text(_bound(found))] if "residual share, at most" in found.numbers else []
        blocks += [Notice(note) for note in found.notes]
    return blocks


def _bound(found: Findings) -> str:
    numbers = found.numbers
    share, most = 100 * numbers["residual share"], 100 * numbers["residual share, at most"]
    return (
        f"A reviewer saw {numbers['reviewed']:,.0f} images drawn at random from those that {found.judge} had kept, and "
        f"removed {numbers['found']:,.0f}. Among the others {share:.1f} % are expected to be like these, and with 95 % "
        f"confidence at most {most:.1f} %: {numbers['residual images, at most']:,.0f} images (Clopper and Pearson)."
    )


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
        rows = [[name, f"{n:,}", f"{after[name]:,}"] for name, n in before.most_common(ROWS)]
        more = f"The {ROWS} commonest of {len(before):,}." if len(before) > ROWS else ""
        blocks.append(Table([column, "images", "kept"], rows, more, numeric=[1, 2]))
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
        shown = ", ".join(f"{name}={value!r}" for name, value in each.items() if name != "system")
        info[f"settings of {each['system']}"] = shown
    return [Commands([curation.command]), FactSheet({name: value for name, value in info.items() if value})]
