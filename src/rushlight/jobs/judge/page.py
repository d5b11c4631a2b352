"""The page about what one judge found: its numbers, tables and curves, on one model or on several."""

from __future__ import annotations

from typing import Any

from rushlight.core.catalogue import load_method
from rushlight.jobs.judge.run import Judged, word
from rushlight.present import plots
from rushlight.present.page import Block, Commands, FactSheet, Plot, Plots, Report, Section, Table, Text
from rushlight.present.phrases import count, duration, footer, host, quarantine, versions

ROWS = 60
"""Rows of a table on the page; its CSV file has all."""


def judge_report(done: Judged) -> Report:
    """The report of a finished judge."""
    found, card = done.findings, load_method(done.recipe.partition("(")[0]).card
    return Report(
        title=f"{found.judge} on {plots.shorten(done.data.info.source, 60)}",
        verdict=found.notes[0] if found.notes else card.gives,
        about=f"{card.title}; {count(len(done.models), 'model')} on {count(len(done.data), 'image')}.",
        sections=[
            Section("Numbers", [FactSheet({k: word(v) for k, v in found.numbers.items()})] if found.numbers else []),
            *(Section(name, [_table(name, columns)]) for name, columns in found.tables.items()),
            Section("Curves", [Plots([_curve(*each) for each in found.curves.items()])] if found.curves else []),
            Section("What to know", [Text(note) for note in found.notes[1:]]),
            Section("Models", [FactSheet(done.models)]),
            Section("Data", _data(done)),
            Section("Repeat it", _repeat(done)),
        ],
        footer=footer(),
    )


def _table(name: str, columns: dict[str, list[Any]]) -> Table:
    rows = [[word(value) for value in row] for row in zip(*columns.values(), strict=True)]
    numeric = [i for i, values in enumerate(columns.values()) if values and not isinstance(values[0], str)]
    caption = f"The first {ROWS} of {len(rows)} rows; the CSV file holds all." if len(rows) > ROWS else ""
    return Table(list(columns), rows[:ROWS], caption, numeric=numeric)


def _curve(name: str, curve: tuple[str, str, dict[str, tuple[list[float], list[float]]]]) -> Plot:
    x_label, y_label, series = curve
    colours = plots.series(list(series))
    return Plot(plots.curves(series, x_label, y_label, colours=colours), name, legend=list(colours.items()))


def _data(done: Judged) -> list[Block]:
    data, info = done.data, done.data.info
    known = ", ".join(f"{int(data.known(name).sum()):,} of {name}" for name in data.label_names) or "none"
    info = {
        "source": info.source,
        "images": f"{len(data):,} of {data.height} × {data.width} pixels",
        "labels known": known,
    }
    return [FactSheet(info), *quarantine(info.quarantined)]


def _repeat(done: Judged) -> list[Block]:
    info = {
        "took": duration(done.seconds),
        "device": done.machine["device"],
        "machine": host(done.machine),
        "data": f"SHA-256 {done.data.content_hash[:16]}…",
        "versions": versions(done.machine["python"], "scikit-learn", "torchmetrics"),
    }
    return [Commands([done.command]), FactSheet(info)]
