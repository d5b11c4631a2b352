"""Whole audits of small models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from margins import Margin
from rich.console import Console

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.data.synthetic import scenes as composed
from rushlight.jobs.audit.result import Audit
from rushlight.jobs.audit.run import audit
from rushlight.nets import encoders
from rushlight.nets.heads import Linear
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

NAMES = ("cat", "dog", "cow")


def untrained(data: Dataset, task: str | None = "class", seed: int = 0) -> Model:
    encoder = encoders.create("conv16", image_size=data.height, seed=seed)
    outputs = {"class": len(data.info.class_names), "tags": len(data.info.tag_names)}
    heads = {task: Linear(width=encoder.width, outputs=outputs[task])} if task else {}
    return Model(encoder, dict(heads), ModelInfo.of(data.info, (data.height, data.width), task)).eval()


def trained(data: Dataset, task: str, passes: float) -> Model:
    ctx, model = RunContext(task=task), untrained(data, None)
    model = model.with_info(task=task)
    return Recipe.parse("supervised(batch=32)").run(data, model, replace(ctx, budget=Budget(passes=passes))).model


# --- labels ---


def test_labels_beyond_the_models_are_an_error() -> None:
    data = fashion.load().select(torch.arange(50)).with_info(class_names=())
    model = untrained(data.with_info(class_names=NAMES)).with_info(names={})
    with pytest.raises(UserError, match="the model answers with 3"):
        audit(model, data)


# --- whole audits ---


@pytest.fixture(scope="module")
def whole() -> Audit:
    photos = fashion.load()
    train, test = photos.select(torch.arange(800)), photos.fold(TEST).select(torch.arange(150))
    data = Dataset({name: torch.cat([train[name], test[name]]) for name in ("image", "class", "fold")}, photos.info)
    return audit(trained(train, "class", 2_000), data, attack_images=10, command="rushlight audit m fashion")


def test_an_audit_runs_every_judge_that_fits(whole: Audit, margin: Margin) -> None:
    judged = {found.judge for found in whole.findings}
    assert judged == {
        "accuracy",
        "calibration",
        "classes",
        "confusions",
        "label-mistakes",
        "fgsm-cw",
        "label-free",
        "rankme",
    }
    assert whole.left_out == ()
    assert whole.of("accuracy").measure("accuracy").n == 150  # the test fold alone
    assert whole.number("rankme", "embeddings") == 950  # every image
    assert whole.number("label-mistakes", "labels") == 950
    assert whole.of("fgsm-cw").table("attacks")["images"][0] == 10
    margin("accuracy", whole.number("accuracy", "accuracy"), 0.3)
    assert "on 150 images" in whole.verdict
    assert "PGD" in whole.verdict


def test_an_audit_shows_itself(whole: Audit) -> None:
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(whole)
    assert "accuracy" in shown.get()
    assert "test fold" in shown.get()
    assert whole.verdict.split(";")[0] in whole._repr_html_()
    frame = whole.to_pandas()
    assert list(frame.columns) == ["judge", "what", "value", "low", "high"]
    assert len(frame) == len(whole.rows())
    assert len(whole.table("classes", "classes")) == 10
    with pytest.raises(KeyError, match="label-mistakes"):
        whole.table("accuracy", "none")


def test_an_audit_does_not_change_the_model_or_depend_on_its_mode() -> None:
    data = fashion.load().select(torch.arange(60))
    model = untrained(data).train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    first, second = (audit(model, data, attack_images=2) for _ in range(2))
    assert model.training
    assert all(torch.equal(before[name], values) for name, values in model.state_dict().items())
    assert [str(r) for r in first.rows()] == [str(r) for r in second.rows()]


def test_without_labels_what_fits_is_run_and_the_rest_is_named() -> None:
    data = fashion.load().select(torch.arange(80)).hide()
    found = audit(untrained(data), data)
    assert [f.judge for f in found.findings] == ["label-free", "rankme"]
    assert {name for name, _ in found.left_out} == {"accuracy and calibration", "fgsm-cw", "label-mistakes"}
    assert all(why for _, why in found.left_out)
    assert "RankMe" in found.verdict


def test_a_bare_encoder_is_judged_by_its_features() -> None:
    data = fashion.load().select(torch.arange(200))
    found = audit(untrained(data, None), data)
    assert {f.judge for f in found.findings} == {"label-free", "rankme", "label-mistakes"}
    assert "bare encoder" in dict(found.left_out)["accuracy and calibration"]


def test_a_tagger_is_audited() -> None:
    data = composed.compose(120, size=32, seed=3)
    found = audit(untrained(data, "tags"), data)
    score = found.of("accuracy").measure("mAP")
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert found.of("classes").table("classes")["tag"] == list(data.info.tag_names)
    assert "fgsm-cw" in dict(found.left_out)
    assert found.number("calibration", "ECE") > 0
    positives = audit(untrained(data, "tags"), hide.positives_only(data, 1.0))
    assert "recall at 0.5" in positives.of("accuracy").numbers
    assert "absent" in dict(positives.left_out)["calibration"]


def test_a_segmenter_is_audited() -> None:
    data = composed.compose(60, size=32, seed=3)
    model = trained(data, "mask", 300)
    found = audit(model, data)
    numbers, table = found.of("accuracy").numbers, found.of("classes").table("classes")
    assert numbers["mIoU"] == pytest.approx(np.mean(table["IoU"]), abs=1e-9)
    predicted = model.predict(data["image"])["mask"].argmax(1)
    assert numbers["pixel accuracy"] == pytest.approx(float((predicted == data["mask"]).double().mean()))
    assert found.of("calibration") is not None
    assert dict(found.left_out).keys() == {"fgsm-cw", "label-mistakes"}


def test_no_images_are_an_error() -> None:
    data = fashion.load().select(torch.arange(5))
    with pytest.raises(UserError, match="no image"):
        audit(untrained(data), data.select(torch.arange(0)))


def test_fit_leaves_the_test_fold_to_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    import rushlight
    from rushlight.run.stage import Outcome

    given: list[Dataset] = []

    def run(self: Recipe, data: Dataset, model: Model, *rest: object, **settings: object) -> Outcome:
        given.append(data)
        return Outcome(data, model)

    monkeypatch.setattr(Recipe, "run", run)
    photos = fashion.load()
    rushlight.fit(photos.select(torch.arange(11_900, 12_100)), "supervised", budget=100)
    assert len(given[0]) == 100
    assert not (given[0]["fold"] == TEST).any()


@pytest.mark.parametrize("hidden", [False, True])
def test_data_without_the_models_labels_are_named_in_a_sentence(hidden: bool) -> None:
    photos = fashion.load().select(torch.arange(40))
    data = photos.hide(torch.ones(40, dtype=torch.bool), ["class"]) if hidden else photos.without("class")
    left = dict(audit(untrained(photos), data, device="cpu").left_out)
    assert "is known in" in left["label-mistakes"]
    assert "give --labels" in left["label-mistakes"]
