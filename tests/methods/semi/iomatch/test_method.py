"""IOMatch: its step against plain loops, its two filters, its add-ons, and that it learns and rejects."""

from __future__ import annotations

import pytest
import torch
from margins import Margin
from torch import nn

from rushlight.augment import presets
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.methods.semi.iomatch.method import IOMatch
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import RunContext
from rushlight.train.plan import Plan

UNSEEN = ["sandal", "bag", "ankle boot"]


@pytest.fixture(scope="module")
def open_photos() -> Dataset:
    """Seven seen classes with 20 labels each, and three classes that occur only unlabelled; a test fold of 500."""
    whole = fashion.load()
    chosen = torch.cat([torch.arange(1500), torch.arange(12_000, 12_500)])
    return hide.per_class(hide.open_set(whole.select(chosen), UNSEEN), 20)


def fresh() -> Model:
    return Model(encoders.create("conv16", seed=0, image_size=28))


def prepared(data: Dataset, **settings) -> IOMatch:
    """A learner ready for `step`, whose views are the images themselves."""
    learner = IOMatch(**{"batch": 4, "ratio": 2, "joint": True, **settings})
    learner.prepare(data, fresh(), RunContext(seed=3))
    learner.plan = Plan(4, 100, 1.0, 1.0)
    learner.weak = learner.strong = presets.identity(28)
    for head in (learner.model.head("class"), learner.detectors):  # sure of some and unsure of others
        head.linear.weight.data *= 20
    return learner


def plainly(learner: IOMatch, batch, history: torch.Tensor, step: int) -> torch.Tensor:
    """The loss image by image, as the paper writes it."""
    images = torch.cat([batch["labelled"]["image"], batch["unlabelled"]["image"], batch["unlabelled"]["image"]])
    features = learner.model.encoder(images / 255)
    projected = learner.model.head("open").heads[0](features)
    closed = learner.model.head("class")(features).log_softmax(1)
    pairs = learner.detectors(projected).view(len(images), 2, -1).softmax(1)
    opened = learner.model.head("open")(features).log_softmax(1)
    n, m, k = 4, 8, closed.shape[1]
    loss = torch.zeros(())
    for row, label in enumerate(batch["labelled"]["class"].tolist()):
        negatives = [-(pairs[row, 0, other] + 1e-8).log() for other in range(k) if other != label]
        loss = loss + (-closed[row, label] - (pairs[row, 1, label] + 1e-8).log() + max(negatives)) / n
    with torch.no_grad():
        history = history.clone()
        history[step % len(history)] = closed[n : n + m].exp().mean(0)
        p = closed[n : n + m].exp() * (1 / k + 1e-6) / (history.mean(0) + 1e-6)
        p = p / p.sum(1, keepdim=True)
    for row in range(m):
        inlier, outlier = pairs[n + row, 1].detach(), pairs[n + row, 0].detach()
        unseen = sum(float(p[row, c] * outlier[c]) for c in range(k))
        q = torch.tensor([float(p[row, c] * inlier[c]) for c in range(k)] + [unseen])
        if float(p[row].max()) >= learner.closed_threshold and unseen < 0.5:
            loss = loss - (p[row] * closed[n + m + row]).sum() / m
        if float(q.max()) >= learner.open_threshold and learner._opened():
            loss = loss - (q * opened[n + m + row]).sum() / m
    return loss


@pytest.mark.parametrize("open_from", [0, 5])
def test_its_step_equals_plain_loops_in_value_and_gradient(open_photos, open_from):
    learner = prepared(open_photos.fold(0), closed_threshold=0.45, open_threshold=0.6, open_from=open_from, alignment=4)
    batch = learner.draw(4, 0)
    want = plainly(learner, batch, learner.history, 0)
    got = learner.step(batch)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert 0 < float(learner.logged["kept"]) < 1
    assert 0 < float(learner.logged["sure"]) < 1
    trained = [p for p in learner.parameters() if p.requires_grad]
    pairs = zip(
        torch.autograd.grad(got, trained, allow_unused=True),
        torch.autograd.grad(want, trained, allow_unused=True),
        strict=True,
    )
    for mine, plain in pairs:
        if mine is not None and plain is not None:
            torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4)


class Certain(nn.Module):
    """Detectors that call everything an inlier of every class, or an outlier of all."""

    def __init__(self, classes: int, inlier: bool):
        super().__init__()
        self.register_buffer(
            "pair", torch.tensor([-40.0, 40.0] if inlier else [40.0, -40.0]).repeat_interleave(classes)
        )

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        return self.pair.expand(len(projected), -1)


@pytest.mark.parametrize("inlier", [True, False])
def test_detectors_rule_which_images_teach_the_closed_classifier(open_photos, inlier):
    learner = prepared(open_photos.fold(0), closed_threshold=0.0)
    learner.detectors = Certain(7, inlier)
    learner.step(learner.draw(4, 0))
    assert float(learner.logged["kept"]) == float(inlier)
    assert float(learner.logged["outliers"]) == float(not inlier)
    assert float(learner.logged["inliers"] > 0) == float(inlier)


def test_alignment_can_be_off_and_its_history_is_part_of_the_state(open_photos):
    aligned, plain = prepared(open_photos.fold(0)), prepared(open_photos.fold(0), alignment=0)
    for learner in (aligned, plain):
        learner.step(learner.draw(4, 0))
    assert "history" in aligned.state_dict()
    assert bool(aligned.history[0].sum() > 0.99)
    assert not bool(aligned.history[1:].any())
    assert not bool(plain.history.any())


def test_the_open_loss_waits_for_its_step_or_a_tenth_of_the_training(open_photos):
    learner = prepared(open_photos.fold(0), open_from=1024)
    learner.plan = Plan(4, 10**6, 1.0, 1.0)
    weighted = {}
    for step in (0, 1023, 1024):
        learner.step_index = step
        weighted[step] = learner._opened()
    assert weighted == {0: 0.0, 1023: 0.0, 1024: 1.0}


def test_the_rotation_head_sees_four_turns_and_leaves_the_statistics_alone(open_photos):
    learner = prepared(open_photos.fold(0), rotation_weight=1.0)
    images = open_photos["image"][:3] / 255
    before = [b.clone() for b in learner.model.encoder.buffers() if b.is_floating_point()]
    loss = learner._rotation_loss(images)
    after = [b for b in learner.model.encoder.buffers() if b.is_floating_point()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    turned = torch.cat([torch.rot90(images, turn, (2, 3)) for turn in range(4)])
    logits = learner.rotations(learner.model.encoder(turned)).log_softmax(1)
    want = -torch.stack([logits[3 * turn + i, turn] for turn in range(4) for i in range(3)]).mean()
    torch.testing.assert_close(loss, want)


def test_the_instance_loss_equals_plain_loops(open_photos):
    learner = prepared(open_photos.fold(0), instance_weight=1.0, temperature=0.5)
    rows = learner._rows["labelled"][:3]
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(size, 128, generator=generator) for size in (3, 2, 2)]
    parts[2].requires_grad_()
    closed = torch.rand(2, 7, generator=generator).softmax(1)
    loss = learner._instance_loss(tuple(parts), closed, rows)
    own, weak, strong = (nn.functional.normalize(part, dim=1) for part in parts)
    labels, want = open_photos.fold(0)["class"][rows], torch.zeros(())
    for row in range(2):
        near = torch.stack([(weak[row] @ own[j] / 0.5).exp() for j in range(3)])
        target = torch.stack([near[j] * closed[row, labels[j]] for j in range(3)])
        answer = torch.stack([strong[row] @ own[j] / 0.5 for j in range(3)])
        want = want - (target / target.sum() * answer.log_softmax(0)).sum() / 2
    torch.testing.assert_close(loss, want)
    mine, plain = (torch.autograd.grad(value, parts[2])[0] for value in (loss, want))
    torch.testing.assert_close(mine, plain)


@pytest.mark.slow
def test_it_learns_the_seen_classes_and_an_open_head_beside_them(open_photos, margin: Margin):
    train, test = open_photos.fold(0), open_photos.fold(1)
    learner = IOMatch(ratio=2, batch=16)
    model = learner.run(train, fresh(), RunContext(seed=0, budget=Budget(passes=6e3))).model
    assert model.head_names == ["class", "open"]
    outputs, seen = model.predict(test["image"]), test["class"] < 7
    assert outputs["open"].shape[1] == 8
    learner.prepare(train, fresh(), RunContext(seed=0))
    untrained = learner.model.predict(test["image"], names=["class"])["class"]
    before, after = (
        float((logits.argmax(1) == test["class"])[seen].double().mean()) for logits in (untrained, outputs["class"])
    )
    margin("gain over the untrained", after - before, 0.2)
    margin("accuracy", after, 0.45)
    assert learner.parts["unlabelled"] == 2


def test_without_a_joint_forward_the_targets_still_come_from_the_weak_views(open_photos):
    together, apart = prepared(open_photos.fold(0)), prepared(open_photos.fold(0), joint=False)
    for learner in (together, apart):
        learner.model.eval()  # without batch statistics the two ways are the same
    losses = [learner.step(learner.draw(4, 0)) for learner in (together, apart)]
    torch.testing.assert_close(*losses)


def test_a_small_budget_lowers_the_ratio_at_last(open_photos):
    learner = IOMatch()
    learner.prepare(open_photos.fold(0), fresh(), RunContext())
    generous, small = learner.plan_for(Budget(passes=3e6)), learner.plan_for(Budget(passes=6e4))
    assert (generous.batch, small.batch) == (64, 16)
    assert learner.parts == {"labelled": 1, "unlabelled": 3}
