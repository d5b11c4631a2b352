"""Comparing without labels: no label is read, trials are kept, the order is by signals, and trust is the ledger's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rushlight.api import replay
from rushlight.cli import app
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.jobs.rank_encoders import run as unlabelled
from rushlight.jobs.rank_encoders.page import ranking_report
from rushlight.jobs.rank_encoders.run import Ranking, rank_encoders, ranked
from rushlight.nets import encoders
from rushlight.present import page as html
from rushlight.run.budget import Spent
from rushlight.run.model import Model
from rushlight.run.store import Store
from rushlight.run.trial import Result, Trial

METHODS = ["simclr(batch=16)", "barlow-twins(batch=16)"]
SMALL = {"budget": "600", "seeds": 2, "workers": 0}


@pytest.fixture(scope="module")
def images(photos: Dataset) -> Dataset:
    return photos.select(torch.arange(300)).without("fold")


@pytest.fixture(scope="module")
def ranking(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Ranking:
    return rank_encoders(images, METHODS, out=tmp_path_factory.mktemp("unlabelled") / "out", **SMALL)


def test_every_method_and_the_untrained_encoder_are_ranked(ranking: Ranking) -> None:
    assert {row["recipe"] for row in ranking.rows} == {"untrained", *METHODS}
    ranks = [row["mean rank"] for row in ranking.rows]
    assert ranks == sorted(ranks)
    assert sum(ranks) == pytest.approx(6)
    assert all(row["lowest rank"] <= row["mean rank"] <= row["highest rank"] for row in ranking.rows)
    assert ranking.best == ranking.rows[0]["recipe"]
    assert ranking.best in ranking.verdict or "No pretraining" in ranking.verdict


def test_the_best_encoder_is_handed_out_and_written_down(ranking: Ranking) -> None:
    assert isinstance(ranking.best_model(), Model)
    content = json.loads((ranking.out / "leaderboard.json").read_text())
    assert content["verdict"] == ranking.verdict
    assert content["trust"] == ranking.trust
    assert "--unlabelled-only" in content["command"]


def test_the_handed_out_encoder_is_the_first_seeds_and_is_where_a_training_with_labels_starts(ranking: Ranking) -> None:
    first = next(r for r in ranking.results if r.trial.recipe == ranking.best and r.trial.seed == 0)
    file = Store(ranking.out).model_path(first.trial.key) / "model.safetensors"
    assert (ranking.out / "best" / "model.safetensors").read_bytes() == file.read_bytes()
    started = encoders.create("conv16", image_size=28, weights=ranking.out / "best" / "model.safetensors")
    for name, value in ranking.best_model().encoder.state_dict().items():
        torch.testing.assert_close(started.state_dict()[name], value, rtol=0, atol=0)


def test_labels_change_nothing(images: Dataset, ranking: Ranking, tmp_path: Path) -> None:
    other = images.with_columns(**{"class": (images["class"] + 1).clamp(max=9)})
    again = rank_encoders(other, METHODS, out=tmp_path / "out", **SMALL)
    assert [row["RankMe"] for row in again.rows] == [row["RankMe"] for row in ranking.rows]
    assert not again.data.label_names


def test_a_finished_trial_is_not_run_again(images: Dataset, ranking: Ranking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlabelled.Recipe, "run", lambda *given: pytest.fail("it was run again"))
    again = rank_encoders(images, METHODS, out=ranking.out, **SMALL)
    assert again.rows == ranking.rows


def test_what_a_killed_run_lacks_is_run_to_the_same_signals(images: Dataset, ranking: Ranking, tmp_path: Path) -> None:
    one = rank_encoders(images, METHODS[:1], out=tmp_path / "out", **SMALL)
    whole = rank_encoders(images, METHODS, out=tmp_path / "out", **SMALL)
    assert len(whole.results) == len(one.results) + 2
    assert whole.to_pandas().drop(columns="seconds").equals(ranking.to_pandas().drop(columns="seconds"))


def test_held_out_images_are_not_trained_on(images: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    run = unlabelled.Recipe.run

    def watched(self, data, *rest, **settings):  # type: ignore[no-untyped-def]
        seen.append(data)
        return run(self, data, *rest, **settings)

    monkeypatch.setattr(unlabelled.Recipe, "run", watched)
    found = rank_encoders(images, METHODS[:1], budget="300", seeds=1, workers=0, out=tmp_path / "out")
    held = {image.numpy().tobytes() for image in found.data.fold(TEST)["image"]}
    assert len(seen[0]) == 225
    trained_on = {image.numpy().tobytes() for image in seen[0]["image"]}
    assert len(held - trained_on) >= len(held) - 1


def test_ranks_are_taken_within_a_seed() -> None:
    def result(recipe: str, seed: int, value: float) -> Result:
        parts = {
            key: torch.tensor([sign * value], dtype=torch.float64)
            for key, sign in {
                "RankMe": 1,
                "view retrieval": 1,
                "cluster stability": 1,
                "alignment + uniformity": -1,
            }.items()
        }
        return Result(Trial(recipe, seed, "1", "", "none"), float("nan"), parts, [], Spent(10, 1, 1, 2.0))

    results = [result("a", 0, 1.0), result("b", 0, 2.0), result("a", 1, 11.0), result("b", 1, 12.0)]
    rows = ranked(results, ["a", "b"])
    assert [(row["recipe"], row["mean rank"]) for row in rows] == [("b", 1.0), ("a", 2.0)]
    failed = Result(Trial("a", 0, "1", "", "none"), float("nan"), {}, [], Spent(), "it broke")
    assert [row["recipe"] for row in ranked([failed, *results[1:]], ["a", "b"])] == ["b"]
    with pytest.raises(UserError, match="no trial finished: it broke"):
        ranked([failed], ["a"])


def test_the_report_says_what_to_take_and_how_far_to_trust_it(ranking: Ranking) -> None:
    page = html.render(ranking_report(ranking))
    for text in ("take this one", "untrained", "none was looked at", "--unlabelled-only", "<image "):
        assert text in page
    assert page.count('<ul class="gallery row">') == 6
    assert ("best/model.safetensors" in page) == (ranking.best != "untrained")


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        ("", "no method is named"),
        ("supervised", "'supervised' needs labels"),
        ("simcl", "Did you mean 'simclr'"),
        ("mae", "--encoder vit96"),
    ],
)
def test_what_does_not_fit_is_told(methods: str, says: str, images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        rank_encoders(images, methods, encoder="conv16", out=tmp_path / "out", **{**SMALL, "seeds": 1})


def test_too_few_images_are_told(images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds out 25% of them, and needs at least 20"):
        rank_encoders(images.select(torch.arange(30)), METHODS, out=tmp_path / "out", **SMALL)


def test_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", "fashion", "--unlabelled-only", "--methods", "simclr(batch=16)", "--budget", "200"]
    shown = CliRunner().invoke(app.app, [*words, "--seeds", "1", "--workers", "0", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "looks best" in shown.output or "No pretraining" in shown.output
    assert (out / "report.html").exists()
    wrong = CliRunner().invoke(app.app, [*words, "--keep", "5"])
    assert isinstance(wrong.exception, UserError)


@pytest.mark.parametrize(
    "recipe",
    ['bss(base="simclr(learning_rate=1e30)")',
     pytest.param('histopath-ssl(base="simclr(learning_rate=1e30)")', marks=pytest.mark.slow),
     pytest.param("simclr > mlcd(clusters=8, learning_rate=1e38, warm_up=0.0)", marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_failed_step_of_any_stage_is_replayed(recipe: str, photos: Dataset, tmp_path: Path) -> None:
    """Add-ons, stages that pay before they train, second stages: each is restored by its own `run`."""
    data = photos.select(torch.arange(96))
    ranking = rank_encoders(data, [recipe], budget="600", seeds=1, out=tmp_path, workers=0)
    (broken,) = ranking.failed
    file = Path(broken.failed.rsplit(" ", 1)[1])
    step = json.loads(file.read_text())["step"]
    assert step > 0
    said = replay(file)
    assert said.startswith(f"step {step} ")
    assert "nan" in said or "inf" in said or "not finite" in said
