"""A pool: which images of a data set are kept, why the others are not, and what was measured of each.

Every curator leaves one (`Stage.pool`). An image is kept exactly if no stage has a reason against it, so pools of
several stages merge by union of their reasons, in whatever order they were made.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rushlight.data.dataset import Dataset

if TYPE_CHECKING:
    import pandas
    from rich.console import RenderableType

BETWEEN = "; "
"""Between the reasons of one image, in a file."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Images by name, with reasons against them and scores.

    Attributes:
        names: of the images, each once.
        against: reason → the images that it speaks against. A reason is words, `stage: words` where a stage has
            several; one that was looked for and hit no image stays, with no image.
        scores: name → a value an image (float32); NaN where it was not measured.

    Raises:
        ValueError: a name that occurs twice, a column of another length, or a reason with the separator in it.
    """

    names: tuple[str, ...]
    against: dict[str, Bool[Tensor, "rows"]] = field(default_factory=dict)
    scores: dict[str, Float[Tensor, "rows"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a pool knows images by their names, and one of these occurs twice")
        for name, column in {**self.against, **self.scores}.items():
            if len(column) != len(self.names):
                raise ValueError(f"'{name}' has {len(column)} values for {len(self.names)} images")
        for reason in self.against:
            if not reason.strip() or BETWEEN.strip() in reason:
                raise ValueError(f"a reason is words without '{BETWEEN.strip()}', not {reason!r}")

    @classmethod
    def of(cls, data: Dataset) -> Pool:
        """Return a pool of all images of a data set, without reasons against any."""
        return cls(tuple(data.names))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def kept(self) -> Bool[Tensor, "rows"]:
        """Return which images have no reason against them."""
        gone = torch.zeros(len(self), dtype=torch.bool)
        for rows in self.against.values():
            gone = gone | rows
        return ~gone

    @property
    def reasons(self) -> list[tuple[str, ...]]:
        """Return each image's reasons, in alphabetical order; empty for one that is kept."""
        listed: list[list[str]] = [[] for _ in self.names]
        for reason in sorted(self.against):
            for row in self.against[reason].nonzero().flatten().tolist():
                listed[row].append(reason)
        return [tuple(each) for each in listed]

    def remove(self, reason: str, rows: Bool[Tensor, "rows"]) -> Pool:
        """Return the pool with a reason against these images, added to their earlier reasons."""
        before = self.against.get(reason, torch.zeros(len(self), dtype=torch.bool))
        return Pool(self.names, {**self.against, reason: before | rows}, self.scores)

    def score(self, name: str, values: Tensor) -> Pool:
        """Return the pool with one value per image; NaN where it was not measured."""
        return Pool(self.names, self.against, {**self.scores, name: values.float()})

    def merge(self, other: Pool) -> Pool:
        """Return all images of both pools, each with the reasons and scores of both.

        The order of merging changes the order of new images at most, never what is said of one.

        Raises:
            ValueError: both have a score of one name, and differ on an image.
        """
        names = tuple(dict.fromkeys((*self.names, *other.names)))
        ours, others = self._spread(names), other._spread(names)
        against, scores = dict(ours.against), dict(ours.scores)
        for reason, rows in others.against.items():
            against[reason] = against[reason] | rows if reason in against else rows
        for name, values in others.scores.items():
            scores[name] = _joined(name, scores[name], values) if name in scores else values
        return Pool(names, against, scores)

    __or__ = merge

    def then(self, later: Pool) -> Pool:
        """Return the pool merged with a later stage's; where scores of both differ, the later stage's are kept."""
        both = [name for name in self.scores if name in later.scores]
        theirs = later._spread(tuple(dict.fromkeys((*self.names, *later.names))))
        other = [name for name in both if _differ(self.scores[name], theirs.scores[name][: len(self)])]
        scores = {name: values for name, values in self.scores.items() if name not in other}
        return Pool(self.names, self.against, scores).merge(later)

    def _spread(self, names: tuple[str, ...]) -> Pool:
        """Return the same pool over more images, without reasons or scores for the new ones."""
        if names == self.names:
            return self
        place = {name: row for row, name in enumerate(names)}
        rows = torch.tensor([place[name] for name in self.names], dtype=torch.int64)
        n = len(names)
        against = {reason: torch.zeros(n, dtype=torch.bool).index_put((rows,), v) for reason, v in self.against.items()}
        scores = {name: torch.full((n,), torch.nan).index_put((rows,), v) for name, v in self.scores.items()}
        return Pool(names, against, scores)

    def rows_of(self, data: Dataset) -> Bool[Tensor, "rows"]:
        """Return which rows of a data set are kept; they are found by name.

        Raises:
            ValueError: the data set has an image that the pool does not know.
        """
        kept = dict(zip(self.names, self.kept.tolist(), strict=True))
        strange = next((name for name in data.names if name not in kept), None)
        if strange is not None:
            raise ValueError(f"the pool does not know '{strange}': it was made of other data")
        return torch.tensor([kept[name] for name in data.names], dtype=torch.bool)

    def select(self, data: Dataset) -> Dataset:
        """Return the kept images of a data set; the data set itself, where all are kept."""
        rows = self.rows_of(data)
        return data if bool(rows.all()) else data.select(rows)

    def rates(self) -> list[dict[str, Any]]:
        """Return one row per reason: its stage, how many images have it, their share, and how many have no other."""
        hits = torch.stack(list(self.against.values())).sum(0) if self.against else torch.zeros(len(self))
        return [
            {
                "stage": stage_of(reason),
                "reason": reason,
                "images": int(rows.sum()),
                "share": _share(rows),
                "alone": int((rows & (hits == 1)).sum()),
            }
            for reason, rows in self.against.items()
        ]

    def stage_rates(self) -> dict[str, float]:
        """Return the share (0 … 1) of all images that each stage has a reason against."""
        stages: dict[str, Tensor] = {}
        for reason, rows in self.against.items():
            stage = stage_of(reason)
            stages[stage] = stages[stage] | rows if stage in stages else rows
        return {stage: _share(rows) for stage, rows in stages.items()}

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row per image: name, kept, reasons (separated by `; `), and each score."""
        import pandas

        columns: dict[str, Any] = {
            "name": list(self.names),
            "kept": self.kept.numpy(),
            "reasons": [BETWEEN.join(each) for each in self.reasons],
        }
        return pandas.DataFrame({**columns, **{name: values.numpy() for name, values in self.scores.items()}})

    def to_csv(self, **texts: Sequence[str]) -> str:
        """Return the table as CSV text, with further columns; kept is 1 or 0, a score that was not measured blank."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "kept", "reasons", *self.scores, *texts])
        columns = [[_cell(value) for value in values.tolist()] for values in self.scores.values()]
        columns += [list(values) for values in texts.values()]
        kept = self.kept.int().tolist()
        writer.writerows(zip(self.names, kept, map(BETWEEN.join, self.reasons), *columns, strict=True))
        return text.getvalue()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `to_csv` into a file, whole or not at all."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_text(self.to_csv(), encoding="utf-8")
        partial.replace(path)

    def __repr__(self) -> str:
        return f"Pool({len(self):,} images, {int(self.kept.sum()):,} kept)"

    def _shown(self) -> list[list[str]]:
        rates = sorted(self.rates(), key=lambda rate: -rate["images"])
        listed = [[r["reason"], f"{r['images']:,}", f"{100 * r['share']:.1f}", f"{r['alone']:,}"] for r in rates]
        kept = self.kept
        return [*listed, ["kept", f"{int(kept.sum()):,}", f"{100 * _share(kept):.1f}", ""]]

    def __rich__(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(header_style="bold")
        for number, name in enumerate(HEADER):
            table.add_column(name, justify="right" if number else "left")
        for row in self._shown():
            table.add_row(*map(Text, row))
        return table

    def _repr_html_(self) -> str:
        import pandas

        return pandas.DataFrame(self._shown(), columns=HEADER).to_html(index=False)


HEADER = ["reason", "images", "% of all", "this one alone"]


def stage_of(reason: str) -> str:
    """Return the stage of a reason, such as `face` of `face: a face was found`."""
    return reason.split(":", 1)[0].strip()


def read_names(path: Path) -> Sequence[str]:
    """Return the names of the images that a `curation.csv` keeps."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row["name"] for row in csv.DictReader(file) if row["kept"] == "1"]


def _share(rows: Tensor) -> float:
    return float(rows.double().mean()) if len(rows) else 0.0


def _cell(value: float) -> str:
    return "" if value != value else f"{value:.6g}"


def _differ(one: Tensor, other: Tensor) -> bool:
    both = ~one.isnan() & ~other.isnan()
    return not torch.equal(one[both], other[both])


def _joined(name: str, one: Tensor, other: Tensor) -> Tensor:
    if _differ(one, other):
        raise ValueError(f"two pools have other values of '{name}' for one image: name one of the scores otherwise")
    return torch.where(one.isnan(), other, one)
