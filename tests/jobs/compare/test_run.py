from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsspec.core import url_to_fs
from margins import Margin

import rushlight
from rushlight import tasks
from rushlight.api import replay
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion
from rushlight.jobs.compare import run as comparing
from rushlight.jobs.compare.run import automatic, compare
from rushlight.methods.baseline.supervised import Supervised
from rushlight.methods.curate.pass_.method import Pass
from rushlight.run import trial
from rushlight.run.evaluate import evaluate
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


@pytest.mark.parametrize("task", tasks.names())
def test_every_task_is_ranked_by_its_own_metric(task: str, tmp_path: Path) -> None:
    """What is ranked is what the trial's own model scores on the test images."""
    found = tasks.find(task)
    data = found.example()
    board = compare(data, ["supervised"], task=task, budget="100", seeds=2, encoder="conv16", out=tmp_path, workers=0)
    assert board.task == task
    results = [result for result in board.results if result.trial.recipe == "supervised"]
    assert len(results) == 2
    for result in results:
        model = rushlight.Model.load(Store(board.out).model_path(result.trial.key))
        assert result.value == pytest.approx(evaluate(model, data.fold(TEST), task).value, abs=1e-6)
    value = np.mean([result.value for result in results])
    assert board.ranking.alone["supervised"].mean == pytest.approx(value, abs=1e-6)


def test_a_recipe_that_fails_does_not_stop_the_others(photos: Dataset, tmp_path: Path) -> None:
    recipes = ["supervised(learning_rate=1e30)", "supervised"]
    board = compare(photos, recipes, budget="600", seeds=2, out=tmp_path, workers=0)
    assert set(board.ranking.names) == {"supervised", "fixmatch"}
    broken = [result for result in board.failed if "1e+30" in result.trial.recipe]
    assert len(broken) == 2
    assert "rushlight replay" in broken[0].failed
    file = broken[0].failed.rsplit(" ", 1)[1]
    step = json.loads(Path(file).read_text())["step"]
    assert f"the loss of step {step} is not finite" in broken[0].failed
    assert re.match(rf"step {step} \(first rows .*\): loss (nan|inf);", replay(file))


@pytest.fixture
def few(photos: Dataset) -> Dataset:
    return photos.select(photos.known("class"))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_comparison_is_kept_elsewhere_and_goes_on_from_there(
    kind: str, few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rushlight.run.store.user_cache_path", lambda name: tmp_path / "mirror")
    out = {"memory": "memory://runs/compared", "file": f"file://{tmp_path}/elsewhere"}[kind]
    settings = {"budget": "200", "seeds": 2, "out": out, "workers": 0}
    board = rushlight.compare(few, ["supervised"], **settings)
    files, root = url_to_fs(out)
    there = {str(path).removeprefix(root).lstrip("/") for path in files.find(root)}
    keys = [result.trial.key for result in board.results]
    assert {"report.html", "leaderboard.json"} <= there
    assert {f"trials/{key}.{ending}" for key in keys for ending in ("safetensors", "json")} <= there
    assert {f"models/{key}/model.safetensors" for key in keys} <= there
    assert not [path for path in there if path.endswith("partial")]
    (tmp_path / "mirror").rename(tmp_path / "another machine's")
    monkeypatch.setattr(comparing.WorkerPool, "map", lambda *_, **__: pytest.fail("a finished trial was run again"))
    again = rushlight.compare(few, ["supervised"], **settings)
    assert [result.value for result in again.results] == [result.value for result in board.results]
    assert again.best_model().info == board.best_model().info
    assert f"--out {out}" in again.command


def test_a_batch_that_memory_halved_is_in_the_record(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Supervised.step

    def crowded(self: Supervised, batch: Any) -> torch.Tensor:
        if "batch" in self.explicit and len(batch["labelled"]) > 8:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return step(self, batch)

    monkeypatch.setattr(Supervised, "step", crowded)
    recipe, said = "supervised(batch=16)", "out of memory with a batch of 16; trained with 8"
    with pytest.warns(UserWarning, match=said):
        board = rushlight.compare(few, [recipe, f"pass > {recipe}"], budget="200", seeds=2, out=tmp_path, workers=0)
    for result in board.results:
        if result.trial.recipe != "supervised":
            assert said in result.notes[0]
            assert trial.load(result.trial.key, board.store).notes == result.notes
            assert rushlight.Model.load(board.store.model_path(result.trial.key)).info.notes == result.notes
    lines = [part for part in board.parts() if isinstance(part, str) and part.startswith("note: ")]
    assert any(line.startswith(f"note: {recipe}, seeds 0, 1: supervised: {said}") for line in lines)
    assert said in (board.out / "report.html").read_text()


def test_a_curator_that_recipes_begin_with_chooses_once_a_seed(
    photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the trials are those that they are where each chooses for itself."""
    ran, run = [], Pass.run

    def counted(self: Pass, *arguments: Any) -> Any:
        ran.append(1)
        return run(self, *arguments)

    monkeypatch.setattr(Pass, "run", counted)
    recipes = ["pass(flat=60.0) > supervised", "pass(flat=60.0) > fixmatch"]
    board = compare(photos, recipes, budget="200", seeds=2, out=tmp_path / "out", workers=0)
    assert len(ran) == 2
    for result in (result for result in board.results if ">" in result.trial.recipe):
        alone = trial.run(result.trial, photos, Store(tmp_path / "alone" / result.trial.key))
        assert alone.value == result.value
        assert all(torch.equal(alone.parts[name], values) for name, values in result.parts.items())


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
    spec = trial.Trial(recipe="supervised", seed=0, budget="1", data="", task="class", weights=str(weights))
    before = spec.key
    assert spec.key == before
    weights.write_bytes(b"other")
    assert spec.key != before
    moved = tmp_path / "moved.safetensors"
    weights.rename(moved)
    assert trial.Trial(recipe="supervised", seed=0, budget="1", data="", task="class", weights=str(moved)).key != before


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
