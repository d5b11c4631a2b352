"""Which recipe to ship: of those that cannot be told from the best, the cheapest to run, then the cheapest to train.

With few seeds or test images much cannot be told apart, so a lower cost counts only where the mean lies within one
standard error of the best one's (the one-standard-error rule: Breiman et al., 1984).

What a user pays for ever is each answer of the final model; training is paid for once. So the order is

1. FLOPs of one image's answer, by the encoder and the heads that the task needs;
2. image passes of the training, over all its stages, as if it had shared none;
3. the mean of the metric,

and costs within 5 % of the cheapest count as equal. A cost that was not counted is taken for the dearest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rushlight.measure.stats import Ranking
from rushlight.present.phrases import flops
from rushlight.run.trial import Result

ALIKE = 1.05
"""Costs up to so many times the cheapest count as equal to it."""
ALONE = "it ran alone, so there is nothing to compare it with"


@dataclass(frozen=True)
class Cost:
    """What a recipe costs: FLOPs of an answer, and image passes of a training; NaN where they were not counted."""

    run: float
    train: float


@dataclass(frozen=True)
class Choice:
    """The recipe to ship, and why.

    Attributes:
        dearer: by which cost it was chosen (`run`, `train`) → the dearest recipe that this left behind.
        alike: recipes that cost as much, and whose mean is not higher.
        lower: recipes that cannot be told from it, but whose mean lies over a standard error below the best.
    """

    name: str
    dearer: Mapping[str, str] = field(default_factory=dict)
    alike: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()


def cost(results: Sequence[Result]) -> Cost:
    """Return the mean costs of a recipe's finished trials."""
    if not results:
        return Cost(math.nan, math.nan)
    paid = np.array([(each.inference_flops, each.spent.passes) for each in results])
    return Cost(*paid.mean(0).tolist())


def ship(ranking: Ranking, costs: Mapping[str, Cost]) -> Choice:
    """Return the recipe to ship."""
    left, dearer = _close(ranking), {}  # from the highest mean to the lowest
    lower = tuple(name for name in ranking.best if name not in left)
    for what in ("run", "train"):
        paid = {name: _known(getattr(costs[name], what)) for name in left}
        least = min(paid.values())
        kept = [name for name in left if paid[name] <= ALIKE * least]
        if len(kept) < len(left):
            dearer[what] = max((name for name in left if name not in kept), key=paid.__getitem__)
        left = kept
    return Choice(left[0], dearer, tuple(left[1:]), lower)


def _close(ranking: Ranking) -> list[str]:
    """Return the recipes among the best whose mean lies within one standard error of the first one's."""
    first, *others = ranking.best
    gaps = {name: ranking.gaps[first, name] for name in others}
    return [first, *(name for name, gap in gaps.items() if gap.mean <= gap.se)]


def verdict(
    ranking: Ranking,
    choice: Choice,
    costs: Mapping[str, Cost],
    failed: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> str:
    """Return the recipe to ship, and how sure that is, in a sentence.

    Args:
        failed: recipes that have no rank. names: how recipes are shown, where it is not their id.
    """
    names = {name: (names or {}).get(name, name) for name in (*ranking.names, *failed)}
    shown = names[choice.name]
    broken = f"; {_are(failed, names)} not ranked, because a trial failed" if failed else ""
    if len(ranking.names) == 1:
        return f"Ship {shown}: {'no other finished' if failed else ALONE}{broken}."
    if len(ranking.best) == 1:
        return f"Ship {shown}: {_lead(ranking, names)}{broken}."
    others = [names[name] for name in ranking.best if name != choice.name]
    behind = [name for name in ranking.names if name not in ranking.best]
    rest = f"; {_are(behind, names)} behind" if behind else ""
    return f"Ship {shown}: {_and(others)} cannot be told from it, and {_why(choice, costs, names)}{rest}{broken}."


def _lead(ranking: Ranking, names: Mapping[str, str]) -> str:
    first, second = ranking.names[:2]
    gap = ranking.gaps[first, second]
    return (
        f"it is best, {100 * gap.mean:.1f} points above {names[second]}, the next "
        f"({100 * ranking.level:g} % interval {100 * gap.low:.1f} to {100 * gap.high:.1f})"
    )


def _why(choice: Choice, costs: Mapping[str, Cost], names: Mapping[str, str]) -> str:
    """Return the costs that decided, beside those of the most expensive recipe passed over; else the mean."""
    chosen, clauses = costs[choice.name], []
    for what, verb in (("run", "to run"), ("train", "to train")):
        if what in choice.dearer:
            other = choice.dearer[what]
            paid, dearer = (_words(getattr(each, what), what) for each in (chosen, costs[other]))
            clauses.append(f"{verb} ({paid} against {dearer} of {names[other]})")
    low = [names[name] for name in choice.lower]
    below = f"the mean of {_and(low)} lies over a standard error lower" if low else ""
    if not clauses and not choice.alike:
        return below
    if not clauses:
        same = "of these, which cost the same within 5 %, it has the highest mean"
        return f"{same}; {below}" if below else same
    cheapest, alike = f"it is the cheapest {' and then '.join(clauses)}", [names[name] for name in choice.alike]
    have = "has" if len(alike) == 1 else "have"
    beside = f"{_and(alike)}, at the same cost, {have} no higher mean" if alike else ""
    return "; ".join(text for text in (cheapest, beside, below) if text)


def _words(paid: float, what: str) -> str:
    if not math.isfinite(paid):
        return "an unknown cost"
    return f"{flops(paid)}FLOPs an image" if what == "run" else f"{paid:,.0f} image passes"


def _are(recipes: Sequence[str], names: Mapping[str, str]) -> str:
    return f"{_and([names[name] for name in recipes])} {'is' if len(recipes) == 1 else 'are'}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _known(paid: float) -> float:
    return paid if math.isfinite(paid) else math.inf
