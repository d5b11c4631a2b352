"""What every task must do, whichever it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rushlight import tasks
from rushlight.augment import affine
from rushlight.augment.view import View
from rushlight.core.errors import UserError
from rushlight.data.columns import KINDS, TEST, TRAIN
from rushlight.data.dataset import Dataset, Info
from rushlight.nets import encoders
from rushlight.nets.heads import describe, rebuild
from rushlight.run.evaluate import batches, evaluate
from rushlight.run.model import Model, ModelInfo
from rushlight.tasks.base import by_class

NAMES = ("cat", "dog", "cow")


def test_labels_are_matched_by_name() -> None:
    data = Dataset(
        {"image": torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "class": torch.tensor([0, 1, 2, -1, 0])},
        Info(class_names=("dog", "emu", "cat")),
    )
    matched, notes = tasks.find("class").align(data, ModelInfo(names={"class": NAMES}))
    assert matched["class"].tolist() == [1, -1, 0, -1, 1]
    assert matched.info.class_names == NAMES
    assert "emu" in notes[0]
    with pytest.raises(UserError, match="not one name is common"):
        tasks.find("class").align(data, ModelInfo(names={"class": ("x", "y", "z")}))


def test_tags_and_masks_are_matched_by_name() -> None:
    columns = {
        "image": torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        "tags": torch.tensor([[1, 0]], dtype=torch.int8),
        "mask": torch.tensor([[[0, 1], [255, 1]]], dtype=torch.uint8),
    }
    data = Dataset(columns, Info(tag_names=("dog", "emu"), mask_names=("dog", "emu")))
    info = ModelInfo(names={"tag": NAMES, "mask": NAMES})
    assert tasks.find("tags").align(data, info)[0]["tags"].tolist() == [[-1, 1, -1]]
    assert tasks.find("mask").align(data, info)[0]["mask"].tolist() == [[[1, 255], [255, 255]]]


EVERY = tasks.names()


@pytest.fixture(scope="module", params=EVERY)
def task(request):
    return tasks.find(request.param)


@pytest.fixture(scope="module")
def data(task):
    return task.example()


@pytest.fixture(scope="module")
def model(task, data):
    encoder = encoders.create("conv16", image_size=data.height, seed=0)
    return Model(
        encoder, {task.id: task.head(encoder, data)}, ModelInfo.of(data.info, (data.height, data.width), task.id)
    )


def test_the_example_has_both_folds_and_true_labels(task, data):
    assert len(data.fold(TRAIN)) > len(data.fold(TEST)) > 0
    assert data.known(task.column).all()
    assert task.unscorable(data.fold(TEST)) == ""


def test_parts_have_one_row_an_image_and_do_not_depend_on_the_batches(task, data, model):
    test = data.fold(TEST)
    scores = evaluate(model, test)
    assert {len(values) for values in scores.parts.values()} == {len(test)}
    few = evaluate(model, test.select(torch.arange(7)))
    steady = [name for name in scores.parts if name != "found"]  # which of two equal peaks comes first is arithmetic's
    assert all(torch.allclose(few.parts[name], scores.parts[name][:7], atol=1e-4) for name in steady)


def test_what_is_left_out_is_left_out(task, data, model):
    parts = evaluate(model, data.fold(TEST)).parts
    rows = torch.arange(0, len(data.fold(TEST)), 2)
    half = task.value({name: values[rows] for name, values in parts.items()})
    block = torch.arange(len(data.fold(TEST))) % 2
    assert float(task.left_out(parts, block)[1]) == pytest.approx(half, abs=1e-9)


def test_the_loss_is_that_of_known_labels_alone(task, data, model):
    images = data["image"][:4].float() / 255
    output, target = model.eval().logits(images).detach(), data[task.column][:4]
    hidden = data.select(torch.arange(4)).hide(names=[task.column])[task.column]
    assert float(task.loss(output, hidden)) == 0
    mixed = torch.cat([target[:2], hidden[2:]])
    assert float(task.loss(output, mixed)) == pytest.approx(float(task.loss(output[:2], target[:2])), rel=1e-4)


def test_a_view_carries_the_labels_along(task, data):
    columns = {name: data[name][:6] for name in ("image", task.column)}
    for views in task.views((data.height, data.width)):
        images, target = task.view(views, columns, torch.Generator().manual_seed(0))
        assert images.shape == (6, 3, data.height, data.width)
        assert target.shape == columns[task.column].shape


def test_a_mirrored_view_mirrors_the_labels(task, data):
    """Labels that have a place move with a mirrored image, and come back when it is mirrored again."""
    size, target = (data.height, data.width), data[task.column][:6]
    geometry = affine.flip(torch.ones(6, dtype=torch.bool), data.width)
    mirror = replace(View.identity(6, size), geometry=geometry, sampling="nearest")
    images = data["image"][:6].float() / 255
    torch.testing.assert_close(mirror.images(data["image"][:6]), images.flip(-1), atol=1e-4, rtol=0)
    moved = task.moved(mirror, target)
    if not KINDS[task.column].geometric:
        assert torch.equal(moved, target)
        return
    assert not torch.equal(moved, target)
    if KINDS[task.column].moves == "masks":
        assert torch.equal(moved, target.flip(-1))
    if KINDS[task.column].moves == "boxes":
        x1, y1, x2, *others = target.unbind(-1)
        mirrored = torch.stack([data.width - x2, y1, data.width - x1, *others], -1)
        torch.testing.assert_close(moved, torch.where(target[..., 5:] > 0, mirrored, target), atol=1e-3, rtol=0)
    torch.testing.assert_close(task.moved(mirror, moved), target, atol=1e-3, rtol=0)


def test_a_head_is_made_again_from_its_description(task, model):
    head = model.head(task.id)
    again = rebuild(describe(head))
    again.load_state_dict(head.state_dict())
    assert type(again) is type(head)


def test_keep_leaves_every_class_its_labels_and_hides_no_test_row(task, data):
    few, more = task.keep(data, 2, seed=1), task.keep(data, 5, seed=1)
    known, training = few.known(task.column), data["fold"] == TRAIN
    assert 0 < int((known & training).sum()) < int(training.sum())
    assert known[~training].all()
    assert (task.presence(few)[known & training].sum(0) >= 2).all()
    assert not (known & ~more.known(task.column)).any()


def test_more_labels_than_there_are_is_told(task, data):
    with pytest.raises(UserError, match="ask for at most"):
        task.keep(data, 10_000)


def test_the_tables_have_one_row_an_image_and_one_a_class(task, data, model):
    rows = torch.arange(5)
    _, outputs, columns = next(batches(model, data, rows, task))
    table = task.table(outputs, model.info)
    assert all(len(values) == 5 for values in table.values())
    parts = task.parts(outputs, columns)
    findings = task.findings(parts, data, rows)
    assert findings[0].table("classes").names
    worst = task.worst(parts).tolist()
    assert worst
    assert set(worst) <= set(range(5))
    assert len(set(worst)) == len(worst)
    assert len({len(column) for column in task.counts(data).values()}) == 1


def test_pictures_are_drawn_on_images(task, data, model):
    _, outputs, columns = next(batches(model, data, torch.arange(3), task))
    pictures = list(task.pictures(outputs, columns, model.info))
    assert len(pictures) == (3 if KINDS[task.column].geometric else 0)
    for picture in pictures:
        assert picture.pixels.ndim == 3
        assert picture.pixels.shape[2] == 3


def test_labels_of_unknown_names_are_passed_over(task, data):
    names = task.names(data.info)
    assert len(names) >= 2, "an example needs a name to lose and one to keep"
    info = data.with_info(**{task.names_in[0]: (*names[1:], "another")}).info
    changed, notes = task.align(data, info)
    assert names[0] in notes[0]
    assert task.names(changed.info) == task.names(info)
    assert not task.presence(changed)[:, -1].any()
    assert torch.equal(task.presence(changed)[:, :-1], task.presence(data)[:, 1:])
    with pytest.raises(UserError, match="not one name is common"):
        task.align(data, data.with_info(**{task.names_in[0]: ("nothing",)}).info)


def test_every_share_of_a_class_is_shown_in_one_unit() -> None:
    table = by_class({"class": ["a"], "AP": [0.03], "AP50": [0.12]}).tables[0]
    assert [column.kind for column in table.columns[1:]] == ["share", "share"]
