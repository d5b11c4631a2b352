"""Further scores have the statistics of the main one, and a trial's units are computed once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rushlight import tasks
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.jobs.compare import rank as ranking
from rushlight.jobs.compare.page import comparison_report
from rushlight.jobs.compare.rank import beside, rank
from rushlight.jobs.compare.result import so_far
from rushlight.jobs.compare.run import compare
from rushlight.jobs.look.run import look
from rushlight.jobs.trials import ComparisonState
from rushlight.measure import stats
from rushlight.measure.units import units
from rushlight.present.page import render
from rushlight.run import trial
from rushlight.run.store import Store


@pytest.fixture(scope="module")
def clothes() -> Dataset:
    """300 photos of clothes to learn from and 120 to judge."""
    return fashion.load().select(torch.cat([torch.arange(300), 12_000 + torch.arange(120)]))


@pytest.fixture(scope="module")
def opened(clothes: Dataset) -> Dataset:
    """The same with two classes that are unseen in training."""
    return hide.open_set(clothes, [8, 9])


@pytest.fixture(scope="module")
def board(opened: Dataset, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("open")
    return compare(opened, ["supervised"], budget="600", seeds=2, out=out, encoder="conv16", workers=0, test_share=0.25)


def test_a_test_set_with_unseen_classes_shows_open_set_scores(board) -> None:
    table = board.beside()
    names = [column.name for column in table.columns if column.low]
    assert names == ["AUROC of rejection", "unseen recall at 95% seen recall", "open-set balanced accuracy"]
    for name in names:
        assert table["recipe"] == list(board.ranking.names)
        for mean, low, high in zip(table[name], table[f"{name}, low"], table[f"{name}, high"], strict=True):
            assert 0 <= low <= mean <= high <= 1
    assert set(names) <= set(board.to_pandas().columns)
    assert all(name in render(comparison_report(board)) for name in names)
    assert "AUROC of rejection" in board._repr_html_()


def test_further_scores_are_kept_with_the_trial(board) -> None:
    task = tasks.find(board.task)
    for result in board.results:
        record, parts, _ = Store(board.out).get(result.trial.key)
        assert record["beside"] == {m.name: task.value(parts, m) for m in task.compared(parts)} != {}
        assert trial.load(result.trial.key, Store(board.out)).beside == result.beside
        assert record["inference_flops"] == result.inference_flops > 0
    content = json.loads((board.out / "leaderboard.json").read_text())
    assert content["rows"][0]["AUROC of rejection"] == board.rows()[0]["AUROC of rejection"]


def test_further_scores_have_the_statistics_of_the_main_one(board) -> None:
    task, name = tasks.find(board.task), "AUROC of rejection"
    metric = next(metric for metric in task.also if metric.name == name)
    for recipe in board.ranking.names:
        rows = np.stack([units(task, result.parts, metric) for result in board.of(recipe)])
        found = beside(board.results, board.task)[name][recipe]
        assert found == stats.single(rows, bounds=(0.0, 1.0))
        assert found.mean == pytest.approx(np.mean([result.beside[name] for result in board.of(recipe)]))


def test_classes_of_the_test_fold_alone_are_unseen(clothes: Dataset, tmp_path: Path) -> None:
    tested = clothes["fold"] == TEST
    ours = clothes.hide((clothes["class"] >= 8) & ~tested, ["class"])
    settings = {"budget": "60", "seeds": 1, "out": tmp_path, "encoder": "conv16", "workers": 0}
    board = compare(ours, ["supervised"], **settings)
    assert board.beside() is not None
    assert board.best_model().info.class_names == clothes.info.class_names[:8]
    assert any("unseen in training" in line and clothes.info.class_names[8] in line for line in board.choices)
    assert any(clothes.info.class_names[8] in line and "no training label" in line for line in look(ours).warnings)


def test_without_unseen_classes_there_are_none(clothes: Dataset, tmp_path: Path) -> None:
    board = compare(clothes, ["supervised"], budget="200", seeds=1, out=tmp_path, encoder="conv16", workers=0)
    assert board.beside() is None
    assert board.results[0].beside == {}


def test_a_single_unseen_image_has_no_interval(board) -> None:
    """Without its block the score is not defined: the mean is shown alone."""
    parts = {name: values.clone() for name, values in board.results[0].parts.items()}
    unseen = parts["unseen"].bool()
    kept = ~unseen | (unseen.cumsum(0) == 1)
    parts = {name: values[kept] for name, values in parts.items()}
    lone = [replace(r, parts=parts, beside={"AUROC of rejection": 0.5}) for r in board.of("supervised")]
    found = beside(lone, board.task)["AUROC of rejection"]["supervised"]
    assert found.mean == 0.5
    assert np.isnan([found.low, found.high]).all()


def test_live_updates_compute_a_trials_units_once(board, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(ranking, "units", lambda *a, **k: counted.append(1) or units(*a, **k))
    results = [replace(result) for result in board.results]
    state = ComparisonState([r.trial for r in results], results, {}, 0.0)
    tables = [so_far(state) for _ in range(3)]
    assert tables[0] is not None
    assert tables[0] == tables[2]
    assert len(counted) == len(results)


def test_the_interval_of_a_bounded_metric_stays_inside(monkeypatch: pytest.MonkeyPatch, board) -> None:
    monkeypatch.setattr(ranking, "units", lambda *a, **k: np.array([-0.4, -0.3, 0.9, -0.1, 0.0]))
    found = rank([replace(result) for result in board.results], board.task)
    assert all(0 <= i.low <= i.mean <= i.high <= 1 for i in found.alone.values())
