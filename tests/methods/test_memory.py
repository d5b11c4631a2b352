"""No method holds the pixels of a data set: every stage, and every judge, reads some images at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from cases import CARDS, JUDGES, STAGES, Case, called, cases, example, learner_of, make, start, trained, training

from rushlight.core.catalogue import load_method
from rushlight.data import rows as at
from rushlight.data.dataset import Dataset
from rushlight.data.stored import Stored
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import RunContext, Stage
from rushlight.train.joint_embedding import AddOn
from rushlight.train.learner import Learner

MOST = 512
"""Images that may be read at once: the largest batch of any method."""
BRIEF = Budget(minutes=0.002)
"""A few steps; what is no training is not cut short by a budget of minutes."""
SLOW = {"msn"}


@contextmanager
def sparing() -> Iterator[None]:
    """Refuse to read more than `MOST` inputs at once."""
    read = Stored.read

    def some(self: Stored, rows: at.Rows | None = None) -> Any:
        count = len(self) if rows is None else at.length(rows)
        assert not self.kind.input or count <= MOST, f"{count} rows of '{self.kind.name}' are read at once"
        return read(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stored, "read", some)
        yield


def many(data: Dataset) -> Dataset:
    """The rows over and over, more than can be read at once."""
    return data.select(torch.arange(2 * MOST + 1) % len(data))


def run_sparing(stage: Stage, case: Case) -> None:
    data = many(training(case[1]))
    model = start(data, case)
    with sparing():
        stage.run(data, model, RunContext(task=case[1], budget=BRIEF))


def test_reading_all_images_is_noticed() -> None:
    data = many(training("class"))
    with sparing(), pytest.raises(AssertionError, match="1025 rows of 'image'"):
        data["image"]


@pytest.mark.parametrize("case", cases(STAGES), ids=called)
def test_a_stage_reads_some_images_at_a_time(case: Case) -> None:
    run_sparing(make(case[0]), case)
