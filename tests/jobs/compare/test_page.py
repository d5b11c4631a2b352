"""The page about a comparison says what the board says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rushlight.data.columns import TEST
from rushlight.jobs.compare.page import comparison_report
from rushlight.jobs.compare.rank import rank
from rushlight.measure import stats
from rushlight.present.page import Gallery, Listing, Notice, Plot, Table, render


def section(report, title):
    return next(s for s in report.sections if s.title == title)


def test_the_page_holds_what_the_issue_asks(board):
    report = comparison_report(board)
    page = render(report)
    for text in ("2 files left out", "IMG_0042.jpg", "the file ends early", "--budget 130k --seeds 4", "2.6 T"):
        assert text in page
    assert torch.__version__.partition("+")[0] in page
    assert report.verdict.replace("\u00a0", " ").replace("\u2011", "-") == board.verdict
    assert [s.title for s in report.sections if not s.blocks] == []
    assert len(page) < 400_000


def test_the_leaderboard_is_the_rankings(board):
    table = section(comparison_report(board), "Leaderboard").blocks[0]
    assert [row[0].name for row in table.rows] == list(board.ranking.names)
    assert [row[1] for row in table.rows] == [f"{100 * board.ranking.alone[n].mean:.1f}" for n in board.ranking.names]
    assert [table.rows[i][0].name for i in table.lead] == list(board.ranking.best)


def test_differences_say_what_their_intervals_show(board):
    tables = section(comparison_report(board), "Paired differences").blocks
    said = {row[0].name: row[-1] for row in tables[0].rows}
    for name, gain in board.ranking.gains.items():
        assert said[name] == ("better" if gain.low > 0 else "worse" if gain.high < 0 else "no difference")


def test_mistakes_are_mistakes_the_surest_first(board):
    gallery = next(
        b
        for b in section(comparison_report(board), "What the model to ship gets wrong").blocks
        if isinstance(b, Gallery)
    )
    parts = board.best_trial().parts
    wrong = parts["predicted"] != parts["true"]
    assert 0 < len(gallery.thumbs) <= int(wrong.sum())
    surest = float(parts["confidence"][wrong].max())
    assert f"{100 * surest:.0f} %" in gallery.thumbs[0].lines[0]
    assert all(a.lines[0].split(",")[0] != a.lines[1].removeprefix("is ") for a in gallery.thumbs)


def test_hostile_class_and_file_names_stay_text(board):
    names = tuple(f"<img src=x onerror=alert({i})>" for i in range(10))
    files = ["<script>x</script>.png"] * len(board.data)
    from rushlight.data.columns import encode_text

    hostile = board.data.with_columns(name=encode_text(files)).with_info(
        class_names=names, source="<script>alert(2)</script>"
    )
    page = render(comparison_report(replace(board, data=hostile, command="rushlight '<script>'")))
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(2)" in page


def test_a_failed_trial_is_told(board):
    bad = replace(board.results[0], value=float("nan"), parts={}, failed="out of memory in <seed 0>")
    page = comparison_report(replace(board, results=[bad, *board.results[1:]]))
    notices = [b for b in section(page, "Leaderboard").blocks if isinstance(b, Notice)]
    assert "out of memory" in notices[0].text


def test_a_recipe_that_failed_on_a_seed_stands_last_and_its_seed_counts_for_the_others(board):
    bad = replace(board.results[0], value=float("nan"), parts={}, failed="out of memory")
    results = [bad, *board.results[1:]]
    ranking = rank(results, "class", reference="supervised")
    failing = replace(board, results=results, ranking=ranking)
    assert "supervised" not in ranking.names
    assert failing.unranked == ["supervised"]
    assert [row["seeds"] for row in failing.rows()] == [4, 4, 4, 4, 3]
    assert ranking.alone["fixmatch"] == board.ranking.alone["fixmatch"]  # all four seeds, as before
    table = section(comparison_report(failing), "Leaderboard").blocks[0]
    assert (table.rows[-1][0].name, table.rows[-1][0].badge) == ("supervised", "failed")
    assert failing.to_pandas()["recipe"].tolist()[-1] == "supervised"


def test_one_recipe_alone(board):
    results = [r for r in board.results if r.trial.recipe == "supervised"]
    matrices = {
        "supervised": np.stack([(r.parts["predicted"] == r.parts["true"]).numpy().astype(float) for r in results])
    }
    alone = replace(board, results=results, ranking=stats.compare_with_best(matrices, reference="supervised"))
    page = render(comparison_report(alone))
    assert "ran alone" in page
    assert "Paired differences" not in page


@pytest.mark.parametrize("task", ["tags", "mask"])
def test_other_tasks_have_their_own_mistakes(board, task):
    n = len(board.data.fold(TEST))
    column = {
        "tags": torch.randint(0, 2, (len(board.data), 3), dtype=torch.int8),
        "mask": torch.zeros(len(board.data), 32, 32, dtype=torch.uint8),
    }[task]
    data = board.data.with_columns(**{task: column}).with_info(tag_names=("a", "b", "<c>"), mask_names=("bg", "fg"))
    parts = {
        "tags": {"scores": torch.rand(n, 3), "true": torch.randint(0, 2, (n, 3), dtype=torch.int8)},
        "mask": {"confusion": torch.randint(1, 50, (n, 2, 2))},
    }[task]
    results = [replace(r, parts=parts, trial=replace(r.trial, task=task)) for r in board.results]
    report = comparison_report(replace(board, task=task, data=data, results=results))
    blocks = section(report, "What the model to ship gets wrong").blocks
    assert any(isinstance(block, Table) for block in blocks)
    assert any(isinstance(block, Plot) for block in blocks) == (task == "mask")
    assert board.metric not in render(report).split("<main>")[1].split("Paired")[0] or task == "class"


def test_nothing_left_out_is_said(board):
    page = comparison_report(replace(board, data=board.data.with_info(quarantined=())))
    assert not any(isinstance(b, Listing) for b in section(page, "Data").blocks)
    assert "No file was left out" in render(page)


def test_the_split_counts_the_images_that_judge(board) -> None:
    test = board.data["fold"] == TEST
    hidden = test & (torch.arange(len(test)) % 2 == 0)
    less = replace(board, data=board.data.hide(hidden, ["class"]))
    n = int((test & ~hidden).sum())
    assert f"images to learn from, {n} labelled ones to judge" in render(comparison_report(less))
