"""MLCD: what labels are, that the student starts anew, what the step is, what is paid, and that it learns."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from margins import Margin
from pretraining import fresh, photos, prepared, probed, trained

from rushlight.core.arguments import checked
from rushlight.core.errors import UserError
from rushlight.measure.features import pooled
from rushlight.measure.preprocessing import Reader
from rushlight.methods.pretrain.mlcd.method import MLCD
from rushlight.methods.pretrain.mlcd.multi_label import mlc, mlcd
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import RunContext


@pytest.mark.slow
def test_a_student_learns_from_a_teachers_clusters(margin: Margin) -> None:
    teacher = trained("simclr(batch=64)", passes=10e3)
    stage = MLCD(clusters=60, positives=4, batch=32, scale=16.0)
    outcome = stage.run(photos().without("class"), teacher, RunContext(task=None, budget=Budget(passes=14e3)))
    student = outcome.model
    margin("gain over the untrained", probed(student) - probed(fresh()), 0.03)
    assert student.head_names == []


def test_labels_are_the_nearest_clusters_and_stay(margin: Margin) -> None:
    learner = prepared(MLCD, clusters=40, positives=3)
    assert learner.labels.shape == (1500, 3)
    assert int(learner.labels.max()) < 40
    assert all(len(set(row)) == 3 for row in learner.labels[:50].tolist())
    features = torch.nn.functional.normalize(pooled(learner.source_model, photos()["image"]), dim=1)
    first = learner.labels[:, 0]
    same = first[:, None] == first
    cosine = features @ features.T
    margin("cosine within clusters less between", cosine[same].mean() - cosine[~same].mean(), 0.01)


@pytest.mark.parametrize(("loss", "function"), [("mlcd", mlcd), ("mlc", mlc)])
def test_the_step_is_the_loss_on_all_clusters(loss: str, function) -> None:  # type: ignore[no-untyped-def]
    learner = prepared(MLCD, clusters=40, positives=3, loss=loss, sampled=1.0, margin=0.0, scale=10.0)
    batch = learner.draw(16, 0)
    view = learner.view(batch["views"]["image"], generator=learner.generator())
    e = learner.model.encoder(view)
    cosines = (e / e.norm(dim=1, keepdim=True)) @ (learner.weight / learner.weight.norm(dim=1, keepdim=True)).T
    positives = torch.zeros(16, 40, dtype=torch.bool).scatter_(1, learner.labels[batch["views"]["row"]], True)
    torch.testing.assert_close(learner.step(batch), function(10 * cosines, positives).mean())


def test_only_active_clusters_get_gradients() -> None:
    learner = prepared(MLCD, clusters=80, positives=2, sampled=0.2)
    batch = learner.draw(4, 0)
    learner.step(batch).backward()
    touched = learner.weight.grad.abs().sum(1) > 0
    assert int(touched.sum()) == 16
    assert bool(touched[learner.labels[batch["views"]["row"]].flatten()].all())


def test_the_student_starts_anew_unless_told() -> None:
    for restart in (True, False):
        learner = prepared(MLCD, clusters=40, restart=restart)
        same = torch.equal(next(learner.model.encoder.parameters()), next(learner.source_model.encoder.parameters()))
        assert same is not restart


def test_the_teachers_forwards_are_paid_for() -> None:
    stage = MLCD(clusters=32, batch=8)
    data = photos().without("class")
    outcome = stage.run(data, fresh(), RunContext(task=None, budget=Budget(passes=800)))
    _ = outcome.model
    assert 700 < outcome.spent.passes <= 800
    images, paid = stage.teaching(data, fresh(), RunContext(budget=Budget(passes=800)))
    assert images < len(data)
    assert 100 < paid.passes <= 200
    assert len(stage.chosen) == images


def test_the_teachers_forwards_take_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They take at most a quarter of the minutes, as the first images tell; the clusters' time is counted too."""
    read, label = Reader.features, MLCD.label

    def slow(self: Reader, images: Any) -> torch.Tensor:
        time.sleep(0.004 * len(images))
        return read(self, images)

    def clustered(self: MLCD, features: torch.Tensor) -> torch.Tensor:
        time.sleep(0.3)
        return label(self, features)

    monkeypatch.setattr(Reader, "features", slow)
    monkeypatch.setattr(MLCD, "label", clustered)
    stage, data = MLCD(clusters=32, batch=8), photos().without("class")
    ctx = RunContext(task=None, budget=Budget(minutes=2 / 60), folder=tmp_path)
    outcome = stage.run(data, fresh(), ctx)
    assert 16 < stage.allowed <= 125  # half a second
    assert outcome.spent.seconds >= 0.3 + 0.004 * stage.allowed
    assert stage.teaching(data, fresh(), ctx)[0] == stage.allowed  # a run that goes on embeds as many


def test_a_teacher_can_be_named(tmp_path: Path) -> None:
    fresh(seed=7).save(tmp_path / "teacher")
    named, given = prepared(MLCD, clusters=40, teacher=str(tmp_path / "teacher")), prepared(MLCD, clusters=40)
    assert not torch.equal(named.labels, given.labels)
    with pytest.raises(UserError, match="there is no encoder 'nobody'"):
        prepared(MLCD, teacher="nobody")


def test_a_teacher_reads_images_of_its_own_size(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []
    teacher = Model(encoders.create("conv16", image_size=56, seed=7), {}, ModelInfo(image_size=(56, 56)))
    teacher.save(tmp_path / "teacher")
    loaded = Model.load(tmp_path / "teacher")
    loaded.encoder.register_forward_hook(lambda module, given, result: seen.append(tuple(given[0].shape[2:])))
    stage = MLCD(clusters=40, teacher=str(tmp_path / "teacher"))
    stage.teacher_model = lambda source: loaded  # type: ignore[method-assign]
    data = photos().without("class")
    stage.prepare(data, fresh(), RunContext(seed=3, task=None))
    assert set(seen) == {(56, 56)}
    small, large = (MLCD(teacher=teacher).teaching(data, fresh(), RunContext())[1].passes
                    for teacher in (None, str(tmp_path / "teacher")))  # fmt: skip
    assert large > 2.5 * small  # four times the pixels of 28, three of 32, are paid for


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(UserError, match="loss is 'mlcd' or 'mlc'"):
        checked("mlcd", MLCD, {"loss": "ce"})
