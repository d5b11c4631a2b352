"""Masks that nobody drew, from a model of ours."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining import fresh

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import scenes as composed
from rushlight.methods.pretrain.multimae.method import MultiMAE
from rushlight.methods.pretrain.multimae.pseudo import fill_masks
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

START = Model(encoders.create("vit64-p8", image_size=32, seed=0))


def ctx(passes: float) -> RunContext:
    return RunContext(task=None, budget=Budget(passes=passes))


@pytest.fixture(scope="module")
def whole() -> Dataset:
    return composed.compose(120, size=32, seed=3)


@pytest.fixture(scope="module")
def teacher(whole: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    ctx = RunContext(task="mask", budget=Budget(passes=200))
    start = Model(encoders.create("conv16", image_size=32, seed=0))
    folder = tmp_path_factory.mktemp("models") / "teacher"
    Recipe.parse("supervised").steps[0].stage().run(whole, start, ctx).model.save(folder)
    return str(folder)


def test_what_is_unknown_is_filled_and_paid_for(whole: Dataset, teacher: str) -> None:
    partly = whole.hide(torch.arange(len(whole)) >= 10, ["mask"])
    filled, paid = fill_masks(partly, teacher, START, ctx(1000))
    assert torch.equal(filled["mask"][:10], whole["mask"][:10])
    assert int(filled.known("mask").sum()) > 10
    assert 0 < paid.passes <= 250
    outcome = MultiMAE(pseudo={"mask": teacher}, batch=16).run(
        partly, START, RunContext(task=None, budget=Budget(passes=1000))
    )
    assert outcome.spent.passes <= 1000
    assert outcome.data.content_hash == partly.content_hash


def test_they_take_time(whole: Dataset, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a quarter of the minutes, as the first images tell."""
    outputs = Model.predict_batches

    def slow(self: Model, data: Dataset, *, rows: torch.Tensor, **rest: Any) -> Any:
        time.sleep(0.01 * len(rows))
        return outputs(self, data, rows=rows, **rest)

    monkeypatch.setattr(Model, "predict_batches", slow)
    unknown = whole.hide(torch.ones(len(whole), dtype=torch.bool), ["mask"])
    filled, paid = fill_masks(unknown, teacher, START, RunContext(task=None, budget=Budget(minutes=2 / 60)))
    masks = int(filled.known("mask").sum())
    assert 10 < masks <= 50
    assert paid.seconds >= 0.01 * masks


def test_classes_are_called_as_the_teacher_calls_them(whole: Dataset, teacher: str) -> None:
    named = Dataset({"image": whole["image"]}, whole.info).with_info(mask_names=(), class_names=("cat", "dog"))
    taught, _ = fill_masks(named, teacher, START, ctx(1000))
    assert taught.info.mask_names == whole.info.mask_names  # not those of the images' classes


def test_teachers_that_do_not_fit_are_refused(whole: Dataset, teacher: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="have other classes"):
        fill_masks(whole.with_info(mask_names=("ground", "thing")), teacher, START, ctx(1000))
    fresh().save(tmp_path / "bare")
    with pytest.raises(UserError, match="predicts no masks"):
        fill_masks(whole, str(tmp_path / "bare"), START, ctx(1000))
