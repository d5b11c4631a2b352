"""MoCo-v3: its loss beside the published one, what it builds on ViTs and on others, and that it learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from margins import Margin
from sklearn.linear_model import LogisticRegression

from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion
from rushlight.methods.pretrain.moco_v3 import MoCoV3
from rushlight.nets import encoders
from rushlight.nets.vit import sincos
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext


@pytest.fixture(scope="module")
def photos() -> Dataset:
    return fashion.load().select(torch.arange(1500))


def fresh(name: str = "vit64-p7") -> Model:
    return Model(encoders.create(name, seed=0, image_size=28))


def prepared(photos: Dataset, encoder: str = "vit64-p7", **settings) -> MoCoV3:
    learner = MoCoV3(**settings)
    learner.prepare(photos, fresh(encoder), RunContext(seed=3, task=None))
    learner.plan = learner.plan_for(Budget(passes=2e3))
    return learner


def probe(model: Model, photos: Dataset) -> float:
    """Accuracy of a linear probe with 500 labels on the other photos."""
    features = model.predict(photos["image"], names=["features"])["features"]
    features = ((features - features.mean(0)) / features.std(0).clamp(min=1e-6)).numpy()
    labels = photos["class"].numpy()
    return LogisticRegression(C=0.1, max_iter=300).fit(features[:500], labels[:500]).score(features[500:], labels[500:])


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "least"), [("vit64-p7", 0.5), ("conv16", 0.65)])
def test_it_learns_features_without_labels_and_hands_on_the_projector(photos, encoder, least, margin: Margin):
    data = photos.without("class")
    recipe = Recipe.parse("moco-v3(batch=64)")
    trained = recipe.run(data, fresh(encoder), RunContext(task=None, budget=Budget(passes=10e3))).model
    assert trained.head_names == ["projector"]
    before, after = probe(fresh(encoder), photos), probe(trained, photos)
    margin("gain over the untrained", after - before, 0.03)
    margin("accuracy", after, least)


def official(query: torch.Tensor, key: torch.Tensor, temperature: float) -> torch.Tensor:
    """The published loss of one direction (moco-v3's `contrastive_loss`, solo-learn's `mocov3_loss_func`), in loops:
    both normalised, cross-entropy with the diagonal as target, times 2τ."""
    losses = []
    for i, q in enumerate(query):
        logits = [(q / q.norm()) @ (k / k.norm()) / temperature for k in key]
        losses.append(-logits[i] + sum(logit.exp() for logit in logits).log())
    return 2 * temperature * sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_ctr_is_the_published_loss(photos, temperature):
    learner = prepared(photos, temperature=temperature)
    queries, keys = (torch.randn(6, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
    found, expected = learner.ctr(queries, keys), official(queries, keys, temperature)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, (queries, keys)), torch.autograd.grad(expected, (queries, keys)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("encoder", ["vit64-p7", "conv16"])
def test_the_step_is_symmetric_and_each_view_has_a_forward_of_its_own(photos, encoder):
    learner = prepared(photos, encoder).double()
    batch, rng = learner.draw(12, 0), learner.generator()
    one, other = (view(batch["views"]["image"], generator=rng) for view in learner.policies)
    q = [learner.predictor(learner.model.logits(view, "projector")) for view in (one, other)]
    k = [learner.key_encoder.network.logits(view, "projector").detach() for view in (one, other)]
    loss = official(q[0], k[1], 0.2) + official(q[1], k[0], 0.2)
    trained = [p for p in learner.parameters() if p.requires_grad]
    expected = torch.autograd.grad(loss, trained)
    step = learner.step(batch)
    torch.testing.assert_close(step, loss)
    for mine, theirs in zip(torch.autograd.grad(step, trained), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-6)


def test_its_policies_are_the_published_pair(photos):
    first, second = prepared(photos).policies
    assert (first.blur, first.solarize) == (1.0, 0.0)
    assert (second.blur, second.solarize) == (0.1, 0.2)
    assert (first.brightness, first.contrast, first.saturation, first.hue) == (0.4, 0.4, 0.2, 0.1)


def test_on_a_vit_patches_and_positions_are_not_trained(photos):
    learner = prepared(photos)
    model = learner.model.encoder.model
    assert not any(p.requires_grad for p in model.patch_embed.parameters())
    assert torch.equal(model.patch_embed.proj.weight, fresh().encoder.model.patch_embed.proj.weight)
    assert not model.pos_embed.requires_grad
    # moco-v3's first half tells the row, in reading order
    assert torch.equal(model.pos_embed[0, 1:], sincos(4, 4, 64, column_first=False))
    assert model.pos_embed[0, 0].abs().sum() == 0
    settings = {name: learner.model.head("projector").config[name] for name in ("widths", "norm", "last_norm", "bias")}
    assert settings == {"widths": [64, 512, 512, 256], "norm": True, "last_norm": True, "bias": False}
    assert learner.predictor.config["widths"] == [256, 512, 256]
    assert learner.predictor.config["last_norm"]
    free = prepared(photos, freeze_patches=False, fixed_positions=False).model.encoder.model
    assert all(p.requires_grad for p in free.parameters())
    assert torch.equal(free.pos_embed, fresh().encoder.model.pos_embed)


def test_on_a_convolutional_network_heads_are_those_of_the_resnet(photos):
    learner = prepared(photos, "conv16", hidden=96)
    assert learner.model.head("projector").config["widths"] == [64, 96, 256]
    assert learner.predictor.config["widths"] == [256, 96, 256]
    assert not learner.predictor.config["last_norm"]
    assert all(p.requires_grad for p in learner.model.parameters())


def test_the_key_side_follows_by_a_rising_momentum_with_statistics_of_its_own(photos):
    learner = prepared(photos, "conv16", momentum=0.9)
    keys, queries = learner.key_encoder.network, learner.model
    start = [p.detach().clone() for p in keys.parameters()]
    with torch.no_grad():
        for parameter in queries.parameters():
            parameter.add_(1.0)
    learner.step_index = learner.plan.steps // 2
    learner.after_step()
    momentum = 1 - 0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * learner.progress)).item())
    for key, first in zip(keys.parameters(), start, strict=True):
        torch.testing.assert_close(key, first + (1 - momentum))
    learner.step_index = learner.plan.steps
    still = [p.detach().clone() for p in keys.parameters()]
    learner.after_step()
    assert all(torch.equal(key, before) for key, before in zip(keys.parameters(), still, strict=True))
    learner.step(learner.draw(16, 0))
    means = [name for name, _ in keys.named_buffers() if name.endswith("running_mean")]
    assert means
    assert all(not torch.equal(keys.get_buffer(name), queries.get_buffer(name)) for name in means)


def test_queries_alone_carry_gradients(photos):
    learner = prepared(photos)
    learner.step(learner.draw(16, 0)).backward()
    assert all(p.grad is None for p in learner.key_encoder.parameters())
    assert learner.predictor.layers[0].weight.grad.abs().sum() > 0


def test_without_information_the_loss_is_that_of_a_guess(photos):
    learner = prepared(photos)
    alike = F.normalize(torch.ones(16, 8), dim=1)
    assert learner.ctr(alike, alike).item() == pytest.approx(2 * 0.2 * torch.log(torch.tensor(16.0)).item())


def test_lars_scales_with_the_batch(photos):
    learner = prepared(photos, optimiser="lars", weight_decay=1e-6, batch=128)
    weights, plain = learner.make_optimiser().param_groups
    assert weights["lr"] == plain["lr"] == pytest.approx(0.3 * learner.plan.batch / 256)
    assert (weights["weight_decay"], plain["weight_decay"]) == (1e-6, 0.0)
