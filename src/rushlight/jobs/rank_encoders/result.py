"""The outcome of a comparison without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rushlight.core.findings import Table
from rushlight.data.dataset import Dataset
from rushlight.jobs.rank_encoders.trust import signals
from rushlight.jobs.trials import noted
from rushlight.measure.atlas import Atlas
from rushlight.present.shown import Shown
from rushlight.run.model import Model
from rushlight.run.store import Store
from rushlight.run.trial import Result

UNTRAINED, BEST = "untrained", "best"


@dataclass(frozen=True)
class Ranking(Shown):
    """The outcome of a comparison without labels.

    Attributes:
        results: of every trial; rows: a method each, from the best by its mean rank over seeds: `recipe`, `mean rank`,
            its lowest and highest over the seeds, the mean of each signal, image passes and seconds.
        trust: how far the order can be trusted, in a sentence made from the ledger.
        atlas: a map of the held-out images by the best encoder; None for fewer images than it needs.
        data, out, choices, command, seconds, place: as those of `compare.Board`.
    """

    results: list[Result]
    rows: list[dict[str, Any]]
    trust: str
    atlas: Atlas | None = field(repr=False)
    data: Dataset = field(repr=False)
    out: Path
    choices: tuple[str, ...]
    command: str
    seconds: float
    place: str = ""

    @property
    def store(self) -> Store:
        """Return where trials, models and the report are kept."""
        return Store(self.place or self.out)

    @property
    def best(self) -> str:
        return self.rows[0]["recipe"]

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.failed]

    @property
    def verdict(self) -> str:
        """Return which encoder to take, in one sentence."""
        if self.best == UNTRAINED:
            return "No pretraining looks better than the untrained encoder: give it a larger budget, or more images."
        first = self.rows[0]
        near = [row["recipe"] for row in self.rows[1:] if row["lowest rank"] <= first["highest rank"] + 1e-9]
        rest = f"; over the seeds it is not clear of {', '.join(near)}" if near else ""
        return f"Without labels, {self.best} looks best (mean rank {first['mean rank']:.2f} of {len(self.rows)}){rest}."

    def best_model(self) -> Model:
        """Return the first seed's encoder of the best method."""
        return Model.load(self.out / BEST)

    def to_pandas(self) -> Any:
        """Return the rows as a pandas DataFrame."""
        return Table.of_rows("encoders", self.rows).to_pandas()

    def order(self) -> Table:
        """Return the order of the encoders, with the lowest and highest rank over the seeds."""
        rows = [{key: row[key] for key in ("recipe", "mean rank", "lowest rank", "highest rank")} for row in self.rows]
        caption = (
            "1 is best. Within a seed, encoders are ranked by each signal, and the ranks averaged; the interval goes "
            "from the lowest to the highest seed."
        )
        spread = {"mean rank": ("lowest rank", "highest rank")}
        return Table.of_rows("order", rows, intervals=spread, lead=frozenset({0}), caption=caption)

    def measured(self) -> Table:
        """Return each signal's mean over the seeds, and the seconds of a training."""
        rows = [
            {"recipe": row["recipe"], **{name: row[name] for name in names()}, "s a training": round(row["seconds"])}
            for row in self.rows
        ]
        meaning: dict[str, str] = getattr(signals(), "meaning", {})
        told = "; ".join(f"{name}: {meaning[name]}" for name in names() if name in meaning)
        caption = f"Means over the seeds, on held-out images. {told}."
        return Table.of_rows("signals", rows, caption=caption, lead=frozenset({0}))

    def parts(self) -> Iterable[str | Table]:
        """Return the order, the verdict, how far to trust it and what was chosen."""
        yield from (self.order(), self.measured(), self.verdict, self.trust)
        yield from self.choices
        yield f"encoder: {self.store.where(BEST)}"
        yield from (f"failed: {result.failed}" for result in self.failed)
        yield from (f"note: {note}" for note in noted(self.results))


def names() -> list[str]:
    """Return the signals that encoders are ordered by."""
    return list(signals().better)
