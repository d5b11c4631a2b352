"""The backbone benchmark: what it asks of whom, and that a trained backbone beats an untrained one."""

from __future__ import annotations

import math

import pytest
import torch
from margins import Margin

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion, scenes
from rushlight.measure import linear
from rushlight.methods.evaluate.backbones import benchmark
from rushlight.methods.evaluate.backbones.benchmark import Net
from rushlight.methods.evaluate.backbones.method import Backbones
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Progress, RunContext

QUICK = {"images": 160, "scenes": 20, "steps": 6, "rates": (3e-3,)}


def model_of(name: str = "conv16", size: int = 28, recipe: str = "") -> Model:
    return Model(
        encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size), recipe=recipe)
    ).eval()


@pytest.fixture(scope="module")
def trained() -> Model:
    """conv16 after 6,000 supervised passes."""
    data = fashion.load().fold(0).select(torch.arange(2000))
    return Recipe.parse("supervised").run(data, model_of(), RunContext(budget=Budget(passes=6000))).model.eval()


@pytest.fixture(scope="module")
def others() -> Dataset:
    """Photos of the other five classes, with both folds."""
    photos = fashion.load()
    rows = (photos["class"] >= 5).nonzero().squeeze(1)
    rows = torch.cat([rows[:400], rows[-200:]])
    return photos.select(rows)


@pytest.mark.slow
def test_a_trained_backbone_leads_its_untrained_self_on_its_own_classes(trained: Model, margin: Margin) -> None:
    """By 31 points in neighbours and in retrieval, of which a third is asked for here."""
    photos = fashion.load().select(torch.cat([torch.arange(2000, 2400), torch.arange(12_000, 12_200)]))
    heard: list[Progress] = []
    judge = Backbones(**QUICK, tasks=("neighbours", "linear", "retrieval", "shift"))
    found = judge.judge(trained, photos, RunContext(on_progress=heard.append))
    gains = {name: value for name, value in found.numbers.items() if name.endswith("gain over untrained")}
    assert len(gains) == 6
    for task in ("neighbours", "retrieval"):
        margin(f"{task}, gain over untrained", gains[f"{task}, gain over untrained"], 0.1)
    names = ["conv16", "untrained conv16", "image statistics", "RCF", "MOSAIKS"]
    assert found.table("scores")["backbone"] == names
    assert sorted(found.table("ranking")["backbone"]) == sorted(names)
    apples = found.table("same architecture").dicts()
    assert [(row["architecture"], row["pretraining"]) for row in apples] == [("conv16", "supervised")]
    z = dict(zip(found.table("ranking")["backbone"], found.table("ranking")["mean z"], strict=True))
    assert apples[0]["lead in z"] == pytest.approx(z["conv16"] - z["untrained conv16"])
    assert found.numbers["mean z"] == pytest.approx(z["conv16"])
    assert heard[-1].done <= 1
    assert any("linear" in progress.stage for progress in heard)


def test_every_task_gives_a_score_and_dense_ones_to_networks_alone(others: Dataset) -> None:
    judge = Backbones(**QUICK, tasks=tuple(benchmark.GROUPS), tuning_steps=6)
    found = judge.judge_all({"small": model_of("vit64")}, others)
    scores = {row["backbone"]: row for row in found.table("scores").dicts()}
    dense = {"scene segmentation", "scene detection", "fine-tune"}
    assert dense | {"neighbours", "linear", "few-label", "retrieval"} < set(scores["small"])
    assert all(0 <= value <= 1 for name, value in scores["small"].items() if name != "backbone")
    assert {name for name, value in scores["RCF"].items() if value != value} == dense
    assert "same architecture" not in [table.name for table in found.tables]  # nothing here was trained
    assert found.table("backbones")["pretraining"] == ["untrained"]


@pytest.mark.slow
def test_masks_boxes_and_tags_of_the_data_are_asked_about_too() -> None:
    data = scenes.compose(60, size=32, seed=0, objects=(1, 2)).without("class")
    judge = Backbones(**QUICK, tasks=("neighbours", "segmentation", "detection", "few-label", "retrieval", "shift"))
    found = judge.judge(model_of(size=32), data, RunContext(task="tags"))
    named = {"neighbours of tags", "segmentation", "detection", "few-label of tags", "retrieval of tags"}
    assert named <= set(found.numbers)
    assert "shift by blur of tags" in found.numbers
    bare = Backbones(tasks=("linear",))
    with pytest.raises(UserError, match="no task of linear fits"):
        bare.judge(model_of(), fashion.load().select(torch.arange(20)).without("class"))


def test_without_labels_scenes_still_tell_backbones_apart() -> None:
    bare = fashion.load().select(torch.arange(20)).without("class")
    found = Backbones(**QUICK).judge(model_of(), bare)
    columns = {column.name for column in found.table("scores").columns}
    assert columns == {"backbone", "scene segmentation", "scene detection"}
    one_class = bare.with_columns(**{"class": torch.zeros(20, dtype=torch.long)})
    assert Backbones().course.parts(one_class, 0) == []


def test_seeds_are_averaged_and_repeat(others: Dataset) -> None:
    one, two, both = (Backbones(**QUICK, tasks=("linear",), seeds=n) for n in (1, 1, 2))
    first = one.judge(model_of(), others).numbers["linear"]
    second = two.judge(model_of(), others, RunContext(seed=1)).numbers["linear"]
    mean = both.judge(model_of(), others).numbers["linear"]
    assert mean == pytest.approx((first + second) / 2, abs=1e-6)
    assert first == one.judge(model_of(), others).numbers["linear"]


@pytest.mark.slow
def test_corrupted_images_are_scored_by_the_probe_of_clean_ones(
    trained: Model, others: Dataset, margin: Margin
) -> None:
    part, net = benchmark.parts(others, "class", 300, 0), Net(trained)
    ask = benchmark.linear_score(net, part)
    clean = linear.accuracy(net.features(part.train["image"]), part.labels,
                                  net.features(part.test["image"]), part.true)  # fmt: skip
    assert ask(part.test["image"]) == pytest.approx(clean)
    hard = benchmark.shifted(ask, part.test["image"], severity=5, seed=0)
    assert set(hard) == {"blur", "noise", "contrast"}
    margin("accuracy lost by the worst corruption", clean - min(hard.values()), 0.0)


def test_kinds_of_pretraining(others: Dataset) -> None:
    models = {
        "a": model_of(recipe="supervised"),
        "b": model_of(recipe="barlow-twins(batch=64)"),
        "c": model_of(recipe="barlow-twins > supervised"),
        "d": model_of(recipe="timm's weights a1_in1k"),
    }
    found = Backbones(**QUICK, tasks=("neighbours",)).judge_all(models, others)
    kinds = dict(zip(found.table("ranking")["backbone"], found.table("ranking")["pretraining"], strict=True))
    assert [kinds[name] for name in "abcd"] == ["supervised", "self-supervised", "supervised", "timm's weights a1_in1k"]
    assert kinds["untrained conv16"] == "untrained"
    assert kinds["RCF"] == "none"
    small = dict(zip(found.table("ranking")["backbone"], found.table("ranking")["rank among small"], strict=True))
    assert math.isnan(small["RCF"])
    assert sorted(small[name] for name in (*"abcd", "untrained conv16")) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"tasks": ("liner",)}, "Did you mean 'linear'"), ({"tasks": ()}, "at least one")],
)
def test_what_it_cannot_run_is_said(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Backbones(**settings)
    with pytest.raises(UserError, match="--models"):
        Backbones().judge_all({}, fashion.load())
