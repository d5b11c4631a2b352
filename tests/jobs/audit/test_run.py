"""An audit's figures beside plain loops, planted faults that it must find, and whole audits of small models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset, Info
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.data.synthetic import scenes as composed
from rushlight.jobs.audit.run import Audit, aligned, audit
from rushlight.measure import judges, mistakes
from rushlight.measure.judges import Answers
from rushlight.nets import encoders
from rushlight.nets.heads import Linear
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

NAMES = ("cat", "dog", "cow")


def answered(probabilities: torch.Tensor, true: torch.Tensor, task: str = "class") -> Answers:
    n = probabilities.shape[1]
    return Answers(task, NAMES[:n] + tuple(map(str, range(3, n))), torch.arange(len(true)), true, probabilities,
                   torch.zeros(0))  # fmt: skip


def sampled(n: int, sharpness: float, seed: int = 0) -> Answers:
    """Labels drawn from softmax(z); the model says softmax(sharpness · z)."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    true = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    return answered((sharpness * z).softmax(1), true)


def untrained(data: Dataset, task: str | None = "class", seed: int = 0) -> Model:
    encoder = encoders.create("conv16", image_size=data.height, seed=seed)
    outputs = {"class": len(data.info.class_names), "tags": len(data.info.tag_names)}
    heads = {task: Linear(width=encoder.width, outputs=outputs[task])} if task else {}
    return Model(encoder, dict(heads), ModelInfo.of(data.info, (data.height, data.width), task)).eval()


def trained(data: Dataset, task: str, passes: float) -> Model:
    ctx, model = RunContext(task=task), untrained(data, None)
    model = model.with_info(task=task)
    return Recipe.parse("supervised(batch=32)").run(data, model, Budget(passes=passes), ctx)[0]


# --- calibration ---


def ece_by_loops(p: torch.Tensor, y: torch.Tensor, bins: int) -> tuple[float, float]:
    total, worst = 0.0, 0.0
    for b in range(bins):
        inside = [i for i in range(len(p)) if b / bins <= p[i] < (b + 1) / bins or (b == bins - 1 and p[i] == 1)]
        if inside:
            gap = abs(sum(float(p[i]) for i in inside) - sum(int(y[i]) for i in inside)) / len(inside)
            total, worst = total + gap * len(inside) / len(p), max(worst, gap)
    return total, worst


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([5, 15]))
def test_calibration_errors_are_those_of_plain_loops(seed: int, n: int, bins: int) -> None:
    found = sampled(n, 2.0, seed)
    numbers = judges.calibration(found, bins=bins).numbers
    right = found.predicted == found.true
    ece, mce = ece_by_loops(found.confidence, right, bins)
    assert numbers["ECE"] == pytest.approx(ece, abs=1e-6)
    assert numbers["MCE"] == pytest.approx(mce, abs=1e-6)
    p = found.probabilities[torch.arange(n), found.true]
    assert numbers["NLL"] == pytest.approx(float(-p.log().mean()))
    brier = (
        sum(float((found.probabilities[i, k] - int(k == found.true[i])) ** 2) for i in range(n) for k in range(4)) / n
    )
    assert numbers["Brier score"] == pytest.approx(brier)


def test_the_calibration_error_is_torchmetrics_multiclass_one() -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    found = sampled(500, 1.7)
    official = multiclass_calibration_error(found.probabilities, found.true, num_classes=4, n_bins=15)
    assert judges.calibration(found).numbers["ECE"] == pytest.approx(float(official), abs=1e-6)


def test_a_calibrated_model_is_believed_and_a_sharpened_one_is_not() -> None:
    fair = judges.calibration(sampled(40_000, 1.0)).numbers
    sharp = judges.calibration(sampled(40_000, 3.0)).numbers
    flat = judges.calibration(sampled(40_000, 0.3)).numbers
    assert fair["ECE"] < 0.012
    assert judges.leaning(fair) == "its confidence can be believed"
    assert sharp["ECE"] > 0.1
    assert judges.leaning(sharp).startswith("over-confident")
    assert judges.leaning(flat).startswith("under-confident")


def test_few_calibrated_models_are_accused() -> None:
    accused = 0
    for seed in range(60):
        numbers = judges.calibration(sampled(300, 1.0, seed), seed=seed).numbers
        accused += numbers["ECE"] > numbers["ECE, 95 % of calibrated models below"]
    assert accused <= 8  # of 60 at 5 %: 3 expected, more than 8 in one of 250 runs


def test_the_reliability_table_counts_every_image() -> None:
    found = sampled(700, 2.0)
    table = judges.calibration(found).tables["reliability"]
    assert sum(table["n"]) == 700
    share = sum(n * r for n, r in zip(table["n"], table["right"])) / 700
    assert share == pytest.approx(float((found.predicted == found.true).double().mean()))
    assert all(low <= r <= high for low, r, high in zip(table["low"], table["right"], table["high"]))


def test_unknown_tags_do_not_count_in_the_calibration() -> None:
    p = torch.tensor([[0.9, 0.2], [0.7, 0.6]], dtype=torch.float64)
    found = answered(p, torch.tensor([[1, 0], [-1, -1]]), "tags")
    numbers = judges.calibration(found).numbers
    assert numbers["ECE"] == pytest.approx((0.1 + 0.2) / 2, abs=1e-6)
    assert numbers["NLL"] == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    with pytest.raises(UserError, match="known to be absent"):
        judges.calibration(answered(p, torch.tensor([[1, -1], [-1, 1]]), "tags"))


# --- tables ---


def test_the_class_table_is_sklearns() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    found = sampled(300, 1.0)
    table = judges.classes(found).tables["classes"]
    precision, recall, f1, n = precision_recall_fscore_support(found.true, found.predicted, zero_division=np.nan)
    np.testing.assert_allclose(table["precision"], precision)
    np.testing.assert_allclose(table["recall"], recall)
    np.testing.assert_allclose(table["F1"], f1)
    assert table["n"] == n.tolist()


def test_confusions_are_sorted_and_errors_go_by_confidence() -> None:
    p = torch.tensor([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.6, 0.4, 0], [0, 0.3, 0.7], [0.7, 0.2, 0.1]]).double()
    data = Dataset({"image": torch.zeros(5, 3, 4, 4, dtype=torch.uint8)}, Info(class_names=NAMES))
    tables = judges.confusions(answered(p, torch.tensor([0, 0, 0, 1, 2])), data).tables
    assert tables["confusions"]["true"] == ["cat", "dog", "cow"]
    assert tables["confusions"]["predicted"] == ["dog", "cow", "cat"]
    assert tables["confusions"]["count"] == [2, 1, 1]
    assert tables["confusions"]["share"] == pytest.approx([2 / 3, 1, 1])
    assert tables["confident errors"]["row"] == [0, 1, 3, 4]
    assert tables["confident errors"]["image"] == ["0", "1", "3", "4"]


def test_accuracy_has_wilsons_interval() -> None:
    from scipy.stats import binomtest

    found = sampled(400, 1.0)
    numbers = judges.accuracy(found).numbers
    right = int((found.predicted == found.true).sum())
    wilson = binomtest(right, 400).proportion_ci(method="wilson")
    assert numbers["accuracy"] == right / 400
    assert numbers["accuracy, low"] == pytest.approx(wilson.low, abs=2e-3)
    assert numbers["accuracy, high"] == pytest.approx(wilson.high, abs=2e-3)


# --- label mistakes ---


@pytest.fixture(scope="module")
def flipped() -> tuple[Dataset, torch.Tensor]:
    """1,000 photos, 5 % of whose labels were changed to another class; and which."""
    data = fashion.load().select(torch.arange(1000))
    generator = torch.Generator().manual_seed(0)
    wrong = torch.zeros(1000, dtype=torch.bool)
    wrong[torch.randperm(1000, generator=generator)[:50]] = True
    other = (data["class"] + torch.randint(1, 10, (1000,), generator=generator)) % 10
    return data.with_columns(**{"class": torch.where(wrong, other, data["class"])}), wrong


def test_planted_label_mistakes_are_found(flipped: tuple[Dataset, torch.Tensor]) -> None:
    data, wrong = flipped
    found = mistakes.mistakes(untrained(data), data, "class")
    table = found.tables["suspects"]
    hits = wrong[table["row"]]
    assert hits.sum() >= 35  # recall of 70 %; by chance 50 · share
    assert hits.double().mean() > 3 * 0.05
    likely = hits[: int(found.numbers["likely"])]
    assert likely.sum() >= 20
    assert likely.double().mean() > 0.5
    assert table["label quality"] == sorted(table["label quality"])
    truth = fashion.load()["class"]
    healed = [fashion.CLASS_NAMES[truth[row]] == said for row, said in zip(table["row"], table["suggested"])]
    assert np.mean([h for h, w in zip(healed, hits) if w]) > 0.6  # the suggestion is the true class
    assert found.numbers["suspected"] == len(table["row"])


def test_rare_classes_and_unknown_labels_are_passed_over() -> None:
    data = fashion.load().select(torch.arange(300))
    labels = data["class"].clone()
    ankle = (labels == 9).nonzero()[:, 0]
    labels[ankle[3:]] = -1
    found = mistakes.mistakes(untrained(data), data.with_columns(**{"class": labels}), "class")
    assert found.numbers["labels"] == 300 - len(ankle)
    assert "ankle boot" in found.notes[0]
    assert not set(found.tables["suspects"]["row"]) & set(ankle.tolist())


def test_planted_tag_mistakes_are_found() -> None:
    data = fashion.load().select(torch.arange(600))
    boots = (data["class"] >= 5) & (data["class"] != 6) & (data["class"] != 8)  # shoes
    tags = torch.stack([boots, torch.zeros_like(boots)], 1).to(torch.int8)
    wrong = torch.arange(0, 600, 30)
    tags[wrong, 0] = 1 - tags[wrong, 0]
    tags[1::2, 1] = -1
    data = Dataset({"image": data["image"], "tags": tags}, Info(tag_names=("shoe", "never")))
    found = mistakes.mistakes(untrained(data, "tags"), data, "tags")
    table = found.tables["suspects"]
    assert len(set(table["row"]) & set(wrong.tolist())) >= 12  # of 20
    assert len(table["row"]) < 40
    assert set(table["tag"]) == {"shoe"}
    assert "never" in found.notes[0]


def test_too_few_labels_and_masks_are_said_so() -> None:
    data = hide.per_class(fashion.load().select(torch.arange(300)), 0)
    with pytest.raises(UserError, match="at least 10 images whose 'class' is known, and has 0"):
        mistakes.mistakes(untrained(data), data, "class")
    with pytest.raises(UserError, match="not in a mask"):
        mistakes.mistakes(untrained(data), data, "mask")


# --- names ---


def test_labels_are_matched_by_name() -> None:
    data = Dataset(
        {"image": torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "class": torch.tensor([0, 1, 2, -1, 0])},
        Info(class_names=("dog", "emu", "cat")),
    )
    model = untrained(data).with_info(class_names=NAMES)
    matched, notes = aligned(data, model, "class")
    assert matched["class"].tolist() == [1, -1, 0, -1, 1]
    assert matched.info.class_names == NAMES
    assert "emu" in notes[0]
    with pytest.raises(UserError, match="not one name is common"):
        aligned(data, model.with_info(class_names=("x", "y", "z")), "class")


def test_tags_and_masks_are_matched_by_name() -> None:
    columns = {
        "image": torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        "tags": torch.tensor([[1, 0]], dtype=torch.int8),
        "mask": torch.tensor([[[0, 1], [255, 1]]], dtype=torch.uint8),
    }
    data = Dataset(columns, Info(tag_names=("dog", "emu"), mask_names=("dog", "emu")))
    model = Model(encoders.create("conv16", image_size=8, seed=0), {}, ModelInfo(names={"tag": NAMES, "mask": NAMES}))
    assert aligned(data, model, "tags")[0]["tags"].tolist() == [[-1, 1, -1]]
    assert aligned(data, model, "mask")[0]["mask"].tolist() == [[[1, 255], [255, 255]]]


def test_labels_beyond_the_models_are_an_error() -> None:
    data = fashion.load().select(torch.arange(50)).with_info(class_names=())
    model = untrained(data.with_info(class_names=NAMES)).with_info(class_names=())
    with pytest.raises(UserError, match="the model answers with 3"):
        audit(model, data)


# --- whole audits ---


@pytest.fixture(scope="module")
def whole() -> Audit:
    photos = fashion.load()
    train, test = photos.select(torch.arange(800)), photos.fold(TEST).select(torch.arange(150))
    data = Dataset({name: torch.cat([train[name], test[name]]) for name in ("image", "class", "fold")}, photos.info)
    return audit(trained(train, "class", 2_000), data, attack_images=10, command="rushlight audit m fashion")


def test_an_audit_runs_every_judge_that_fits(whole: Audit) -> None:
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
    assert whole.number("accuracy", "images") == 150  # the test fold alone
    assert whole.number("rankme", "embeddings") == 950  # every image
    assert whole.number("label-mistakes", "labels") == 950
    assert whole.of("fgsm-cw").tables["attacks"]["images"][0] == 10
    assert 0.3 < whole.number("accuracy", "accuracy") <= 1
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
    assert list(frame.columns) == ["judge", "what", "value"]
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
    numbers = found.of("accuracy").numbers
    assert 0 <= numbers["mAP, low"] <= numbers["mAP"] <= numbers["mAP, high"] <= 1
    assert found.of("classes").tables["classes"]["tag"] == list(data.info.tag_names)
    assert "fgsm-cw" in dict(found.left_out)
    assert found.number("calibration", "ECE") > 0
    positives = audit(untrained(data, "tags"), hide.positives_only(data, 1.0))
    assert "recall at 0.5" in positives.of("accuracy").numbers
    assert "absent" in dict(positives.left_out)["calibration"]


def test_a_segmenter_is_audited() -> None:
    data = composed.compose(60, size=32, seed=3)
    model = trained(data, "mask", 300)
    found = audit(model, data)
    numbers, table = found.of("accuracy").numbers, found.of("classes").tables["classes"]
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
    from rushlight.run.budget import Spent

    given: list[Dataset] = []

    def run(self: Recipe, data: Dataset, model: Model, *rest: object) -> tuple[Model, Spent]:
        given.append(data)
        return model, Spent()

    monkeypatch.setattr(Recipe, "run", run)
    photos = fashion.load()
    rushlight.fit(photos.select(torch.arange(11_900, 12_100)), "supervised", budget=100)
    assert len(given[0]) == 100
    assert not (given[0]["fold"] == TEST).any()
