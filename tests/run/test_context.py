from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.nets import encoders
from rushlight.run.budget import Budget, Spent
from rushlight.run.context import RunContext
from rushlight.run.model import Model
from rushlight.run.stage import Outcome, Stage


def test_a_substage_has_its_own_seed_folder_and_share(tmp_path: Path) -> None:
    whole = RunContext(seed=3, budget=Budget(passes=1000), folder=tmp_path)
    first, again, other = whole.substage("a", share=0.3), whole.substage("a", share=0.3), whole.substage("b", share=0.3)
    assert first.budget == Budget(passes=300)
    assert first.seed == again.seed
    assert len({whole.seed, first.seed, other.seed}) == 3
    assert first.folder == tmp_path / "a"


def test_what_was_spent_shortens_the_budget_and_shifts_the_curve() -> None:
    whole = RunContext(budget=Budget(passes=1000), spent_before=Spent(passes=50))
    later = whole.substage("later", after=Spent(passes=400))
    assert later.budget == Budget(passes=600)
    assert later.spent_before.passes == 450
    assert whole.after(Spent(passes=2000)).budget == Budget(passes=1)  # never nothing
    timed = RunContext(budget=Budget(minutes=2)).after(Spent(seconds=30))
    assert timed.budget.minutes == pytest.approx(1.5)


def test_a_teacher_leaves_the_learning_curve_alone() -> None:
    whole = RunContext(on_snapshot=lambda model, spent: 0.5, snapshots=5)
    assert whole.substage("student").snapshots == 5
    teacher = whole.substage("teacher", curve=False)
    assert (teacher.on_snapshot, teacher.snapshots) == (None, 0)


class Darken(Stage):
    """A stage that counts how often it runs."""

    runs = 0

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        self.runs += 1
        return Outcome(data.with_columns(image=data["image"] // 2), model, Spent(passes=7.0), ((7.0, 0.25),))


def test_a_finished_stage_is_found_again(tmp_path: Path) -> None:
    data = Dataset({"image": torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8)})
    model, stage, ctx = Model(encoders.create("conv16", image_size=8)), Darken(), RunContext(folder=tmp_path)
    first, second = ctx.run(stage, data, model), ctx.run(stage, data, model)
    assert stage.runs == 1
    assert torch.equal(first.data["image"], second.data["image"])
    assert (second.spent, second.curve) == (first.spent, first.curve)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


class Sieve(Stage):
    """A curator that drops every other image, darkens the rest, and leaves the model as it came."""

    runs = 0

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        self.runs += 1
        pool = Pool.of(data).remove("odd", torch.arange(len(data)) % 2 == 1)
        pool = pool.score("number", torch.arange(len(data)))
        kept = pool.select(data)
        kept = kept.with_columns(image=kept["image"] // 2)
        return Outcome(kept, model, Spent(passes=7.0), pool=pool, notes=("memory ran out",))


def test_what_a_curator_kept_is_found_again_with_its_pool_and_its_notes(tmp_path: Path) -> None:
    columns = {"image": torch.randint(0, 255, (5, 3, 8, 8), dtype=torch.uint8), "class": torch.arange(5)}
    data = Dataset(columns)
    model, stage, ctx = Model(encoders.create("conv16", image_size=8)), Sieve(), RunContext(folder=tmp_path)
    first, second = ctx.run(stage, data, model), ctx.run(stage, data, model)
    assert stage.runs == 1
    assert second.data.content_hash == first.data.content_hash
    assert second.data["class"].tolist() == [0, 2, 4]
    assert second.model is model  # not trained: where it came from is as it was
    assert second.pool is not None
    assert second.pool.to_csv() == first.pool.to_csv()
    assert second.notes == first.notes == ("memory ran out",)
    assert set(load_file(tmp_path / "columns.safetensors")) == {"image"}  # what was not written is not kept twice


def test_what_was_measured_once_stays(tmp_path: Path) -> None:
    ctx, speeds = RunContext(folder=tmp_path), iter([0.25, 0.5])
    assert [ctx.measured("speed", lambda: next(speeds)) for _ in range(2)] == [0.25, 0.25]
    assert RunContext().measured("speed", lambda: next(speeds)) == 0.5
