"""RankMe as a judge: what it reads, what it reports, and its choice among runs."""

from __future__ import annotations

import math

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.data.synthetic import fashion
from rushlight.methods.evaluate.rankme import RankMe, select
from rushlight.nets import encoders
from rushlight.nets.heads import MLP
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import RunContext


@pytest.fixture(scope="module")
def photos():
    return fashion.load().select(torch.arange(300))


def model_with(projector: MLP | None, recipe: str = "") -> Model:
    heads = {"projector": projector} if projector is not None else {}
    return Model(encoders.create("conv16", seed=0, image_size=28), heads, ModelInfo(image_size=(28, 28), recipe=recipe))


def collapsed(rank: int) -> MLP:
    """A linear projector of width 32 with only `rank` directions."""
    torch.manual_seed(0)
    head = MLP(widths=[64, 32], bias=False)
    with torch.no_grad():
        head.layers[0].weight.copy_(torch.randn(32, rank) @ torch.randn(rank, 64))
    return head


def test_the_projectors_outputs_are_measured_in_evaluation_mode(photos):
    model = model_with(MLP(widths=[64, 48, 32], bias=False)).train()
    findings = RankMe().judge(model, photos)
    z = model.predict(photos["image"], names=["projector"])["projector"]
    shares = torch.linalg.svdvals(z.double())
    shares = shares / shares.sum() + 1e-7
    assert findings.numbers["RankMe"] == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-6)
    assert (findings.numbers["embeddings"], findings.numbers["width"]) == (300, 32)
    assert model.training


@pytest.mark.parametrize("rank", [1, 3])
def test_a_collapsed_projector_is_seen(photos, rank):
    numbers = RankMe().judge(model_with(collapsed(rank)), photos).numbers
    assert math.isnan(numbers["alpha-ReQ"]) == (rank == 1)
    assert numbers["classical rank"] == rank
    assert numbers["RankMe"] <= rank + 0.01


def test_the_spectrum_falls_from_one_and_has_a_point_for_each_value(photos):
    x, y = RankMe().judge(model_with(collapsed(16)), photos).curve("spectrum").series["projector"]
    assert x == [float(k) for k in range(1, 33)]
    assert y[0] == 1.0
    assert y == sorted(y, reverse=True)


def test_a_long_spectrum_is_thinned_from_its_first_to_its_last_value(photos, monkeypatch):
    monkeypatch.setattr("rushlight.methods.evaluate.rankme.POINTS", 100)
    wide = MLP(widths=[64, 600], bias=False)
    x, _ = RankMe().judge(model_with(wide), photos).curve("spectrum").series["projector"]
    assert (x[0], x[-1]) == (1, 300)
    assert len(x) <= 100
    assert x == sorted(set(x))


def test_without_a_projector_the_features_are_measured_and_a_note_says_so(photos):
    findings = RankMe().judge(model_with(None), photos)
    assert findings.numbers["width"] == 64
    assert any("features" in note for note in findings.notes)
    assert not any("features" in note for note in RankMe().judge(model_with(collapsed(9)), photos).notes)


def test_images_are_drawn_by_the_seed_and_too_few_are_said_to_be_so(photos):
    judge, model = RankMe(samples=40), model_with(collapsed(16))
    first, again, other = (judge.judge(model, photos, RunContext(seed=seed)) for seed in (1, 1, 2))
    assert first.numbers == again.numbers != other.numbers
    assert first.numbers["embeddings"] == 40
    assert any("give more images" in note for note in first.notes)
    assert not any("give more images" in note for note in RankMe().judge(model, photos).notes)


def test_no_images_and_broken_models_are_named(photos):
    with pytest.raises(UserError, match="no image"):
        RankMe().judge(model_with(None), photos.select(torch.arange(0)))
    broken = collapsed(3)
    torch.nn.init.constant_(broken.layers[0].weight, math.nan)
    with pytest.raises(UserError, match="'projector' are not finite"):
        RankMe().judge(model_with(broken), photos)


def test_select_takes_the_highest_rank_and_the_smallest_value_among_ties():
    values, ranks = [0.0, 1e-4, 1e-3, 5e-3, 2e-2], [3.0, 60.0, 99.0, 100.0, 98.5]
    assert select(values, ranks, 0.0) == 5e-3
    assert select(values, ranks) == 1e-3
    assert select(values, ranks, largest=True) == 2e-2
    assert select(values[::-1], ranks[::-1]) == 1e-3
    assert select([1, 2], [math.nan, 5.0]) == 2


@pytest.mark.parametrize(
    ("values", "ranks", "tolerance", "reason"),
    [([1], [1, 2], 0.0, "as many"), ([1], [math.nan], 0.0, "finite"), ([1], [1], 1.0, "share")],
)
def test_select_refuses_what_it_cannot_choose_from(values, ranks, tolerance, reason):
    with pytest.raises(ValueError, match=reason):
        select(values, ranks, tolerance)


def ranked(runs: dict[str, Model], photos) -> dict[str, float]:
    return {name: RankMe().judge(model, photos).numbers["RankMe"] for name, model in runs.items()}


def test_several_runs_of_a_method_are_ordered_and_one_is_chosen(photos):
    runs = {
        "a": model_with(collapsed(2), "barlow-twins(weight=0.1)"),
        "b": model_with(collapsed(20), "barlow-twins"),
        "c": model_with(collapsed(8), "barlow-twins(weight=0.01)"),
    }
    ranks = ranked(runs, photos)
    found = RankMe().judge_all(runs, photos)
    table = found.table("models")
    assert table["model"] == sorted(runs, key=ranks.__getitem__, reverse=True)
    assert table["model"] != list(runs)
    assert table["RankMe"] == sorted(ranks.values(), reverse=True)
    assert table["method"] == ["barlow-twins"] * 3
    assert table["choice"] == ["take this one", "", ""]
    assert found.notes[0].startswith(f"Of 3 runs of barlow-twins (projector, width 32), take {table['model'][0]}: ")
    assert set(found.curve("spectrum").series) == set(runs)
    assert not any("Not comparable" in note for note in found.notes)


def test_runs_of_other_methods_or_widths_are_not_compared(photos):
    runs = {
        "b1": model_with(collapsed(4), "barlow-twins"),
        "s": model_with(collapsed(30), "simclr(temperature=0.5)"),
        "b2": model_with(collapsed(9), "barlow-twins"),
        "wide": model_with(MLP(widths=[64, 48], bias=False), "barlow-twins"),
        "bare": model_with(None),
    }
    ranks, found = ranked(runs, photos), RankMe().judge_all(runs, photos)
    table = found.table("models")
    better = sorted(("b1", "b2"), key=ranks.__getitem__, reverse=True)
    assert table["model"] == [*better, "s", "wide", "bare"]
    assert table["choice"] == ["take this one", "", "", "", ""]
    assert table["method"][-1] == "untrained"
    assert table["read"][-1] == "features"
    apart = next(note for note in found.notes if note.startswith("Not comparable"))
    for kind in ("barlow-twins (projector, width 32)", "barlow-twins (projector, width 48)", "simclr (projector"):
        assert kind in apart


def test_nothing_is_chosen_among_untrained_encoders(photos):
    found = RankMe().judge_all({"one": model_with(None), "two": model_with(None)}, photos)
    assert found.table("models")["choice"] == ["", ""]
    assert not any("take" in note for note in found.notes if note.startswith("Of"))


def test_runs_close_to_the_best_are_named(photos):
    same = collapsed(12)
    found = RankMe().judge_all({name: model_with(same, "simclr") for name in ("one", "two")}, photos)
    assert "within 2 % of it: two" in found.notes[0]
