"""MoCo-v2: its loss, its memory bank, its key encoder, and that it learns."""

from __future__ import annotations

import pretraining
import pytest
import torch
import torch.nn.functional as F
from margins import Margin
from pretraining import fresh, probed

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.methods.pretrain.moco import MoCo
from rushlight.run.budget import Budget
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext
from rushlight.train.shuffle import in_groups, shuffled


@pytest.fixture(scope="module")
def photos() -> Dataset:
    return pretraining.photos()


def prepared(photos: Dataset, **settings) -> MoCo:
    learner = MoCo(**settings)
    learner.prepare(photos, fresh(), RunContext(seed=3, task=None))
    learner.plan = learner.plan_for(Budget(passes=2e3))
    return learner


@pytest.mark.slow
def test_it_learns_features_without_labels_and_hands_on_the_query_encoder(photos, margin: Margin):
    data = photos.without("class")
    trained = Recipe.parse("moco(batch=64)").run(data, fresh(), RunContext(task=None, budget=Budget(passes=14e3))).model
    assert trained.head_names == ["projector"]
    before, after = probed(fresh()), probed(trained)
    margin("gain over the untrained", after - before, 0.03)
    margin("accuracy", after, 0.68)


def test_the_step_tells_each_key_from_the_memory_bank_and_only_queries_carry_gradients(photos):
    learner = prepared(photos, memory_bank_size=512).double()
    batch, rng = learner.draw(16, 0), learner.generator()
    one, other = (view(batch["views"]["image"], generator=rng) for view in learner.policies)
    q = F.normalize(learner.model.logits(one, "projector"), dim=1)
    k = F.normalize(learner.key_encoder.network.logits(other, "projector"), dim=1).detach()
    memory_bank = learner.memory_bank.values.clone()
    losses = []
    for i in range(16):
        own = (q[i] @ k[i] / 0.2).exp()
        losses.append(-(own / (own + sum((q[i] @ n / 0.2).exp() for n in memory_bank))).log())
    loss = sum(losses) / 16
    expected = torch.autograd.grad(loss, list(learner.model.parameters()))
    learner.step(batch).backward()
    torch.testing.assert_close(learner.step(batch), loss)
    for parameter, gradient in zip(learner.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-9, rtol=1e-6)
    assert all(p.grad is None for p in learner.key_encoder.parameters())
    assert torch.equal(learner.memory_bank.values, memory_bank)  # it is changed after the step


def test_queries_and_keys_share_statistics_with_other_images(photos):
    """Queries are normalised in groups as they come, keys in shuffled groups, and both come back in order."""
    learner = prepared(photos, group=8)
    batch, rng = learner.draw(16, 0), learner.generator()
    one, other = (view(batch["views"]["image"], generator=rng) for view in learner.policies)
    order = torch.randperm(16, generator=learner.joint_generator(1))
    assert order[:8].sort().values.tolist() != list(range(8))
    network = learner.key_encoder.network
    expected = torch.empty(16, 128)
    for rows in (order[:8], order[8:]):
        expected[rows] = network.logits(other[rows], "projector")
    learner.step(batch)
    torch.testing.assert_close(learner.keys, expected)
    plain = torch.cat([learner.model.logits(half, "projector") for half in (one[:8], one[8:])])
    together, _ = shuffled(learner, 16, 8)
    torch.testing.assert_close(in_groups(lambda x: learner.model.logits(x, "projector"), one, together), plain)
    assert not torch.allclose(learner.model.logits(one, "projector"), plain)


def test_after_k_over_b_steps_no_old_key_remains(photos):
    learner = prepared(photos, memory_bank_size=96, batch=32)
    first, seen = learner.memory_bank.values.clone(), []
    for at in range(4):
        learner.step_index = at
        learner.step(learner.draw(32, at))
        learner.after_step()
        seen.append(learner.keys)
        left = (learner.memory_bank.values[:, None] == first).all(2).any()
        assert bool(left) == (at < 2)
    assert torch.equal(learner.memory_bank.values, torch.cat([seen[3], seen[1], seen[2]]))
    assert learner.memory_bank.full


def test_the_key_encoder_follows_by_a_moving_average_with_statistics_of_its_own(photos):
    learner = prepared(photos, momentum=0.9, memory_bank_size=512)
    learner.key_encoder.warm = False
    keys, queries = learner.key_encoder.network, learner.model
    assert keys.training
    for key, query in zip(keys.parameters(), queries.parameters(), strict=True):
        assert torch.equal(key, query)
    start = [p.detach().clone() for p in keys.parameters()]
    with torch.no_grad():
        for parameter in queries.parameters():
            parameter.add_(1.0)
    learner.step(learner.draw(32, 0))
    for _ in range(3):
        learner.after_step()
    for key, first in zip(keys.parameters(), start, strict=True):
        torch.testing.assert_close(key, 0.9**3 * first + (1 - 0.9**3) * (first + 1))
    norm = [name for name, _ in keys.named_buffers() if name.endswith("running_mean")]
    assert norm
    assert all(not torch.equal(keys.get_buffer(name), queries.get_buffer(name)) for name in norm)


def test_its_views_and_projector_are_the_second_versions(photos):
    learner = prepared(photos)
    first, second = learner.policies
    assert first == second
    assert (first.jitter, first.grayscale, first.blur, first.flip, first.solarize) == (0.8, 0.2, 0.5, 0.5, 0.0)
    assert (first.brightness, first.contrast, first.saturation, first.hue) == (0.4, 0.4, 0.4, 0.1)
    assert first.crop_scale == (256 / 784, 1.0)
    head = learner.model.head("projector").config
    assert (head["widths"], head["norm"]) == ([64, 64, 128], True)
    assert not prepared(photos, norm=False).model.head("projector").config["norm"]


@pytest.mark.parametrize(
    ("images", "given", "size"), [(1500, None, 256), (1100, None, 256), (100, None, 256), (1500, 4096, 4096)]
)
def test_the_memory_bank_has_a_key_for_every_fourth_image_unless_told(photos, images, given, size):
    learner = MoCo(memory_bank_size=given)
    learner.prepare(photos.select(torch.arange(images)), fresh(), RunContext(task=None))
    assert len(learner.memory_bank.values) == size


def test_a_memory_bank_that_does_not_divide_into_batches_is_refused(photos):
    with pytest.raises(UserError, match="a memory bank of 1000 does not divide into batches of 256"):
        prepared(photos, memory_bank_size=1000)


def test_sgd_is_the_papers(photos):
    learner = prepared(photos, optimiser="sgd", batch=128)
    weights, plain = learner.make_optimiser().param_groups
    assert weights["lr"] == plain["lr"] == pytest.approx(0.03 * learner.plan.batch / 256)
    assert (weights["weight_decay"], plain["weight_decay"]) == (1e-4, 0.0)
