"""The judge without labels: its order, its directions, and that it tells trained from untrained encoders."""

from __future__ import annotations

import pytest
import torch
from margins import Margin
from pretraining import fresh, photos, trained

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.methods.evaluate.label_free.method import BETTER, LabelFree, ordered
from rushlight.run.stage import RunContext


def test_models_are_ordered_by_their_mean_rank() -> None:
    best = {"RankMe": 9.0, "view retrieval": 0.9, "cluster stability": 0.5, "alignment + uniformity": -3.0}
    worst = {"RankMe": 2.0, "view retrieval": 0.1, "cluster stability": 0.1, "alignment + uniformity": -1.0}
    middle = {**best, "RankMe": 5.0}
    order = ordered({"w": worst, "b": best, "m": middle})
    assert list(order) == ["b", "m", "w"]
    assert order["b"] == pytest.approx((1 + 3 * 1.5) / 4)
    assert order["w"] == 3
    assert set(BETTER) <= set(best)


@pytest.mark.slow
def test_it_prefers_features_that_learned_and_uses_no_label(margin: Margin) -> None:
    data = photos().without("class")
    models = {"untrained": fresh(), "simclr": trained("simclr(batch=64)", passes=12e3)}
    found = LabelFree(samples=600).judge_all(models, data, RunContext(seed=1))
    table = found.table("models")
    rank = dict(zip(table["model"], table["mean rank"], strict=True))
    margin("mean rank, untrained less simclr", rank["untrained"] - rank["simclr"], 0.0)
    by_name = dict(zip(table["model"], table["view retrieval"], strict=True))
    margin("view retrieval, gain over the untrained", by_name["simclr"] - by_name["untrained"], 0.02)
    assert found.notes[0].endswith("no label was used.")


def test_one_model_has_numbers_and_the_same_seed_gives_the_same() -> None:
    judge, data = LabelFree(samples=200), photos()
    one, again = (judge.judge(fresh(), data, RunContext(seed=2)).numbers for _ in range(2))
    assert one == again
    assert one != judge.judge(fresh(), data, RunContext(seed=3)).numbers
    assert one["alignment + uniformity"] == pytest.approx(one["alignment"] + one["uniformity"])


def test_widths_that_differ_are_told() -> None:
    found = LabelFree(samples=100).judge_all({"a": fresh(), "b": fresh("conv32")}, photos())
    assert "64, 128 dimensions" in found.notes[1]


def test_few_images_and_broken_features_are_told() -> None:
    few = Dataset({"image": photos()["image"][:5]})
    with pytest.raises(UserError, match="has 5 images: label-free signals need at least 20"):
        LabelFree().judge(fresh(), few)
    broken = fresh()
    with torch.no_grad():
        broken.encoder.stages[0][0][0].weight.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        LabelFree(samples=50).judge(broken, photos())
