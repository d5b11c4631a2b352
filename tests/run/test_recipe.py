from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders
from rushlight.run import recipe as recipes
from rushlight.run.budget import Budget, Spent
from rushlight.run.context import RunContext
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Outcome, Stage


def test_a_recipe_is_read_and_written() -> None:
    recipe = Recipe.parse("barlow-twins(share=0.6) >fixmatch(threshold = 0.7, ratio=3)")
    assert [step.name for step in recipe.steps] == ["barlow-twins", "fixmatch"]
    assert recipe.steps[1].arguments == {"threshold": 0.7, "ratio": 3}
    assert recipe.shares() == pytest.approx([0.6, 0.4])
    assert Recipe.parse(str(recipe)) == recipe


def test_shares_are_equal_unless_named_and_never_exceed_one() -> None:
    assert Recipe.parse("barlow-twins > supervised > fixmatch").shares() == pytest.approx([1 / 3] * 3)
    with pytest.raises(UserError, match="sum to 1"):
        Recipe.parse("barlow-twins(share=0.7) > supervised(share=0.7)")
    with pytest.raises(UserError, match="sum to 1"):
        Recipe.parse("barlow-twins(share=1.0) > supervised")
    with pytest.raises(UserError, match="between 0 and 1"):
        Recipe.parse("barlow-twins(share=2) > supervised")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty stage"),
        ("supervised > ", "empty stage"),
        ("fixmach", "Did you mean 'fixmatch'"),
        ("fixmatch(thresold=0.5)", "Did you mean 'threshold'"),
        ("fixmatch(0.5)", "name=value"),
        ("fixmatch(threshold=open('x'))", "name=value"),
        ("fixmatch(threshold=0.5", "name=value"),
        ("rankme > supervised", "not a stage"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        Recipe.parse(text)


RAN: list[tuple[str, float]] = []
"""(stage, budget) of each stage that ran."""


class Thrifty(Stage):
    """A stage that spends half of what it may."""

    card = SimpleNamespace(id="thrifty")  # type: ignore[assignment]
    part = 0.5

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        RAN.append((self.card.id, float(ctx.budget.passes or 0)))
        used = Spent(passes=self.part * (ctx.budget.passes or 0))
        return Outcome(data, model.copy(), used, ((ctx.spent_before.passes + used.passes, 0.5),))


class Greedy(Thrifty):
    """A stage that spends all that it may."""

    card = SimpleNamespace(id="greedy")  # type: ignore[assignment]
    part = 1.0


class Free(Thrifty):
    """A stage that takes no share, and costs 10 passes."""

    card = SimpleNamespace(id="free")  # type: ignore[assignment]
    spends = False

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        return Outcome(data, model, Spent(passes=10.0))


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Model]:
    kinds = {"thrifty": Thrifty, "greedy": Greedy, "free": Free}
    monkeypatch.setattr(recipes, "load_method", lambda name: kinds[name])
    RAN.clear()
    data = Dataset({"image": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)})
    return data, Model(encoders.create("conv16", image_size=8))


def test_what_a_stage_leaves_unused_goes_to_the_next(stages: tuple[Dataset, Model]) -> None:
    outcome = Recipe.parse("thrifty > greedy").run(*stages, RunContext(budget=Budget(passes=100)))
    assert RAN == [("thrifty", 50.0), ("greedy", 75.0)]
    assert outcome.spent.passes == 100
    assert [passes for passes, _ in outcome.curve] == [25, 100]


def test_a_stage_without_a_share_is_charged(stages: tuple[Dataset, Model]) -> None:
    outcome = Recipe.parse("free > greedy").run(*stages, RunContext(budget=Budget(passes=100)))
    assert RAN == [("greedy", 90.0)]
    assert outcome.spent.passes == 100


def test_the_model_knows_how_it_came_about(stages: tuple[Dataset, Model]) -> None:
    model = Recipe.parse("thrifty(share=0.2) > greedy").run(*stages, RunContext(seed=4)).model
    assert (model.info.origin, model.info.seed) == ("thrifty > greedy", 4)
    assert model.info.recipe == "thrifty(share=0.2) > greedy"


def test_recipes_that_begin_alike_share_what_they_begin_with(stages: tuple[Dataset, Model], tmp_path: Path) -> None:
    def shelf(prefix: str, budgets: tuple[Budget, ...]) -> Path:
        return tmp_path / f"{prefix} {budgets}".replace("/", "")

    ctx = RunContext(budget=Budget(passes=100))
    alone = Recipe.parse("thrifty > greedy").run(*stages, ctx)
    Recipe.parse("thrifty > thrifty").run(*stages, ctx, shelf=shelf)
    shared = Recipe.parse("thrifty > greedy").run(*stages, ctx, shelf=shelf)
    Recipe.parse("thrifty(share=0.2) > greedy").run(*stages, ctx, shelf=shelf)
    names = [name for name, _ in RAN]
    assert names == ["thrifty", "greedy", "thrifty", "thrifty", "greedy", "thrifty", "greedy"]
    assert (shared.spent, shared.curve) == (alone.spent, alone.curve)  # counted as if alone
