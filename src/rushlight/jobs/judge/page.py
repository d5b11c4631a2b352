"""The page about what one judge found: its numbers, tables and curves, on one model or on several."""

from __future__ import annotations

from dataclasses import replace

from rushlight.core.catalogue import cards
from rushlight.jobs.judge.result import Judged
from rushlight.present import dataset, findings, plots
from rushlight.present.page import Block, Commands, FactSheet, Report, Section
from rushlight.present.phrases import count, duration, footer, host, versions


def judge_report(done: Judged) -> Report:
    """Return the report of a finished judge."""
    found, card = done.findings, cards()[done.findings.judge]
    return Report(
        title=f"{found.judge} on {plots.shorten(done.data.info.source, 60)}",
        verdict=found.notes[0] if found.notes else card.gives,
        about=f"{card.title}; {count(len(done.models), 'model')} on {count(len(done.data), 'image')}.",
        figures=findings.figures([found]),
        sections=[
            Section("Findings", findings.blocks(replace(found, notes=found.notes[1:]))),
            Section("Models", [FactSheet(done.models)]),
            Section("Data", dataset.blocks(done.data)),
            Section("Repeat it", _repeat(done)),
        ],
        footer=footer(),
    )


def _repeat(done: Judged) -> list[Block]:
    info = {
        "took": duration(done.seconds),
        "device": done.machine["device"],
        "machine": host(done.machine),
        "data": f"SHA-256 {done.data.content_hash[:16]}…",
        "versions": versions(done.machine["python"], "scikit-learn", "torchmetrics"),
    }
    return [Commands([done.command]), FactSheet(info)]
