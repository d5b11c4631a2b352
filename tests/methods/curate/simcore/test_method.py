"""SimCore: which rows are the target, what is chosen from the rest, what is paid, and what it leaves."""

from __future__ import annotations

import pytest
import torch
from margins import Margin

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion
from rushlight.methods.curate.simcore.method import FAR, UNSEEN, SimCore
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

SHOES = torch.tensor([5, 7, 9])
RETRIEVAL = "simclr(batch=32)"


def fresh() -> Model:
    return Model(encoders.create("conv16", image_size=28, seed=0))


@pytest.fixture(scope="module")
def mixed() -> tuple[Dataset, torch.Tensor]:
    """200 labelled shoes, and 1,000 unlabelled images, of which a part are shoes; and which are shoes."""
    photos = fashion.load().select(torch.arange(2500))
    shoes = torch.isin(photos["class"], SHOES)
    own = shoes.nonzero()[:200, 0]
    rest = torch.tensor([row for row in range(2500) if row not in set(own.tolist())])[:1000]
    rows = torch.cat([own, rest])
    labels = photos["class"][rows].clone()
    labels[200:] = -1
    return Dataset({"image": photos["image"][rows], "class": labels}, photos.info), shoes[rows]


@pytest.mark.slow
def test_it_takes_what_looks_like_the_target_and_leaves_most_else(mixed, margin: Margin) -> None:
    data, shoes = mixed
    stage = SimCore(retrieval=RETRIEVAL, clusters=20, patience=3, factor=0.95)
    outcome = stage.run(data, fresh(), RunContext(seed=1, budget=Budget(passes=12e3)))
    kept, model = outcome.data, outcome.model
    chosen = outcome.pool.kept[200:]
    precision, base = shoes[200:][chosen].float().mean(), shoes[200:].float().mean()
    margin("precision over the base rate", precision / base, 2)
    margin("share that is chosen, at least", chosen.float().mean(), 0.02)
    margin("share that is chosen, at most", chosen.float().mean(), 0.6, below=True)
    assert len(kept) == 200 + int(chosen.sum())
    assert bool(outcome.pool.kept[:200].all())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh().parameters(), strict=True))


def test_what_is_paid_is_the_retrieval_and_the_reading(mixed) -> None:
    data, _ = mixed
    stage = SimCore(retrieval="simclr(batch=16)", clusters=10, patience=2)
    outcome = stage.run(data, fresh(), RunContext(budget=Budget(passes=2000)))
    assert 1800 < outcome.spent.passes <= 2000
    assert not outcome.pool.against[UNSEEN].any()
    outcome = stage.run(data, fresh(), RunContext(budget=Budget(passes=500)))
    assert 430 < outcome.spent.passes <= 500
    assert 0 < int(outcome.pool.against[UNSEEN].sum()) < 1000


def test_reasons_and_scores_tell_why(mixed) -> None:
    data, _ = mixed
    stage = SimCore(retrieval="simclr(batch=16)", clusters=10, patience=2)
    outcome = stage.run(data, fresh(), RunContext(budget=Budget(passes=1500)))
    pool = outcome.pool
    assert pool.against[FAR].sum() + pool.kept.sum() == len(data)
    scores = pool.scores["similarity to the target"]
    assert bool(scores[200:][pool.kept[200:]].isfinite().all())
    assert bool(scores[~pool.kept].isnan().all())


def test_a_domain_can_be_the_target(mixed) -> None:
    data, _ = mixed
    domain = (torch.arange(len(data)) < 200).long()
    named = data.without("class").with_columns(domain=domain).with_info(domain_names=("web", "own"))
    for target in ("domain:own", "domain:1"):
        assert SimCore(target=target).targets(named).nonzero()[:, 0].tolist() == list(range(200))
    with pytest.raises(UserError, match="no domain 'mine' in fashion; it has: web, own"):
        SimCore(target="domain:mine").targets(named)


def test_budgets_of_the_choice() -> None:
    assert SimCore()._most(10, 100_000) == 500
    assert SimCore(factor=None)._most(10, 100_000) == 1000
    assert SimCore(most=0.05)._most(10, 1000) == 50
    assert SimCore(most=70)._most(10, 1000) == 70


def test_choosing_again_and_a_recipe(mixed) -> None:
    data, _ = mixed
    recipe = Recipe.parse(
        "simcore(retrieval='simclr(batch=16)', clusters=10, patience=2, times=2) > simclr > supervised"
    )
    outcome = recipe.run(data, fresh(), RunContext(budget=Budget(passes=4e3)))
    model, spent = outcome.model, outcome.spent
    assert "class" in model.head_names
    assert spent.passes <= 4000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target": "own"}, "'labelled' or 'domain:NAME', not 'own'"),
        ({"retrieval": "supervised"}, "no joint-embedding learner"),
    ],
)
def test_what_cannot_be_is_told(settings: dict, says: str, mixed) -> None:
    with pytest.raises(UserError, match=says):
        SimCore(**settings).run(mixed[0], fresh(), RunContext(budget=Budget(passes=500)))


def test_without_a_target_or_an_open_set_it_says_so(mixed) -> None:
    data, _ = mixed
    with pytest.raises(UserError, match="none of fashion are images with a known class"):
        SimCore().run(data.hide(), fresh(), RunContext(budget=Budget(passes=500)))
    with pytest.raises(UserError, match="all of fashion are images with a known class"):
        SimCore().run(data.select(torch.arange(200)), fresh(), RunContext(budget=Budget(passes=500)))
