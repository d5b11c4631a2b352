"""The ledger of claims, as a table that shows itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rushlight.core.findings import Table
from rushlight.present.shown import Shown


@dataclass(frozen=True)
class Ledger(Shown):
    """What came out of each paper's claim; `entries` are those of `claims/ledger.json`."""

    entries: dict[str, dict[str, Any]]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per claim: its deciding effect with its interval, and the verdict."""
        return [_row(name, entry) for name, entry in self.entries.items()]

    def to_pandas(self) -> Any:
        """Return the ledger as a pandas DataFrame."""
        return Table.of_rows("claims", self.rows()).to_pandas()

    def parts(self) -> Iterable[Table]:
        """Return the ledger."""
        yield Table.of_rows("claims", self.rows())


def _row(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    effect = entry["effects"][0]
    return {
        "id": name,
        "claim": effect["says"],
        "effect": f"{effect['mean']:+.3g} {effect['unit']}",
        "95 % interval": f"{effect['low']:+.3g} … {effect['high']:+.3g}",
        "seeds": entry["seeds"],
        "verdict": entry["verdict"],
        "minutes": entry["minutes"],
    }
