"""ReLabel: maps that agree with the classifier they came from, and a learner that reads the right crop's target."""

from __future__ import annotations

import pytest
import torch
from margins import Margin

from rushlight.core.errors import UserError
from rushlight.data.columns import TRAIN
from rushlight.data.dataset import Dataset, Info
from rushlight.data.synthetic import fashion
from rushlight.losses import label_map
from rushlight.methods.baseline.supervised import Supervised
from rushlight.methods.curate.relabel import ReLabel
from rushlight.nets import encoders
from rushlight.nets.heads import MLP, Linear
from rushlight.run.budget import Budget, Spent
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import RunContext

BUDGET = Budget(passes=100.0)


def _model(outputs: int | None = 10, side: int = 28) -> Model:
    encoder = encoders.create("conv16", image_size=side, seed=0)
    torch.manual_seed(0)
    heads = {} if outputs is None else {"class": Linear(width=encoder.width, outputs=outputs)}
    return Model(encoder, heads, ModelInfo(image_size=(side, side), task="class")).eval()


def _photos(n: int = 20) -> Dataset:
    return fashion.load().fold(TRAIN).select(torch.arange(n))


def _dense(data: Dataset, classes: int = 10) -> torch.Tensor:
    return label_map.densify(data["label_map_values"], data["label_map_ids"], classes=classes)


def test_the_mean_of_a_full_map_is_what_the_classifier_says():
    data, model = _photos(), _model()
    outcome = ReLabel(k=10).run(data, model, RunContext(budget=BUDGET))
    mapped, same = outcome.data, outcome.model
    assert same is model
    logits = model.predict(data["image"])["class"]
    assert mapped["label_map_values"].shape == (20, 10, 4, 4)
    torch.testing.assert_close(_dense(mapped).mean((2, 3)), logits, rtol=1e-4, atol=1e-5)


def test_k_scores_are_kept_and_a_fine_map_is_averaged():
    data, model = _photos(), _model()
    mapped = ReLabel(k=3, cells=2).run(data, model, RunContext(budget=BUDGET)).data
    assert mapped["label_map_values"].shape == (20, 3, 2, 2)
    assert (mapped["label_map_values"].diff(dim=1) <= 0).all()


def test_global_maps_give_every_crop_the_image_s_target():
    data, model = _photos(), _model()
    mapped = ReLabel(k=10, localised=False).run(data, model, RunContext(budget=BUDGET)).data
    boxes = torch.tensor([[0.0, 0.1, 0.4, 0.6]]).expand(20, 4)
    expected = model.predict(data["image"])["class"].softmax(1)
    torch.testing.assert_close(label_map.pooled_targets(_dense(mapped), boxes), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("localised", [True, False])
def test_single_targets_are_the_best_class_of_the_multi_ones(localised):
    data, model = _photos(), _model()
    boxes = torch.tensor([[0.3, 0.1, 1.0, 0.5]]).expand(20, 4)
    targets = [
        label_map.pooled_targets(
            _dense(ReLabel(multi=multi, localised=localised).run(data, model, RunContext(budget=BUDGET)).data), boxes
        )
        for multi in (True, False)
    ]
    assert targets[0].amax(1).max() < 0.9
    torch.testing.assert_close(label_map.one_hot_targets(targets[0]), targets[1])


def test_images_without_a_label_are_mapped_unless_one_says_no():
    data = _photos().hide(torch.arange(20) >= 5, ["class"])
    assert ReLabel().run(data, _model(), RunContext(budget=BUDGET)).data.known("label_map_ids").all()
    mapped = ReLabel(unlabelled=False).run(data, _model(), RunContext(budget=BUDGET)).data
    assert mapped.known("label_map_ids").tolist() == [row < 5 for row in range(20)]
    assert Supervised().card.lacks(mapped, "class") == ""


def test_without_an_annotator_one_is_trained_within_the_budget():
    stage = ReLabel()
    outcome = stage.run(_photos(200), _model(None), RunContext(budget=Budget(passes=2000.0)))
    data, annotator = outcome.data, outcome.model
    assert "class" in annotator.head_names
    assert data.known("label_map_ids").all()
    assert 1000 < outcome.spent.passes < 2000 + 200
    assert ReLabel().spends
    assert not ReLabel(annotator="given").spends
    with pytest.raises(UserError, match="supervised > relabel"):
        ReLabel(annotator="given").run(_photos(), _model(None), RunContext(budget=BUDGET))


def test_mapping_is_paid_for():
    stage = ReLabel()
    outcome = stage.run(_photos(60), _model(), RunContext(budget=BUDGET))
    assert isinstance(outcome.spent, Spent)
    assert 60 / 4 < outcome.spent.passes < 60 / 2  # a forward is about a third of a pass


def test_a_head_that_has_no_map_is_refused_by_name():
    model = _model(None)
    with_mlp = Model(model.encoder, {"class": MLP(widths=[64, 32, 10])}, model.info).eval()
    with pytest.raises(UserError, match="MLP"):
        ReLabel().run(_photos(), with_mlp, RunContext(budget=BUDGET))
    transformer = encoders.create("vit96", image_size=28, seed=0)
    head = {"class": Linear(width=transformer.width, outputs=10)}
    with pytest.raises(UserError, match="vit96"):
        ReLabel().run(_photos(), Model(transformer, head, model.info).eval(), RunContext(budget=BUDGET))


def _halves(n: int = 64) -> Dataset:
    """Left half bright and class 0, right half dark and class 1; the label says 0 for all of them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[..., :8] += 150
    values = torch.full((n, 1, 4, 4), 8.0)
    ids = torch.zeros(n, 1, 4, 4, dtype=torch.int64)
    ids[..., 2:] = 1
    columns = {"image": images, "class": torch.zeros(n, dtype=torch.int64)}
    return Dataset({**columns, "label_map_values": values, "label_map_ids": ids}, Info(class_names=("bright", "dark")))


@pytest.mark.parametrize("cutmix", [False, True])
def test_crops_learn_what_their_own_part_of_the_map_says(cutmix, margin: Margin):
    data, model = _halves(), _model(None, 16)
    learnt = (
        Supervised(cutmix=cutmix, batch=32, learning_rate=5e-3)
        .run(data, model, RunContext(budget=Budget(passes=2500.0)))
        .model
    )
    bright, dark = data["image"][:, :, :, :8], data["image"][:, :, :, 8:]
    parts = torch.cat([bright, bright], 3), torch.cat([dark, dark], 3)
    said = [learnt.predict(part)["class"].softmax(1).mean(0) for part in parts]
    margin("probability of bright", said[0][0], 0.8)
    margin("probability of dark", said[1][1], 0.8)


@pytest.mark.slow
def test_a_student_of_label_maps_learns(margin: Margin):
    photos = fashion.load()
    train, test = photos.fold(TRAIN).select(torch.arange(1500)), photos.select(torch.arange(12_000, 12_400))
    outcome = ReLabel().run(train, _model(None), RunContext(budget=Budget(passes=3500.0)))
    data, annotator = outcome.data, outcome.model
    student = Supervised().run(data, annotator, RunContext(budget=Budget(passes=3500.0))).model
    untrained = evaluate(_model(), test, "class").value
    learned = evaluate(student, test, "class").value
    margin("accuracy", learned, 0.3)
    margin("gain over the untrained", learned - untrained, 0.2)
