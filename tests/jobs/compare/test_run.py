from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from margins import Margin

import rushlight
from rushlight.api import replay
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion
from rushlight.jobs.compare import run as comparing
from rushlight.jobs.compare.run import automatic, compare
from rushlight.run import trial
from rushlight.run.store import Store


@pytest.fixture(scope="module")
def board(photos: Dataset, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("board")
    return rushlight.compare(photos, ["supervised(learning_rate=1e-8)"], budget="1500", seeds=3, out=out, workers=2)


def test_the_better_recipe_leads_and_the_report_is_there(board, margin: Margin) -> None:
    """A learning rate of nothing learns nothing: the comparison must see it."""
    gain = board.ranking.gains["supervised(learning_rate=1e-08)"]
    margin("upper end of the gain", gain.high, 0.0, below=True)
    assert board.best in ("supervised", "fixmatch")
    assert board.ranking.names[-1] == "supervised(learning_rate=1e-08)"
    assert board.ranking.names[-1] not in board.ranking.best
    page = (board.out / "report.html").read_text()
    assert "supervised(learning_rate=1e-08)" in page.replace("\u200b", "").replace("<wbr>", "")


def test_the_board_shows_itself(board) -> None:
    from rich.console import Console

    table = board.to_pandas()
    assert list(table["recipe"]) == list(board.ranking.names)
    assert (table["seeds"] == 3).all()
    assert ((table["passes"] > 1300) & (table["passes"] <= 1500)).all()
    assert board.verdict.split(".")[0].replace("&", "&amp;") in board._repr_html_()
    console = Console(width=150, record=True)
    console.print(board)
    assert "supervised" in console.export_text()


def test_the_values_are_those_of_the_models_it_hands_out(board, photos: Dataset) -> None:
    test = photos.fold(TEST)
    for result in board.results:
        model = rushlight.Model.load(Store(board.out).model_path(result.trial.key))
        accuracy = (model.predict(test["image"])["class"].argmax(1) == test["class"]).double().mean()
        assert result.value == pytest.approx(float(accuracy))
    assert board.best_model().info.recipe == board.best


def test_seeds_are_paired(board, photos: Dataset) -> None:
    """A seed gives every recipe the same labels and the same initial weights; another seed gives others."""
    by_seed: dict[int, list[trial.Trial]] = {}
    for result in board.results:
        by_seed.setdefault(result.trial.seed, []).append(result.trial)
    known = {}
    for seed, trials in by_seed.items():
        starts = [trial.initial(t, photos).state_dict() for t in trials]
        assert all(torch.equal(starts[0][k], start[k]) for start in starts for k in start)
        known[seed] = starts[0]["encoders.image.stages.0.0.0.weight"]
    assert not torch.equal(known[0], known[1])


def test_the_same_comparison_runs_nothing_again(board, photos: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **settings: object) -> None:
        raise AssertionError("a finished trial was run again")

    monkeypatch.setattr(comparing.WorkerPool, "map", never)
    again = compare(photos, ["supervised(learning_rate=1e-8)"], budget="1500", seeds=3, out=board.out)
    assert again.ranking.names == board.ranking.names
    with pytest.raises(AssertionError, match="run again"):
        compare(photos, ["supervised(learning_rate=1e-8)"], budget="1501", seeds=3, out=board.out)


def test_methods_that_fit_are_found(photos: Dataset, scenes: Dataset) -> None:
    found = automatic(photos.fold(0), "class")
    assert found[:2] == ["supervised", "fixmatch"]
    assert {"iomatch", "barlow-twins > supervised", "barlow-twins > iomatch"} <= set(found)
    assert "cw-bass" not in found
    assert {"supervised", "cw-bass"} <= set(automatic(scenes, "mask"))
    assert {"supervised", "pu-mlc"} <= set(automatic(scenes, "tags"))
    labelled = photos.select(photos.known("class"))
    assert "fixmatch" not in automatic(labelled, "class")


@pytest.mark.parametrize("task", ["tags", "mask"])
def test_other_tasks_are_ranked_too(task: str, tmp_path: Path) -> None:
    from rushlight.data.synthetic import scenes

    data = scenes.compose(120, size=32, seed=1)
    unknown = torch.arange(120) >= 60
    board = compare(
        data.hide(unknown, ["mask"]), ["supervised"], task=task, budget="300", seeds=2, out=tmp_path, workers=0
    )
    assert board.task == task
    assert 0 <= board.ranking.alone["supervised"].mean <= 1
    value = np.mean([result.value for result in board.results])
    assert board.ranking.alone["supervised"].mean == pytest.approx(value, abs=0.05)


def test_a_recipe_that_fails_does_not_stop_the_others(photos: Dataset, tmp_path: Path) -> None:
    recipes = ["supervised(learning_rate=1e30)", "supervised"]
    board = compare(photos, recipes, budget="600", seeds=2, out=tmp_path, workers=0)
    assert set(board.ranking.names) == {"supervised", "fixmatch"}
    broken = [result for result in board.failed if "1e+30" in result.trial.recipe]
    assert len(broken) == 2
    assert "rushlight replay" in broken[0].failed
    file = broken[0].failed.rsplit(" ", 1)[1]
    assert "step" in replay(file)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seeds": 0}, "--seeds is 0"),
        ({"budget": "0"}, "zero"),
        ({"task": "mask"}, "no 'mask' is known"),
        ({"encoder": "resnett18"}, "Did you mean 'resnet18'"),
        ({"keep": 1000}, "has only"),
        ({"device": "tpu"}, "not on this machine"),
    ],
)
def test_bad_settings_are_said(settings: dict, said: str, photos: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        compare(photos, ["supervised"], out=tmp_path, workers=0, **{"budget": "300", "seeds": 1, **settings})


def test_other_weights_in_the_same_file_are_another_trial(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"one")
    spec = trial.Trial(recipe="supervised", seed=0, budget="1", data="", weights=str(weights))
    before = spec.key
    assert spec.key == before
    weights.write_bytes(b"other")
    assert spec.key != before
    moved = tmp_path / "moved.safetensors"
    weights.rename(moved)
    assert trial.Trial(recipe="supervised", seed=0, budget="1", data="", weights=str(moved)).key != before


def test_the_images_that_are_counted_as_tested_are_labelled() -> None:
    """Groups bring unlabelled images into the test fold: they judge nothing."""
    photos = fashion.load().select(torch.arange(80))
    grouped = photos.with_columns(group=torch.arange(80) // 4).hide(torch.arange(80) % 2 == 1, ["class"])
    data, (said,) = comparing._with_test(grouped, "class", 0.25)
    test = data.fold(TEST)
    n = int(test.known("class").sum())
    assert n < len(test)
    assert said.startswith(f"tested on {n} labelled images ({n / 40:.0%} of 40)")


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("", "--methods names no recipe"),
        ("barlow-twins", "'barlow-twins' ends without a head for 'class': .* 'barlow-twins > supervised'"),
        ("relabel > barlow-twins", "ends without a head"),
    ],
)
def test_recipes_that_cannot_be_compared_are_refused_before_any_runs(
    methods: str, said: str, photos: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        compare(photos, methods, out=tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_one_seed_on_one_test_image_is_refused_before_the_training(photos: Dataset, tmp_path: Path) -> None:
    first = (photos["fold"] == TEST).nonzero()[0, 0]
    data = photos.hide((photos["fold"] == TEST) & (torch.arange(len(photos)) != first), ["class"])
    with pytest.raises(UserError, match="tells nothing"):
        compare(data, "supervised", seeds=1, out=tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_baselines_that_were_added_are_told(photos: Dataset) -> None:
    assert comparing._recipes("iomatch, supervised", photos, "class", None) == (
        ["supervised", "fixmatch", "iomatch"],
        ["fixmatch"],
    )
