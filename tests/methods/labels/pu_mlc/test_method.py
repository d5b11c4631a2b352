"""PU-MLC's parts around its losses (which `test_positive_unlabelled.py` checks), and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from margins import Margin
from torch import nn

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic import scenes
from rushlight.methods.labels.pu_mlc import positive_unlabelled as pu
from rushlight.methods.labels.pu_mlc.method import PUMLC, above
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import RunContext

TAGS = RunContext(task="tags", seed=1)


def compose(n: int, **settings) -> Dataset:
    return scenes.compose(n, size=32, classes=[1, 5, 8], objects=(1, 2), scale=(0.5, 0.8), **settings)


def halved(data: Dataset) -> Dataset:
    """The images at half their size, and their tags."""
    images = torch.nn.functional.avg_pool2d(data["image"].float(), 2).round().byte()
    return Dataset({"image": images, "tags": data["tags"]}, data.info)


def initial(name: str = "conv16") -> Model:
    return Model(encoders.create(name, image_size=32, seed=0), {}, ModelInfo(image_size=(32, 32), task="tags"))


def prepared(data: Dataset, model: Model | None = None, **settings) -> PUMLC:
    learner = PUMLC(**{"warm_start": 0.0, **settings})
    learner.prepare(data, model or initial(), TAGS)
    learner.plan = learner.plan_for(Budget(passes=400.0))
    return learner


def test_absent_and_unknown_are_the_same():
    data = compose(48)
    forgotten = hide.positives_only(data, 1.0)
    assert (data["tags"] == 0).any()
    assert not (forgotten["tags"] == 0).any()
    losses = [learner.step(learner.draw(16, 0)) for learner in map(prepared, (data, forgotten))]
    assert torch.equal(*losses)
    fewer = prepared(hide.positives_only(data, 0.5))
    assert not torch.equal(fewer.step(fewer.draw(16, 0)), losses[0])


def test_a_step_is_the_variational_loss_and_the_consistency_of_mixed_halves(monkeypatch):
    """The second forward mixes the first half, permuted, with the second; an odd batch leaves out its middle."""
    learner, seen = prepared(compose(48), convolution="plain", consistency=0.5), []
    forward = learner.model.logits
    monkeypatch.setattr(learner.model, "logits", lambda images: seen.append(images) or forward(images))
    batch = learner.draw(9, 0)
    loss = learner.step(batch)
    images, mixed = seen
    assert len(mixed) == 4
    learner.model.train()
    rows = []
    for row, image in enumerate(mixed):
        other = images[5 + row]
        for first in images[:4]:
            step = (first - other).flatten()
            share = float((image - other).flatten() @ step / (step @ step))
            if torch.allclose(other + share * (first - other), image, atol=1e-5):
                rows.append((share, [bool(torch.equal(first, whole)) for whole in images].index(True)))
    shares, firsts = zip(*rows, strict=True)
    assert max(shares) - min(shares) < 1e-4
    assert sorted(firsts) == [0, 1, 2, 3]
    logits, positives = forward(images), batch["all"]["tags"] == 1
    q = torch.where(positives, 1.0, logits.sigmoid())
    target = shares[0] * q[list(firsts)] + (1 - shares[0]) * q[5:]
    regular = (target.log() - forward(mixed).sigmoid().log()).square().mean(0).sum()
    variational = pu.variational_multi_label(logits, positives, alpha=1.0, gamma=0.55)
    assert loss.item() == pytest.approx((variational + 0.5 * regular).item(), rel=1e-3)


def test_at_first_positives_are_told_from_the_batch_then_the_variational_loss_counts():
    learner = prepared(compose(48), convolution="plain", warm_start=0.5)
    batch = learner.draw(16, 0)
    first = learner.step(batch)
    assert set(learner.logged) == {"balanced"}
    positives = batch["all"]["tags"] == 1
    images = learner.weak(batch["all"]["image"], generator=learner.generator())
    want = pu.balanced_cross_entropy(learner.model.logits(images), positives)
    torch.testing.assert_close(first, want, rtol=1e-3, atol=1e-4)
    learner.step_index = learner.plan.steps // 2 + 1
    learner.step(batch)
    assert set(learner.logged) == {"variational", "regular"}


def test_every_convolution_but_the_first_is_widened_and_the_model_comes_back(tmp_path: Path):
    data = compose(64)
    stage = PUMLC(batch=16)
    model = stage.run(data, initial(), replace(TAGS, budget=Budget(passes=200.0))).model
    assert model.encoder.name == "conv16+local-global"
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), model.parameters(), strict=True))
    found, expected = (each.predict(data["image"][:8])["tags"] for each in (again, model))
    torch.testing.assert_close(found, expected)  # to rounding: weights in memory are channels-last after training


def test_a_widened_encoder_is_created_by_name_and_pays_for_its_branches():
    plain, wide = (encoders.create(name, image_size=32, seed=3) for name in ("conv16", "conv16+local-global"))
    assert sum(p.numel() for p in wide.parameters()) > sum(p.numel() for p in plain.parameters())
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, after = plain.eval()(images), wide.eval()(images)
    assert 0 < (before - after).norm() / before.norm() < 1e-2
    with pytest.raises(UserError, match=r"conv16\+global"):
        encoders.create("conv16+global")
    data = compose(32)
    costs = [prepared(data, convolution=kind).plan.step_flops for kind in ("plain", "local-global")]
    assert costs[1] > 1.05 * costs[0]
    assert prepared(data).plan.pass_flops == prepared(data, convolution="plain").plan.pass_flops


def test_frozen_trains_the_last_stage_the_branches_and_the_head_alone():
    data = compose(64)
    learner = prepared(data, initial("resnet10t"), frozen=True, batch=16)
    trained = {name for name, p in learner.model.encoder.named_parameters() if p.requires_grad}
    assert trained == {
        name for name, _ in learner.model.encoder.named_parameters() if "layer4" in name or ".branch." in name
    }
    assert any(".branch." in name and "layer1" in name for name in trained)
    learner.train()
    assert not any(m.training for m in learner.model.modules() if isinstance(m, nn.BatchNorm2d))
    assert learner.model.head("tags").training


def test_what_lies_above_the_second_last_level():
    encoder = encoders.create("conv16", image_size=32, seed=0).train()
    names = dict(encoder.named_parameters())
    last = above(encoder, (32, 32))
    assert {id(p) for p in last} == {id(p) for name, p in names.items() if name.startswith("stages.3")}
    assert encoder.training
    assert all(int(m.num_batches_tracked) == 0 for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_decoupling_head_reads_maps_and_comes_back(tmp_path: Path):
    data = compose(64)
    model = (
        PUMLC(head="decoupling", convolution="plain", batch=16)
        .run(data, initial(), replace(TAGS, budget=Budget(passes=300.0)))
        .model
    )
    assert model.head("tags").reads == "maps"
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert torch.equal(again.predict(data["image"][:8])["tags"], model.predict(data["image"][:8])["tags"])


@pytest.mark.slow
def test_it_learns_from_a_third_of_the_positives(margin: Margin):
    """With the default settings; answering alike for every image has a mean average precision of 0.46."""
    train, test = halved(hide.positives_only(compose(500), 0.3, seed=1)), halved(compose(300, fold=TEST))
    start = Model(encoders.create("conv16", image_size=16, seed=0), {}, ModelInfo(image_size=(16, 16), task="tags"))
    model = PUMLC().run(train, start, replace(TAGS, budget=Budget(passes=16_000.0))).model
    found, alike = evaluate(model, test, "tags"), float((test["tags"] == 1).float().mean())
    margin("mAP, gain over alike answers", found.value - alike, 0.1)
    margin("mean score: not yes to everything", found.parts["scores"].mean(), 0.9, below=True)
