from __future__ import annotations

import math

import pytest
import torch
from margins import Margin
from scipy import stats

from rushlight.core.catalogue import load_method
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import scenes
from rushlight.methods.evaluate.dataset_diversity.method import CONTRASTS, EPOCHS, DatasetDiversity
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Findings, RunContext
from rushlight.tasks import scores

SMALL = {"learner": "simclr(batch=16)", "passes": 160, "tuning": 60, "seeds": 2, "pyramid": 8, "segment": 8}


def two_cities(n: int = 96) -> Dataset:
    """Scenes of two looks, day and night; the masks of two thirds of the nights are known, a third of these for the
    test."""
    day, night = (scenes.compose(n, size=32, objects=(1, 2), classes=["bag", "shirt"], seed=i, domain=i)
                  for i in range(2))  # fmt: skip
    columns = {name: torch.cat([day[name], night[name]]) for name in ("image", "mask", "class", "domain", "fold")}
    data = Dataset(columns, day.info)
    rows = torch.arange(2 * n)
    data = data.hide(rows < n + n // 3, ["mask", "class"])
    fold = torch.where(rows >= 2 * n - n // 4, TEST, 0).to(torch.int8)
    return data.with_columns(fold=fold)


def start(data: Dataset) -> Model:
    encoder = encoders.create("conv16", image_size=32, seed=0)
    return Model(encoder, {}, ModelInfo.of(data.info, (32, 32), "mask"))


def study(data: Dataset, task: str = "mask", **arguments: object) -> Findings:
    return DatasetDiversity(**{**SMALL, **arguments}).judge(start(data), data, RunContext(task=task))


def column(found: Findings, cell: str, what: str) -> list:
    runs = found.table("runs")
    return [value for name, value in zip(runs["cell"], runs[what], strict=True) if name == cell]


@pytest.fixture(scope="module")
def found() -> Findings:
    data = two_cities()
    return study(data, cells=["start", "target", "few of all", "all", "few of others", f"target{EPOCHS}", "foreign"],
                 foreign=data.select(torch.arange(20)))  # fmt: skip


def test_pools_of_every_size_get_the_same_steps(found: Findings) -> None:
    assert column(found, "target", "images") == [72, 72]
    assert column(found, "few of all", "images") == column(found, "few of others", "images") == [72, 72]
    assert column(found, "all", "images") == [168, 168]
    assert column(found, "foreign", "images") == [20, 20]
    steps = {cell: column(found, cell, "steps") for cell in ("target", "few of all", "few of others", "all", "foreign")}
    assert len({tuple(each) for each in steps.values()}) == 1
    assert steps["all"][0] > 3
    assert column(found, "start", "steps") == [0, 0]


def test_equal_epochs_give_the_smaller_pool_fewer_steps(found: Findings) -> None:
    """72 of 168 images: so many steps that both see each image equally often."""
    wanted = column(found, "all", "passes")[0] * 72 / 168
    step = column(found, "all", "passes")[0] / column(found, "all", "steps")[0]
    assert column(found, f"target{EPOCHS}", "passes")[0] == pytest.approx(wanted, abs=step)


def test_gains_are_relative_and_paired_by_seed(found: Findings) -> None:
    shown = {(a, b) for a, b, _ in CONTRASTS}
    gains = found.table("gains")
    assert set(zip(gains["of"], gains["over"], strict=True)) == shown
    for a, b in shown:
        pairs = list(zip(column(found, a, "Dice"), column(found, b, "Dice"), strict=True))
        ratios = [(x - y) / y for x, y in pairs]
        assert found.numbers[f"{a} over {b}"] == pytest.approx(sum(ratios) / 2)
        low, high = stats.t.interval(0.95, 1, sum(ratios) / 2, stats.sem(ratios))
        assert found.measure(f"{a} over {b}").low == pytest.approx(low)
        assert found.measure(f"{a} over {b}").high == pytest.approx(high)
    assert any("More varied images, as many (few of all over target)" in note for note in found.notes)


def test_the_dice_of_each_class_stands_beside_the_mean(found: Findings) -> None:
    table = found.table("classes")
    assert table["class"] == ["background", "bag", "shirt"]
    assert sum(table["all"]) / 3 == pytest.approx(found.numbers["all: Dice"])


def test_without_a_step_every_pool_gives_the_same_numbers() -> None:
    found = study(two_cities(), passes=0, cells=["start", "target", "few of all", "all"], seeds=1)
    values = {value for cell in ("start", "target", "few of all", "all") for value in column(found, cell, "Dice")}
    assert len(values) == 1
    assert found.numbers["all over target"] == 0
    assert math.isnan(found.measure("all over target").low)
    assert any("one seed" in note for note in found.notes)


@pytest.mark.slow
def test_more_training_of_masks_learns_them(margin: Margin) -> None:
    """The head and the fine-tuning learn: far above a model that was trained for one step."""
    data = two_cities(150)
    found = study(data, cells=["start"], tuning=6000, seeds=1, pyramid=16, segment=16)
    one = study(data, cells=["start"], tuning=1, seeds=1, pyramid=16, segment=16)
    margin("gain in Dice", found.numbers["start: Dice"] - one.numbers["start: Dice"], 0.15)


def test_classes_are_asked_by_accuracy_on_a_held_out_quarter() -> None:
    data = two_cities()
    data = data.with_columns(fold=torch.zeros_like(data["fold"]))
    found = study(data, task="class", cells=["start", "all"], seeds=1, labels=10)
    assert 0 <= found.numbers["all: accuracy"] <= 1
    assert "10 labelled images, 16 test images" in found.notes[-1]
    assert "Intervals cover seeds, not the choice of test images." in found.notes[-1]
    assert "classes" not in [table.name for table in found.tables]


@pytest.mark.parametrize("classes", [2, 5])
def test_dice_is_twice_the_overlap_over_both_sizes(classes: int) -> None:
    """Beside plain loops over pixels; a class that occurs nowhere has none, and 255 does not count."""
    generator = torch.Generator().manual_seed(classes)
    true = torch.randint(classes - 1, (3, 6, 7), generator=generator).to(torch.uint8)
    said = torch.randint(classes - 1, (3, 6, 7), generator=generator)
    true[0, :3] = 255
    values = scores.dice(scores.confusion(said, true, classes).sum(0))
    for c in range(classes):
        tp = fp = fn = 0
        for t, s in zip(true.flatten().tolist(), said.flatten().tolist(), strict=True):
            tp += t == c and s == c
            fp += t not in (c, 255) and s == c
            fn += t == c and s != c
        if tp + fp + fn:
            assert float(values[c]) == pytest.approx(2 * tp / (2 * tp + fp + fn))
        else:
            assert math.isnan(float(values[c]))


def test_what_is_wrong_is_said(photos: Dataset) -> None:
    with pytest.raises(UserError, match="Did you mean 'few of all'"):
        DatasetDiversity(**SMALL, cells=["few of al"])
    with pytest.raises(UserError, match="needs a pool"):
        DatasetDiversity(**SMALL, cells=["foreign"])
    with pytest.raises(UserError, match="column 'domain'"):
        study(photos, task="class")
    data = two_cities()
    with pytest.raises(UserError, match="none is known"):
        study(data.hide(names=["mask", "class"]))
    with pytest.raises(UserError, match="no-such-learner"):
        DatasetDiversity(**{**SMALL, "learner": "no-such-learner"})


def test_an_audit_does_not_run_it_unasked() -> None:
    assert load_method("dataset-diversity") is DatasetDiversity
    assert not DatasetDiversity.audits
