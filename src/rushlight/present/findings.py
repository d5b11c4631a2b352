"""Findings on a page: sections, figures for its head, and one sentence, whoever found them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rushlight.core.findings import Curves, Findings, Matrix, Pictures, Table
from rushlight.present import plots
from rushlight.present import table as tables
from rushlight.present.page import Block, Gallery, Notice, Plot, Plots, Section, Text, Thumb

HEADLINES = 4
"""Headlines that a verdict joins, those of the lowest priority first."""


def verdict(found: Sequence[Findings]) -> str:
    """Return the most important headlines as one sentence; empty where there is none."""
    said = "; ".join([each.headline for each in _ordered(found) if each.headline][:HEADLINES])
    capital = said[:1].upper() if said[1:2].islower() else said[:1]  # mIoU and mAP keep their names
    return f"{capital}{said[1:]}." if said else ""


def figures(found: Sequence[Findings]) -> list[tuple[str, str]]:
    """Return (figure, what it is) pairs for the head of a page."""
    chosen = (m for each in _ordered(found) for m in each.measures if m.figure and math.isfinite(m.value))
    return [(tables.written(m.value, m.kind) + (" %" if m.kind == "share" else ""), m.figure) for m in chosen]


def overview(found: Sequence[Findings]) -> Table:
    """Return every measure in one table; a judge's name stands in its first row."""
    rows = [
        {"judge": "" if number else each.judge, "what": measure.name, "value": tables.said(measure)}
        for each in _ordered(found)
        for number, measure in enumerate(each.measures)
    ]
    return Table.of_rows("", rows)


def sections(found: Sequence[Findings]) -> list[Section]:
    """Return a section for each title, in the order of their priority."""
    grouped: dict[str, list[Block]] = {}
    for each in _ordered(found):
        grouped.setdefault(each.title or each.judge, []).extend(blocks(each))
    return [Section(title, content) for title, content in grouped.items()]


def _ordered(found: Sequence[Findings]) -> list[Findings]:
    return sorted(found, key=lambda each: each.priority)


def blocks(found: Findings) -> list[Block]:
    """Return all findings as blocks, from warnings to long tables."""
    drawn = [curves(each) for each in found.curves]
    return [
        *(Notice(warning) for warning in found.warnings),
        *(Text(note, quiet=True) for note in found.notes),
        *([tables.fact_sheet(found.measures)] if found.measures else []),
        *([Plots(drawn)] if drawn else []),
        *(matrix(each) for each in found.matrices),
        *(table(each) for each in found.tables if len(each) and not each.folded),
        *(gallery(each) for each in found.pictures),
        *(table(each) for each in found.tables if len(each) and each.folded),
    ]


def table(found: Table) -> Block:
    """Return a table under its name."""
    return tables.page(found, title=_capital(found.name))


def curves(found: Curves) -> Plot:
    """Return lines, a spectrum or a reliability diagram."""
    colours = plots.series(list(found.series))
    legend = list(colours.items()) if len(colours) > 1 else []
    if found.style == "reliability":
        confidence, right = next(iter(found.series.values()))
        return Plot(plots.reliability(confidence, right, found.counts), _capital(found.name), found.note)
    if found.style == "spectrum":
        return Plot(plots.spectrum(found.series, colours=colours), _capital(found.name), found.note, legend)
    percent = (found.x_kind == "share", found.y_kind == "share")
    svg = plots.curves(found.series, found.x_label, found.y_label, colours=colours, percent=percent)
    return Plot(svg, _capital(found.name), found.note, legend)


def matrix(found: Matrix) -> Plot:
    """Return a confusion matrix."""
    note = (
        f"Per cent of the {found.what} of each true class (rows) by prediction (columns). Red is wrong; its shade is "
        "doubled to be seen." + (" The 20 most mistaken classes." if len(found.counts) > 20 else "")
    )
    return Plot(plots.confusion(found.counts, found.names), _capital(found.name), note)


def gallery(found: Pictures) -> Gallery:
    """Return pictures in a grid."""
    return Gallery([Thumb(plots.thumbnail(p.pixels), p.name, p.lines) for p in found.pictures], found.caption)


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:] if name[1:2].islower() or name[1:2] == " " else name
