"""What an audit found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rushlight.core.findings import Findings, Table
from rushlight.data.dataset import Dataset
from rushlight.measure.atlas import Atlas
from rushlight.present import findings as present
from rushlight.present.shown import Shown
from rushlight.run.model import ModelInfo


@dataclass(frozen=True)
class Audit(Shown):
    """What an audit found.

    Attributes:
        findings: of each judge, in the order in which they ran.
        left_out: (judge, why) of those that did not fit.
        task: what the model predicts, or None; model: what it knows of itself; encoder: its name; parameters: its size.
        data: what it was audited on, with the labels in the model's own names.
        notes: sentences on what was audited.
        command: what repeats the audit. seconds: it took. machine: what it ran on.
        atlas: a map of the images by the model's features; None for fewer images than it needs.
    """

    findings: list[Findings]
    left_out: tuple[tuple[str, str], ...]
    task: str | None
    model: ModelInfo
    encoder: str
    parameters: int
    data: Dataset = field(repr=False)
    notes: tuple[str, ...]
    command: str
    seconds: float
    machine: dict[str, Any] = field(repr=False)
    atlas: Atlas | None = field(default=None, repr=False)

    def of(self, judge: str) -> Findings | None:
        """Return one judge's findings, or None if it was left out."""
        return next((found for found in self.findings if found.judge == judge), None)

    def number(self, judge: str, name: str) -> float | None:
        """Return one number, or None where it was not measured."""
        found = self.of(judge)
        return found.numbers.get(name) if found else None

    @property
    def verdict(self) -> str:
        """Return the audit in one sentence."""
        return present.verdict(self.findings) or "Nothing could be measured on this data."

    def rows(self) -> list[dict[str, Any]]:
        """Return every measure: judge, what, value, low and high."""
        return [
            {"judge": found.judge, "what": m.name, "value": m.value, "low": m.low, "high": m.high}
            for found in self.findings
            for m in found.measures
        ]

    def to_pandas(self) -> Any:
        """Return every measure as a pandas DataFrame: judge, what, value, low and high."""
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=["judge", "what", "value", "low", "high"])

    def table(self, judge: str, name: str) -> Any:
        """Return one of a judge's tables as a pandas DataFrame.

        Raises:
            KeyError: the judge was left out, or has no such table (those there are, are named).
        """
        tables = {(found.judge, table.name): table for found in self.findings for table in found.tables}
        if (judge, name) not in tables:
            raise KeyError(f"no table ({judge!r}, {name!r}); there are {sorted(tables)}")
        return tables[judge, name].to_pandas()

    def parts(self) -> Iterable[str | Table]:
        """Return the measures, the verdict, the notes and what was left out."""
        yield present.overview(self.findings)
        yield self.verdict
        yield from self.notes
        yield from (note for found in self.findings for note in (*found.warnings, *found.notes))
        yield from (f"left out: {judge}: {why}" for judge, why in self.left_out)
