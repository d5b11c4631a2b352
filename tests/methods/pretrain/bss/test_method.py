"""BSS: what it changes of a learner, that every learner takes it, and that domains are told less."""

from __future__ import annotations

import pytest
import torch
from margins import Margin
from pretraining import fresh, photos

from rushlight.core.catalogue import cards, load_method
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import info_nce
from rushlight.measure import knn
from rushlight.measure.features import pooled
from rushlight.methods.pretrain.bss.method import BSS, COLOUR, STYLE
from rushlight.methods.pretrain.bss.style import exchange, standardise
from rushlight.run.budget import Budget
from rushlight.run.stage import RunContext
from rushlight.train.joint_embedding import JointEmbedding

JOINT = [name for name in cards() if issubclass(load_method(name), JointEmbedding)]


def prepared(**settings) -> BSS:
    stage = BSS(**settings)
    vit = stage.learner.card.encoder == "vit"
    stage.learner.prepare(
        photos().without("class"), fresh("vit64-p7" if vit else "conv16"), RunContext(seed=3, task=None)
    )
    stage.learner.plan = stage.learner.plan_for(Budget(passes=500))
    return stage


@pytest.mark.parametrize(
    "base", [name if name in ("simclr", "dino") else pytest.param(name, marks=pytest.mark.slow) for name in JOINT]
)
def test_every_joint_embedding_learner_takes_it(base: str) -> None:
    learner = prepared(base=base).learner
    loss = learner.step(learner.draw(8, 0))
    loss.backward()
    assert loss.isfinite()
    assert any(p.grad is not None and bool(p.grad.any()) for p in learner.model.parameters())


def test_each_view_has_one_style_and_the_views_differ() -> None:
    stage = prepared(area=(0.02, 0.02))
    batch = stage.learner.draw(16, 0)
    tints = torch.rand(16, 3, 1, 1, generator=torch.Generator().manual_seed(1)) * 200
    batch["views"]["image"] = (batch["views"]["image"] * 0.2 + tints).byte()
    one, other = stage.learner.views(batch)
    means = [view.mean((2, 3)) for view in (one, other)]
    assert max(float(mean.std(0).amax()) for mean in means) < 0.05
    assert float((means[0].mean(0) - means[1].mean(0)).abs().amax()) > 0.05


def test_the_loss_compares_within_a_view() -> None:
    for negatives, per_view in (("same_view", True), ("all", False)):
        learner = prepared(negatives=negatives).learner
        batch = learner.draw(16, 0)
        embeddings = learner.embed(learner.views(batch))
        torch.testing.assert_close(learner.step(batch), info_nce(embeddings, temperature=0.5, per_view=per_view))
    assert not prepared(sharing=False).learner.per_view


def test_more_views_for_simclr_alone() -> None:
    learner = prepared(views=4).learner
    assert len(learner.views(learner.draw(8, 0))) == 4
    with pytest.raises(UserError, match="'dino' its own number"):
        BSS(base="dino", views=4)


@pytest.mark.parametrize("jitter", ["image", "batch"])
@pytest.mark.parametrize("sharing", [True, False])
def test_it_is_the_fourier_part_of_the_learners_own_view(sharing: bool, jitter: str) -> None:
    learner = prepared(jitter=jitter, sharing=sharing).learner
    batch, area = learner.draw(8, 0), (0.02, 0.2)
    generator, styles, colours = learner.generator(), learner.joint_generator(STYLE), learner.joint_generator(COLOUR)
    views = learner.views(batch)
    assert len(views) == len(learner.policies)
    for policy, mine in zip(learner.policies, views, strict=True):
        shared = colours if jitter == "batch" else None
        view, _ = policy.with_view(batch["views"]["image"], generator=generator, shared=shared)
        if sharing:
            wanted = standardise(view, area=area, generator=styles)
        else:
            wanted = exchange(view, area=area, generator=generator)
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base": "supervised"}, "no joint-embedding learner"),
        ({"base": "simcl"}, "Did you mean 'simclr'"),
        ({"area": (0.5, 0.1)}, "the smaller first"),
        ({"negatives": "none"}, "same_view or all"),
    ],
)
def test_what_cannot_be_is_said(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        BSS(**settings)


@pytest.mark.slow
def test_features_tell_domains_apart_less_than_without_it(margin: Margin) -> None:
    data = photos()
    domain = torch.arange(len(data)) % 2
    tint = torch.tensor([[1.0, 0.6, 0.3], [0.3, 0.6, 1.0]])[domain][:, :, None, None]
    ground = torch.tensor([[40.0, 10.0, 0.0], [0.0, 10.0, 40.0]])[domain][:, :, None, None]
    styled = Dataset({"image": (data["image"] * tint * 0.8 + ground).clamp(0, 255).byte()})
    found = {}
    for name, stage in {
        "plain": load_method("simclr")(batch=64, strength=0.25),
        "bss": BSS(base="simclr(batch=64, strength=0.25)"),
    }.items():
        model = stage.run(styled, fresh(), RunContext(task=None, budget=Budget(passes=10e3))).model
        found[name] = knn.purity(pooled(model, styled["image"]), domain)
    margin("purity of domains, plain less bss", found["plain"] - found["bss"], 0.03)
