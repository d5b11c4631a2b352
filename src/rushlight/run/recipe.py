"""Recipes: stages in a row, written `"barlow-twins > iomatch(closed_threshold=0.7)"`, sharing one budget."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from rushlight.core.arguments import checked
from rushlight.core.catalogue import load_method
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import Judge, Outcome, RunContext, Stage


@dataclass(frozen=True)
class Step:
    """One stage of a recipe: a method's id, its arguments, and its share of the budget (None: an equal part)."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    share: float | None = None

    def __str__(self) -> str:
        settings = dict(self.arguments) | ({"share": self.share} if self.share is not None else {})
        inner = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        return f"{self.name}({inner})" if inner else self.name

    def stage(self) -> Stage:
        """Return the stage, made with its arguments.

        Raises:
            UserError: no such method, one that is no stage, or an argument that it does not have or cannot have.
        """
        kind = load_method(self.name)
        if not issubclass(kind, Stage):
            role, user = kind.card.role, "judge" if issubclass(kind, Judge) else "audit"
            raise UserError(f"'{self.name}' is a {role}, not a stage of a recipe: `rushlight {user}` uses it")
        return kind(**checked(self.name, kind, self.arguments))

    def judge(self) -> Judge:
        """Return the judge, made with its arguments.

        Raises:
            UserError: no such method, one that is no judge, or an argument that it does not have or cannot have.
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
            UserError: it cannot be read, or names no known method (the nearest is suggested).
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
        """Return each stage's part of the budget; stages that spend nothing get none.

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
        """Check, before anything is trained, that the data fit every stage.

        Raises:
            UserError: they do not fit one.
        """
        for step in self.steps:
            lacks = load_method(step.name).card.lacks(data, task) or step.stage().lacks(data)
            if lacks:
                raise UserError(f"'{step.name}' does not fit this data: it {lacks}")

    def run(
        self, data: Dataset, model: Model, ctx: RunContext, *, shelf: Shelf | None = None, stop: int | None = None
    ) -> Outcome:
        """Run the stages one after the other, each within its share; what one leaves unused goes to the next.

        Args:
            stop: how many of the stages are run; None runs all.
            shelf: where the outcomes of all stages but the last are kept, for recipes that begin alike.
        """
        outcome, unused = Outcome(data, model), 0.0
        parts: tuple[Budget, ...] = ()
        for number, (here, stage) in enumerate(islice(self.stages(ctx), stop)):
            part = here.budget.plus(unused) if stage.spends else here.budget
            parts = (*parts, part)
            here = replace(here, budget=part, spent_before=ctx.spent_before + outcome.spent)
            if shelf is not None and number < len(self.steps) - 1:
                here = replace(here, folder=shelf(self.prefix(number), parts))
            done = _alone(here, stage, outcome.data, outcome.model)
            unused = part.unused(done.spent) if stage.spends else unused - part.used(done.spent)
            model = done.model.with_info(origin=self.prefix(number)) if done.model is not outcome.model else done.model
            done = done.charged(outcome.spent, outcome.notes)
            outcome = replace(done, model=model, curve=outcome.curve + done.curve)
        info = {"recipe": str(self), "seed": ctx.seed, "budget": str(ctx.budget), "notes": outcome.notes}
        return replace(outcome, model=outcome.model.with_info(**info))

    def stages(self, ctx: RunContext) -> Iterator[tuple[RunContext, Stage]]:
        """Yield each stage with its own context: its share of the budget, its folder, its seed."""
        for number, (step, share) in enumerate(zip(self.steps, self.shares(), strict=True)):
            folder = ctx.folder / f"stage-{number}" if ctx.folder is not None else None
            budget = ctx.budget.share(share or 1.0)
            yield replace(ctx, folder=folder, budget=budget, seed=ctx.seed * 64 + number), step.stage()

    def prefix(self, number: int) -> str:
        """Return the stages up to this one, without their shares: with the budgets they identify what was done."""
        return " > ".join(str(replace(step, share=None)) for step in self.steps[: number + 1])


Shelf = Callable[[str, tuple[Budget, ...]], Path]
"""(the stages so far, the budget of each) → the folder of the last one's outcome."""


def _alone(ctx: RunContext, stage: Stage, data: Dataset, model: Model) -> Outcome:
    """Run a stage while no other process runs it."""
    if ctx.folder is None:
        return ctx.run(stage, data, model)
    ctx.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(ctx.folder.with_name(f".{ctx.folder.name}.lock")):
        return ctx.run(stage, data, model)


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
