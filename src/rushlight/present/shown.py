"""What shows itself: sentences and tables, the same in a terminal and in a notebook."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from rushlight.core.findings import Findings, Table
from rushlight.present import table as tables


class Shown(ABC):
    """A result that shows itself. A subclass names its parts: sentences, tables and findings, from the top."""

    @abstractmethod
    def parts(self) -> Iterable[str | Table | Findings]:
        """Return what is shown, in order; the verdict is emphasised."""

    @property
    def verdict(self) -> str:
        """Return the result in one sentence; empty where it has none."""
        return ""

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        return Group(
            *(
                Text(part, style="bold" if part == self.verdict else "")
                if isinstance(part, str)
                else tables.terminal(part, heading=bool(part.name))
                for part in _flat(self.parts())
            )
        )

    def _repr_html_(self) -> str:
        return "".join(
            f"<p>{html.escape(part)}</p>" if isinstance(part, str) else tables.html(part)
            for part in _flat(self.parts())
        )


def _flat(parts: Iterable[str | Table | Findings]) -> Iterable[str | Table]:
    """Yield findings as their measures, tables and sentences; empty tables are left out."""
    for part in parts:
        if isinstance(part, Findings):
            yield from _of_findings(part)
        elif isinstance(part, str) or len(part):
            yield part


def _of_findings(found: Findings) -> Iterable[str | Table]:
    if found.measures:
        rows = [{"what": m.name, "value": tables.said(m)} for m in found.measures]
        yield Table.of_rows(found.judge, rows)
    yield from (table for table in found.tables if len(table) and not table.folded)
    yield from (*found.warnings, *found.notes)
