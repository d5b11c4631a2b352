"""What one judge found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rushlight.core.findings import Findings, Table, measures_table
from rushlight.data.dataset import Dataset
from rushlight.present.shown import Shown


@dataclass(frozen=True)
class Judged(Shown):
    """What a judge found.

    Attributes:
        findings: measures, tables, curves and notes.
        recipe: the judge with its arguments.
        models: name → what it is, in a line.
        data: what it was judged on. command: what repeats it. seconds: it took. machine: what it ran on.
    """

    findings: Findings
    recipe: str
    models: dict[str, str]
    data: Dataset = field(repr=False)
    command: str
    seconds: float
    machine: dict[str, Any] = field(repr=False)

    def tables(self) -> tuple[Table, ...]:
        """Return the judge's tables, led by that of its measures (`numbers`) where there are any."""
        measured = self.findings.measures
        return (*((measures_table(measured),) if measured else ()), *self.findings.tables)

    def to_pandas(self) -> Any:
        """Return the first table where there is one; else the measures (what, value, low, high)."""
        tables = self.findings.tables or (measures_table(self.findings.measures),)
        return tables[0].to_pandas()

    def table(self, name: str) -> Any:
        """Return one of the judge's tables as a pandas DataFrame.

        Raises:
            KeyError: it has no such table (those there are, are named).
        """
        return self.findings.table(name).to_pandas()

    def parts(self) -> Iterable[Findings]:
        """Return the findings."""
        return [self.findings]
