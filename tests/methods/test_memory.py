"""No method holds the pixels of a data set: every stage, and every judge, reads some images at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import STAGES, Case, called, cases, make, start, trained, training

from rushlight import tasks
from rushlight.core.catalogue import load_method
from rushlight.data import rows as at
from rushlight.data.dataset import Dataset
from rushlight.data.stored import Stored
from rushlight.data.synthetic import tissue
from rushlight.nets.heads import Linear
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import RunContext, Stage

MOST = 512
"""Images that may be read at once: the largest batch of any method."""
BRIEF = Budget(minutes=0.002)
"""A few steps; what is no training is not cut short by a budget of minutes."""
SLOW = {"backbones", "fgsm-cw", "simcore", "slides", "vit-ssl-survey"}


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


every_stage = pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow) if case[0] in SLOW else case for case in cases(STAGES)],
    ids=[called(case) for case in cases(STAGES)],
)


@every_stage
def test_a_stage_reads_some_images_at_a_time(case: Case) -> None:
    run_sparing(make(case[0]), case)


@pytest.mark.slow
def test_images_are_labelled_some_at_a_time(tmp_path: Path) -> None:
    """By the checkpoints of ST++, and by a model for MultiMAE."""
    stage = load_method("cw-bass")(retrain=True, batch=8)
    run_sparing(stage, ("cw-bass", "mask"))
    _, teacher, _ = trained(("supervised", "mask"))
    teacher.save(tmp_path / "teacher")
    stage = load_method("multimae")(pseudo={"mask": str(tmp_path / "teacher")}, batch=8)
    run_sparing(stage, ("multimae", "mask"))


JUDGED: dict[str, dict[str, Any]] = {
    "backbones": {"images": 600, "tasks": ("linear", "few-label", "shift"), "rates": (1e-3,), "steps": 2},
    "fgsm-cw": {
        "images": 600,
        "strengths": (0.1,),
        "carlini_wagner": load_method("carlini-wagner")(steps=2, searches=1),
    },
    "label-free": {},
    "rankme": {},
    "slides": {"draws": 2, "titration": (1.0,), "folds": 2},
    "vit-ssl-survey": {"members": ("simclr",), "budget": "0.1s", "fine_tuning": "0.1s"},
}
"""Judges and settings with which they are quick, and see more images than may be read at once."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in JUDGED]
)
def test_a_judge_reads_some_images_at_a_time(name: str) -> None:
    data = tissue.slides(8, patches=70, share=0.4) if name == "slides" else many(tasks.find("class").example())
    model = start(data, ("supervised", "class"))
    head = Linear(width=model.encoder.width, outputs=len(data.info.class_names) or 2)
    with sparing():
        load_method(name)(**JUDGED[name]).judge(Model(model.encoder, {"class": head}, model.info), data, RunContext())
