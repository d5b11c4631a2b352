"""Where, how and on what budget a stage runs; nothing of it belongs to the method."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rushlight import tasks
from rushlight.core.files import write_whole
from rushlight.core.seeds import mix
from rushlight.run.budget import Budget, Spent
from rushlight.run.model import Model

if TYPE_CHECKING:
    from rushlight.data.dataset import Dataset
    from rushlight.run.stage import Outcome, Stage


@dataclass(frozen=True)
class Progress:
    """How far a stage is: its name, the share done (0 … 1), and the latest logged values."""

    stage: str
    done: float
    logged: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunContext:
    """Where, how and on what budget a stage runs.

    Attributes:
        seed: of every random draw of the stage.
        task: the id of the task to be learned, by default the first one; None where nothing is predicted.
        budget: what the stage may spend; by default that of `fit` and `compare`.
        device, precision: as `rushlight.run.hardware` names them; devices: how many of them one training uses.
        folder: where checkpoints and finished substages go; None keeps none.
        checkpoint_seconds: between checkpoints.
        on_progress: called now and then with how far it is.
        on_snapshot: called with the model and what it has cost at a few moments of the training; the value that it
            returns becomes a point of the learning curve. What it measures never reaches the stage.
        snapshots: how many such moments.
        on_start: called with each training before its first step; what it raises ends the run.
        spent_before: by earlier stages of the same recipe; learning curves count it.
    """

    seed: int = 0
    task: str | None = field(default_factory=lambda: tasks.all()[0].id)
    budget: Budget = field(default_factory=lambda: Budget(passes=200_000.0))
    device: str = "cpu"
    devices: int = 1
    precision: str = "32-true"
    folder: Path | None = None
    checkpoint_seconds: float = 30.0
    on_progress: Callable[[Progress], None] | None = None
    on_snapshot: Callable[[Model, Spent], float | None] | None = None
    snapshots: int = 0
    on_start: Callable[[Any], None] | None = None
    spent_before: Spent = field(default_factory=Spent)

    def substage(
        self, name: str, *, share: float | None = None, after: Spent | None = None, curve: bool = True, **changes: Any
    ) -> RunContext:
        """Return a part of this context for a stage within a stage: its own folder, seed, budget and learning curve.

        Args:
            name: of the substage; it tells its folder and its seed from those of others.
            share: of the budget (0 … 1); None takes what `after` leaves of it.
            after: what the substages before it have spent.
            curve: False leaves its snapshots out of the learning curve (a teacher's, an annotator's).
            changes: of other attributes, such as `task=None`.
        """
        used = after or Spent()
        part: dict[str, Any] = {
            "seed": mix(self.seed, zlib.crc32(name.encode())),
            "folder": self.folder / name if self.folder is not None else None,
            "budget": self.budget.share(share) if share is not None else self.budget.left(used),
            "spent_before": self.spent_before + used,
        }
        if not curve:
            part |= {"on_snapshot": None, "snapshots": 0}
        return replace(self, **part, **changes)

    def after(self, spent: Spent) -> RunContext:
        """Return the same context with this already spent (a teacher's forwards, an annotation)."""
        return replace(self, budget=self.budget.left(spent), spent_before=self.spent_before + spent)

    def run(self, stage: Stage, data: Dataset, model: Model) -> Outcome:
        """Run a stage here, or load its outcome where an earlier run of the same folder has finished it."""
        from rushlight.run.store import finished_stage, keep_stage

        done = finished_stage(self.folder, data, model) if self.folder is not None else None
        if done is not None:
            return done
        outcome = stage.run(data, model, self)
        if self.folder is not None:
            keep_stage(self.folder, data, model, outcome)
        return outcome

    def measured(self, name: str, measure: Callable[[], float]) -> float:
        """Return a measured number, such as a speed; one that an earlier run of the folder measured stays, so that a
        training that goes on does what it began."""
        if self.folder is None:
            return measure()
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_whole(path, json.dumps(measure()).encode())
        return float(json.loads(path.read_text()))
