"""One self-contained HTML page from plain data: no network, no scripts, light and dark, paper and phone.

A `Report` is a verdict and sections; a section is blocks: text, tables, drawings, pictures, commands. What compares
recipes and what audits a model both fill it. Every string is escaped by the template; only drawings, which
`present.plots` makes, are markup.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from rushlight.core.files import write_whole
from rushlight.present.plots import printable


@dataclass(frozen=True)
class Strip:
    """A table cell that is drawn: markup from `plots.strip`."""

    svg: str


@dataclass(frozen=True)
class Named:
    """A table cell that names something: with the colour it has in drawings, and a few words (a badge) beside it."""

    name: str
    colour: str = ""
    badge: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph; a quiet one explains a figure."""

    text: str
    quiet: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Notice:
    """Something that went wrong or needs care."""

    text: str
    kind: ClassVar[str] = "notice"


@dataclass(frozen=True)
class Table:
    """Rows of text, `Named` and `Strip` cells.

    `numeric` columns stand flush right; `lead` rows are emphasised; a `folded` table opens on demand.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Strip | Named]]
    caption: str = ""
    title: str = ""
    numeric: Sequence[int] = ()
    lead: Sequence[int] = ()
    folded: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Plot:
    """A drawing: `svg` is markup from `present.plots`. `legend`: (name, colour) pairs."""

    svg: str
    title: str
    note: str = ""
    legend: Sequence[tuple[str, str]] = ()
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class Plots:
    """Drawings beside each other where there is room."""

    plots: Sequence[Plot]
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True)
class Thumb:
    """A picture (a data URI from `plots.thumbnail`), what it shows, and short lines under it."""

    uri: str
    name: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery:
    """Pictures in a grid; as a `row`, the first one stands apart from those that it is compared with."""

    thumbs: Sequence[Thumb]
    caption: str = ""
    row: bool = False
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class FactSheet:
    """Names and their values."""

    info: Mapping[str, str]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Listing:
    """A long list that opens on demand: (name, remark) pairs."""

    summary: str
    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class Commands:
    """What to type."""

    lines: Sequence[str]
    kind: ClassVar[str] = "commands"


Block = Text | Notice | Table | Plot | Plots | Gallery | FactSheet | Listing | Commands


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True)
class Report:
    """What a page says.

    Attributes:
        title: of the page; verdict: the answer in one sentence; about: what was asked, in a line.
        figures: (figure, what it is) pairs that stand under the verdict.
        sections: the rest. Sections without blocks are left out.
        footer: who made it, and when.
    """

    title: str
    verdict: str
    sections: Sequence[Section]
    about: str = ""
    figures: Sequence[tuple[str, str]] = field(default_factory=tuple)
    footer: str = ""


def render(report: Report) -> str:
    """Return the page as one string."""
    sections = [section for section in report.sections if section.blocks]
    page: str = _environment().get_template("report.html.j2").render(report=report, sections=sections)
    return page


def write(report: Report, path: str | os.PathLike[str]) -> None:
    """Write the page so that a crash leaves the old one or the new one, never a part.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    write_whole(Path(path), render(report).encode())


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rushlight.present"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.tests["strip"] = lambda cell: isinstance(cell, Strip)
    environment.tests["named"] = lambda cell: isinstance(cell, Named)
    return environment


def _printable(value: Any) -> Any:
    """Return text without characters that a page cannot hold; markup and numbers unchanged."""
    return printable(value) if type(value) is str else value
