"""Views for tissue on any learner, and the judge of slides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from margins import Margin
from PIL import Image
from pretraining import fresh
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.sources.read import load
from rushlight.data.synthetic import tissue
from rushlight.measure import linear
from rushlight.measure.features import pooled
from rushlight.methods.pretrain.histopath_ssl import slides
from rushlight.methods.pretrain.histopath_ssl.method import HistopathSSL, Slides, nearer
from rushlight.methods.pretrain.histopath_ssl.stain import Statistics
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Step
from rushlight.run.stage import RunContext


@pytest.fixture(scope="module")
def patches() -> Dataset:
    return Dataset({"image": tissue.compose(800, labs=(0, 1, 2), seed=1)["image"]})


def prepared(patches: Dataset, **settings) -> HistopathSSL:
    stage = HistopathSSL(**settings)
    stage.measure(patches)
    stage.learner.prepare(patches, Model(encoders.create("conv16", image_size=32, seed=0)), RunContext(task=None))
    stage.learner.plan = stage.learner.plan_for(Budget(passes=500))
    return stage


@pytest.mark.slow
def test_features_carry_over_to_an_unseen_laboratory(patches: Dataset, margin: Margin) -> None:
    train, test = tissue.compose(200, labs=(0,), seed=7), tissue.compose(400, labs=(4,), seed=8)

    def accuracy(model: Model) -> float:
        seen, asked = (pooled(model, data["image"]) for data in (train, test))
        return linear.accuracy(seen, train["class"], asked, test["class"], c=0.1)

    start = Model(encoders.create("conv16", image_size=32, seed=0))
    model = (
        HistopathSSL(base="simclr(batch=64)")
        .run(patches, start, RunContext(task=None, budget=Budget(passes=8e3)))
        .model
    )
    margin("gain over the untrained", accuracy(model) - accuracy(start), 0.05)


@pytest.mark.parametrize(
    "base",
    ["simclr", *(pytest.param(name, marks=pytest.mark.slow) for name in ("msn(focal=2)", "dino(local=1)", "byol"))],
)
def test_it_changes_the_views_of_any_base(base: str, patches: Dataset) -> None:
    stage = prepared(patches, base=base)
    learner = stage.learner
    views = learner.views(learner.draw(8, 0))
    assert [tuple(view.shape[-2:]) for view in views] == [policy.size for policy in learner.policies]
    assert learner.step(learner.draw(8, 0)).isfinite()


def test_policies_are_for_tissue(patches: Dataset) -> None:
    stage = prepared(patches)
    policy = stage.adapted(stage.learner.policies[0], True)
    assert (policy.crop_scale, policy.turns, policy.flip) == ((0.4, 1.0), True, 0.5)
    assert (policy.saturation, policy.hue, policy.grayscale, policy.solarize) == (0, 0, 0, 0)
    assert policy.brightness == policy.contrast == 0.2
    plain = prepared(patches, stain="none", dihedral=False, scale=None)
    assert plain.adapted(plain.learner.policies[0], True) == plain.learner.policies[0]


def test_turns_reach_all_eight_symmetries(patches: Dataset) -> None:
    stage = prepared(patches, stain="none", scale=(1.0, 1.0))
    image = patches["image"][:1].expand(200, -1, -1, -1)
    policy = stage.adapted(stage.learner.policies[0], True)
    policy = replace(policy, jitter=0.0, grayscale=0.0, blur=0.0, crop_ratio=(1.0, 1.0))
    seen = policy(image, generator=torch.Generator().manual_seed(0))
    original = image[0].float() / 255
    eight = [turned for flip in (original, original.flip(-1)) for turned in (flip.rot90(k, (1, 2)) for k in range(4))]
    distance = torch.stack([(seen - one).abs().flatten(1).amax(1) for one in eight], 1)
    assert float(distance.amin(1).max()) < 0.02
    assert distance.argmin(1).unique().numel() == 8


def test_stains_differ_between_views(patches: Dataset) -> None:
    for stain in ("randstain", "hed"):
        learner = prepared(patches, stain=stain, stain_probability=1.0).learner
        one, other = learner.views(learner.draw(32, 0))
        assert float((one.mean((2, 3)) - other.mean((2, 3))).abs().mean()) > 0.01


def test_what_was_not_measured_is_measured_on_the_batch(patches: Dataset) -> None:
    stage = prepared(patches, stain_probability=1.0)
    batch = stage.learner.draw(32, 0)["views"]

    def views() -> torch.Tensor:
        return stage.look(stage.learner.policies, batch, torch.Generator().manual_seed(0))[0]

    stage.statistics = Statistics.of(batch["image"])
    expected = views()
    stage.statistics = None
    torch.testing.assert_close(views(), expected)
    stage.stain = "none"
    assert float((views() - expected).abs().mean()) > 0.02
    stage.stain = "randstain"
    with pytest.raises(UserError, match=r"the batch is one: call measure\(data\)"):
        stage.look(stage.learner.policies, batch[:1], torch.Generator().manual_seed(0))


def test_from_a_folder_no_study_slide_or_magnification_dominates_and_glass_is_never_drawn(tmp_path: Path) -> None:
    drawn = tissue.compose(60, seed=3)["image"]
    drawn[50:] = 244
    lines = ["image,domain,study,magnification"]
    for row, image in enumerate(drawn):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{row:02}.png")
        study, slide = ("a", "s0") if row % 10 == 0 else ("b", f"s{1 + row % 3}")
        lines.append(f"{row:02}.png,{slide},{study},{'5x' if row % 4 == 1 else '20x'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    data = load(tmp_path, cache=False)

    def frequencies(stage: HistopathSSL) -> Tensor:
        rows = torch.cat([stage.learner.draw(32, step)["views"]["row"] for step in range(100)])
        return rows.bincount(minlength=60) / len(rows)

    seen = frequencies(prepared(data, base="simclr(batch=32)"))
    assert not seen[50:].any()
    assert torch.equal(seen, frequencies(prepared(data, base="simclr(batch=32)")))
    for study in (0, 1):
        of_study = data["study"] == study
        assert float(seen[of_study].sum()) == pytest.approx(1 / 2, abs=0.01)
        slides = data["domain"][of_study].unique()
        for slide in slides:
            of_slide = of_study & (data["domain"] == slide)
            assert float(seen[of_slide].sum()) == pytest.approx(1 / 2 / len(slides), abs=0.02)
            there = data["magnification"][of_slide & (seen > 0)].unique()
            for magnification in there:
                found = float(seen[of_slide & (data["magnification"] == magnification)].sum())
                assert found == pytest.approx(1 / 2 / len(slides) / len(there), abs=0.02)
    plain = frequencies(prepared(data, base="simclr(batch=32)", balanced=False, least_tissue=0))
    assert float((plain - 1 / 60).abs().max()) < 1e-3  # epochs of permutations


def test_stains_are_measured_on_what_is_drawn(patches: Dataset) -> None:
    glass = torch.full_like(patches["image"], 244)
    both = Dataset({"image": torch.cat([glass, patches["image"]])})
    alone, mixed = (prepared(data).statistics for data in (patches, both))
    torch.testing.assert_close(alone.means, mixed.means)


def test_without_columns_and_glass_nothing_changes(patches: Dataset) -> None:
    stage, bare = prepared(patches), prepared(patches, balanced=False, least_tissue=0)
    plain = bare.learner
    plain.balance = None
    for step in range(3):
        assert torch.equal(stage.learner.draw(64, step)["views"]["row"], plain.draw(64, step)["views"]["row"])


def test_data_without_tissue_are_told() -> None:
    glass = Dataset({"image": torch.full((8, 3, 32, 32), 244, dtype=torch.uint8)})
    with pytest.raises(UserError, match="shows tissue on 10% of it: lower least_tissue"):
        prepared(glass)


def test_the_neighbouring_magnification_is_the_middle_enlarged(patches: Dataset) -> None:
    images = patches["image"][:6]
    always, never = (nearer(images, p, torch.Generator().manual_seed(0)) for p in (1.0, 0.0))
    middle = images[:, :, 8:24, 8:24].float() / 255
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(always, 2).mean(), middle.mean(), atol=0.01, rtol=0)
    torch.testing.assert_close(never, images.float() / 255)


@pytest.mark.slow
def test_slides_are_judged_by_their_labels_with_intervals(margin: Margin) -> None:
    data = tissue.slides(24, patches=12, share=0.4, seed=2)
    model = Model(encoders.create("conv16", image_size=32, seed=0))
    found = Slides(draws=50, titration=(0.5, 1.0)).judge(model, data, RunContext(seed=0))
    for pooling in ("mean", "attention"):
        area = found.measure(f"AUC, {pooling}")
        assert area.low <= area.value <= area.high
    margin("the better AUC", max(found.numbers["AUC, mean"], found.numbers["AUC, attention"]), 0.65)
    labelled, areas = found.curve("label titration").series["mean"]
    assert labelled[0] == pytest.approx(9, abs=1)
    assert labelled[1] == 18
    assert areas[-1] == pytest.approx(found.numbers["AUC, mean"])


def test_any_share_of_the_slides_can_be_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    guess = lambda train, test, classes, seed: torch.full((len(test.labels), classes), 1 / classes)  # noqa: E731
    monkeypatch.setattr(slides, "_attended", guess)  # only means are asked about here
    data = tissue.slides(12, patches=3, share=1.0, seed=2)
    judge = Slides(folds=2, draws=1, titration=[0.01, 0.5, 0.95, 1])
    labelled, areas = judge.judge(fresh(), data, RunContext(seed=0)).curve("label titration").series["mean"]
    assert labelled[0] == 2
    assert labelled == sorted(labelled)
    assert labelled[-1] == 6
    assert all(0 <= area <= 1 for area in areas)


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(UserError, match="randstain, hed, none"):
        HistopathSSL(stain="blue")
    with pytest.raises(UserError, match="no joint-embedding learner"):
        HistopathSSL(base="supervised")
    data = tissue.slides(4, patches=4, seed=1)
    with pytest.raises(UserError, match="each label needs 4 at least"):
        Slides().judge(fresh(), data)
    mixed = data.with_columns(**{"class": torch.arange(16) % 2})
    with pytest.raises(UserError, match="`domain` tells the slide"):
        Slides().judge(fresh(), mixed)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"folds": 1}, "folds is a whole number of 2 or more"),
        ({"draws": 0}, "draws is a whole number of 1 or more"),
        ({"titration": 0.5}, "titration is numbers above 0, up to 1, in brackets"),
        ({"titration": [0.5, 1.01]}, "titration is numbers above 0, up to 1, in brackets"),
    ],
)
def test_settings_of_slides_outside_their_range_are_told(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Step("slides", settings).judge()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": 0.4}, "scale is 2 numbers above 0, up to 1, in brackets"),
        ({"scale": (0.8, 0.4)}, "the least share"),
        ({"neighbour": 2}, "neighbour is a number from 0 to 1"),
        ({"least_tissue": 1.5}, "least_tissue is a number from 0 to 1"),
    ],
)
def test_settings_of_the_views_outside_their_range_are_told(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Step("histopath-ssl", settings).stage()
