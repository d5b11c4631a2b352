"""What curators made of a data set."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rushlight.core.findings import Findings, Table
from rushlight.data.columns import decode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.present.shown import Shown
from rushlight.run.budget import Spent
from rushlight.run.recipe import Recipe


@dataclass(frozen=True)
class Curation(Shown):
    """What curators made of a data set. Shows itself in a terminal and in a notebook.

    Attributes:
        pool: every image: kept or not, reasons, scores. data: what came in. kept: what is left of it.
        recipe: the curators. settings: of each, with its defaults. findings: what each tells beside its pool.
        spent: by curators that train. seed, seconds, machine, command: how it came about.
    """

    pool: Pool
    data: Dataset = field(repr=False)
    kept: Dataset = field(repr=False)
    recipe: Recipe
    settings: tuple[dict[str, Any], ...]
    findings: tuple[Findings, ...]
    spent: Spent
    seed: int
    seconds: float
    machine: dict[str, Any] = field(repr=False)
    command: str

    @property
    def verdict(self) -> str:
        """Return the curation in one sentence."""
        kept, n = int(self.pool.kept.sum()), len(self.pool)
        rest = "".join(f"; {each.headline}" for each in self.findings if each.headline)
        return f"{kept:,} of {n:,} images are kept{rest}."

    def to_pandas(self) -> Any:
        """Return one row per image, as a pandas DataFrame."""
        return self.pool.to_pandas()

    def texts(self) -> dict[str, list[str]]:
        """Return each image's licence and creator, where any is known."""
        return {name: decode_text(self.data[name]) for name in ("licence", "creator") if self.data.known(name).any()}

    def audit(self) -> dict[str, Any]:
        """Return the audit record of the curation, as plain JSON."""
        return {
            "verdict": self.verdict,
            "source": self.data.info.source,
            "data": self.data.content_hash,
            "recipe": str(self.recipe),
            "settings": list(self.settings),
            "seed": self.seed,
            "images": len(self.pool),
            "kept": int(self.pool.kept.sum()),
            "removed by stage": self.pool.stage_rates(),
            "removed by reason": self.pool.rates(),
            "found": [{"by": each.judge, **_plain(each)} for each in self.findings],
            "notes": [note for each in self.findings for note in (*each.warnings, *each.notes)],
            "unreadable": [{"name": entry.name, "reason": entry.reason} for entry in self.data.info.quarantined],
            "image passes": self.spent.passes,
            "seconds": round(self.seconds, 1),
            "machine": self.machine,
            "command": self.command,
            "date": time.strftime("%Y-%m-%d"),
        }

    def parts(self) -> Iterable[str | Table]:
        """Return the reasons, the verdict and what each curator found."""
        yield self.reasons()
        yield self.verdict
        yield from (note for each in self.findings for note in (*each.warnings, *each.notes))

    def reasons(self) -> Table:
        """Return why images are gone, the commonest reason first."""
        rates = sorted(self.pool.rates(), key=lambda rate: -rate["images"])
        rows = [
            {"reason": r["reason"], "images": r["images"], "of all": r["share"], "alone": r["alone"]} for r in rates
        ]
        caption = (
            "An image is kept if no reason speaks against it. A later rule may have seen only what the earlier ones "
            "left; `alone`: this reason and no other."
        )
        return Table.of_rows("reasons", rows, kinds={"of all": "share"}, caption=caption)


def _plain(found: Findings) -> dict[str, float]:
    """Return each measure and the upper end of its interval, by name."""
    ends = {f"{m.name}, at most": m.high for m in found.measures if m.high is not None}
    return {**found.numbers, **ends}
