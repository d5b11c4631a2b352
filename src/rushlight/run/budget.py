"""Budgets: how much compute a recipe may spend, counted alike for every method.

The unit is the *image pass*: the compute of one image forward and backward through the encoder. What a step really
costs is counted once, in FLOPs, by PyTorch's own counter; so a teacher's forward, a decoder or an attack's probes
are paid for, and equal passes are equal compute.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from rushlight.core.errors import UserError
from rushlight.nets.encoders import Encoder

_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_MINUTES = {"s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0}


@dataclass(frozen=True)
class Budget:
    """Image passes or minutes: one of them, positive.

    Attributes:
        passes: image passes (compute of one image forward and backward through the encoder).
        minutes: of wall-clock time.
    """

    passes: float | int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.passes is None) == (self.minutes is None):
            raise ValueError("a budget is passes or minutes, one of them")
        if (self.passes or self.minutes or 0) <= 0:
            raise UserError("the budget is zero: give image passes ('200k') or minutes ('10m'), more than none")

    @classmethod
    def parse(cls, text: str | float | Budget) -> Budget:
        """Parse `"200k"`, `"1.5M"` or a number as image passes; `"90s"`, `"10m"`, `"2h"` as time.

        Raises:
            UserError: it is none of these, or zero.
        """
        if isinstance(text, Budget):
            return text
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([a-zA-Z]*)\s*", str(text))
        if match and match[2] in _UNITS:
            return cls(passes=float(match[1]) * _UNITS[match[2]])
        if match and match[2] in _MINUTES:
            return cls(minutes=float(match[1]) * _MINUTES[match[2]])
        raise UserError(
            f"'{text}' is no budget: give image passes ('200k', '1.5M') or time ('90s', '10m' for minutes, '2h')"
        )

    def share(self, part: float) -> Budget:
        """Return this part (between 0 and 1) of the budget."""
        if self.passes is not None:
            return Budget(passes=self.passes * part)
        return Budget(minutes=(self.minutes or 0) * part)

    def left(self, spent: Spent) -> Budget:
        """Return what is left of the budget after this was spent: at least one pass, or a hundredth of a minute."""
        return self.plus(-self.used(spent))

    def used(self, spent: Spent) -> float:
        """Return what was spent, in this budget's unit."""
        return spent.passes if self.passes is not None else spent.seconds / 60

    def unused(self, spent: Spent) -> float:
        """Return what is left of the budget, in its unit; below zero where more was spent."""
        return (self.passes or self.minutes or 0.0) - self.used(spent)

    def plus(self, more: float) -> Budget:
        """Return the budget with so much more (or less) of its unit, at least one pass or a hundredth of a minute."""
        if self.passes is not None:
            return Budget(passes=max(self.passes + more, 1.0))
        return Budget(minutes=max((self.minutes or 0) + more, 0.01))

    def pays_for(self, share: float, *, passes: float, seconds: Callable[[], float]) -> int:
        """Return how many times a share of the budget buys something.

        Args:
            passes: what it costs once; seconds: measures how long it takes once, called where the budget is time.
        """
        if self.passes is not None:
            return int(share * self.passes / passes)
        return int(share * 60 * (self.minutes or 0) / max(seconds(), 1e-9))

    def __str__(self) -> str:
        if self.minutes is not None:
            return f"{self.minutes:.12g}m"
        for unit, size in (("M", 1e6), ("k", 1e3)):
            if (self.passes or 0) >= size:
                return f"{(self.passes or 0) / size:.12g}{unit}"
        return f"{self.passes:.12g}"


@dataclass(frozen=True)
class Spent:
    """What was really used.

    Attributes:
        passes: image passes; flops: floating-point operations; steps: of the optimiser; seconds: of wall-clock time.
    """

    passes: float = 0.0
    flops: float = 0.0
    steps: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.passes + other.passes,
            self.flops + other.flops,
            self.steps + other.steps,
            self.seconds + other.seconds,
        )


class Clock:
    """Seconds of wall-clock time within its `with` blocks, all together: what work beside a training is charged with.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Clock:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self._began


def pace(work: Callable[[slice], object], rows: int, most: int = 32) -> float:
    """Return the seconds that work on a row takes, measured on the first of so many rows."""
    first = slice(0, min(rows, most))
    with Clock() as clock:
        work(first)
    return clock.seconds / first.stop


def count_flops(work: Callable[[], object]) -> float:
    """Return the FLOPs of what `work` does (matrix products and convolutions, forward and backward)."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def pass_flops(encoder: Encoder, size: int | tuple[int, int] | None = None) -> float:
    """Return the FLOPs of one pass: one input forward and backward through the encoder; of several columns, the first.

    So an encoder that learned to read more is counted in the passes of the one that it was.

    Args:
        size: of one input (an image's height and width); None takes the encoder's own.
    """
    probe = copy.deepcopy(encoder).train().requires_grad_(True)
    device = next(probe.parameters()).device
    example = probe.example(2, size, torch.Generator(device).manual_seed(0))
    inputs = example if isinstance(example, torch.Tensor) else {probe.columns[0]: example[probe.columns[0]]}
    return count_flops(lambda: probe(inputs).sum().backward()) / 2
