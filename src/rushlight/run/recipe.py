"""Recipes: stages in a row, written `"barlow-twins > iomatch(closed_threshold=0.7)"`, sharing one budget."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import Any

from rushlight.core.arguments import checked
from rushlight.core.catalogue import load_method
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.run.budget import Budget, Spent
from rushlight.run.model import Model
from rushlight.run.stage import Judge, RunContext, Stage


@dataclass(frozen=True)
class Step:
    """One stage of a recipe: a system's id, its arguments, and its share of the budget (None: an equal part)."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    share: float | None = None

    def __str__(self) -> str:
        settings = dict(self.arguments) | ({"share": self.share} if self.share is not None else {})
        inner = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        return f"{self.name}({inner})" if inner else self.name

    def stage(self) -> Stage:
        """The stage, made with its arguments.

        Raises:
            UserError: no such system, one that is no stage, or an argument that it does not have or cannot have.
        """
        kind = load_method(self.name)
        if not issubclass(kind, Stage):
            role, user = kind.card.role, "judge" if issubclass(kind, Judge) else "audit"
            raise UserError(f"'{self.name}' is a {role}, not a stage of a recipe: `rushlight {user}` uses it")
        return kind(**checked(self.name, kind, self.arguments))

    def judge(self) -> Judge:
        """The judge, made with its arguments.

        Raises:
            UserError: no such system, one that is no judge, or an argument that it does not have or cannot have.
        """
        kind = load_method(self.name)
        if not issubclass(kind, Judge):
            user = "fit" if issubclass(kind, Stage) else "audit"
            raise UserError(f"'{self.name}' is a {kind.card.role}, not a judge: `rushlight {user}` uses it")
        if self.share is not None:
            raise UserError(f"'{self.name}' is a judge, and takes no share of a budget: leave 'share' away")
        return kind(**checked(self.name, kind, self.arguments))


@dataclass(frozen=True)
class Recipe:
    """Stages in a row."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str | Recipe) -> Recipe:
        """Read `"a > b(x=1, share=0.6)"`. Arguments are Python literals; `share` is the part of the budget.

        Raises:
            UserError: it cannot be read, or names no known system (the nearest is suggested).
        """
        if isinstance(text, Recipe):
            return text
        steps = tuple(_parse_step(part.strip(), text) for part in text.split(">"))
        recipe = cls(steps)
        for step in steps:
            step.stage()
        recipe.shares()
        return recipe

    def __str__(self) -> str:
        return " > ".join(str(step) for step in self.steps)

    def shares(self) -> list[float]:
        """Each stage's part of the budget; stages that spend nothing get none.

        Raises:
            UserError: the named shares sum to more than one.
        """
        spends = [step.stage().spends for step in self.steps]
        named = sum(step.share or 0 for step in self.steps)
        open_steps = sum(spend and step.share is None for step, spend in zip(self.steps, spends, strict=True))
        if named > 1 + 1e-9 or (open_steps and named > 1 - 1e-9):
            raise UserError(f"the shares of '{self}' sum to {named:g}: give each stage a part, together at most 1")
        rest = (1 - named) / open_steps if open_steps else 0.0
        return [
            (step.share if step.share is not None else rest) if spend else 0.0
            for step, spend in zip(self.steps, spends, strict=True)
        ]

    def check(self, data: Dataset, task: str | None) -> None:
        """Say before anything is trained which stage the data does not fit.

        Raises:
            UserError: there is one.
        """
        for step in self.steps:
            lacks = load_method(step.name).card.lacks(data, task)
            if lacks:
                raise UserError(f"'{step.name}' does not fit this data: it {lacks}")

    def run(self, data: Dataset, model: Model, budget: Budget, ctx: RunContext = RunContext()) -> tuple[Model, Spent]:
        """Run the stages one after the other, and give the last model and what all of them used."""
        spent = Spent()
        for number, (step, share) in enumerate(zip(self.steps, self.shares(), strict=True)):
            stage = step.stage()
            here = replace(ctx, folder=ctx.folder / f"stage-{number}") if ctx.folder else ctx
            here = replace(here, on_snapshot=_later(here, spent), seed=ctx.seed * 64 + number)
            data, model = _resumed(stage, data, model, budget.share(share or 1.0), here)
            spent = spent + stage.spent
        info = {"recipe": str(self), "seed": ctx.seed, "budget": str(budget)}
        return model.with_info(**info), spent


def judge(text: str) -> Step:
    """Read one judge with its arguments, `"backbones(seeds=3)"`: `.judge()` makes it.

    Raises:
        UserError: it cannot be read, is no judge, or several stand in a row.
    """
    if ">" in text:
        raise UserError(f"'{text}' names several: judges do not chain, so name one")
    step = _parse_step(text.strip(), text)
    step.judge()
    return step


def _later(ctx: RunContext, before: Spent) -> Any:
    """Snapshots of a later stage count what the earlier ones spent."""
    tell = ctx.on_snapshot
    return None if tell is None else lambda model, spent: tell(model, before + spent)


def _resumed(stage: Stage, data: Dataset, model: Model, budget: Budget, ctx: RunContext) -> tuple[Dataset, Model]:
    """Run a stage, or take what a killed run had finished of it."""
    from rushlight.run.store import finished_stage, keep_stage

    if ctx.folder is not None:
        done = finished_stage(ctx.folder, data)
        if done is not None:
            data, model, stage.spent = done
            return data, model
    result = stage.run(data, model, budget, ctx)
    if ctx.folder is not None:
        keep_stage(ctx.folder, data, *result, stage.spent)
    return result


def _parse_step(part: str, whole: str) -> Step:
    name, bracket, inner = part.partition("(")
    name = name.strip()
    if not name:
        raise UserError(f"the recipe '{whole}' has an empty stage: write it as 'a > b(threshold=0.7)'")
    load_method(name)
    if not bracket:
        return Step(name)
    try:
        call = ast.parse(f"f({inner}", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        arguments = {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UserError(f"cannot read '{part}' in the recipe '{whole}': arguments are name=value") from None
    share = arguments.pop("share", None)
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
        raise UserError(f"the share of '{name}' must lie between 0 and 1, not {share!r}")
    return Step(name, arguments, share)
