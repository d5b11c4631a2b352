"""The settings of a method: keyword-only fields, whose annotations say what they may be.

`temperature: Positive = 0.5` and `batch: Count = 256` tell readers, and whoever types `simclr(temperature=0)`, that
this cannot be. What one type cannot say (the smaller first, a multiple of the batch) a method checks itself, in
`__post_init__`. The string below a field is its documentation: the CLI and the site read it.
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from rushlight.core.errors import UserError, nearest


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `above` leaves out `low` itself, `below` leaves out `high`."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        over = self.low < value if self.above else self.low <= value
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.above else f"of {self.low:g} or more"
        low = f"above {self.low:g}," if self.above else f"from {self.low:g}"
        high = "below" if self.below else "up to" if self.above else "to"
        return f"{low} {high} {self.high:g}"


Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
"""Of a whole; or a probability, or a momentum."""
SomeShare = Annotated[float, Range(0, 1, above=True)]
Part = Annotated[float, Range(0, 1, above=True, below=True)]
Whole = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
Several = Annotated[int, Range(2)]


T = TypeVar("T")


@dataclass_transform(kw_only_default=True, eq_default=False)
def settings(cls: type[T]) -> type[T]:
    """Make a method's annotated attributes its keyword-only settings.

    A `dataclass` that keeps identity as equality (modules are keys) and the class's own `repr`.
    """
    return dataclass(cls, kw_only=True, eq=False, repr=False)


def documented(make: type) -> dict[str, str]:
    """Return the documentation of each setting: the string literal below its field."""
    found: dict[str, str] = {}
    for each in reversed(make.__mro__):
        if not is_dataclass(each):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        for field, below in pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return {each: text for each, text in found.items() if each in inspect.signature(make).parameters}


def hints_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the type of each argument, with its range."""
    if not (isinstance(make, type) and is_dataclass(make)):
        return get_type_hints(make.__init__, include_extras=True)
    hints: dict[str, Any] = {}
    names = {each.name for each in fields(make)}
    for each in reversed(make.__mro__):
        own = {name: hint for name, hint in vars(each).get("__annotations__", {}).items() if name in names}
        scope = vars(sys.modules[each.__module__])
        hints |= {name: eval(hint, scope) if isinstance(hint, str) else hint for name, hint in own.items()}
    return hints


def checked(name: str, make: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as they can be given to `make`: lists stand for tuples.

    Args:
        name: of the method, for messages.
        make: a method's class.
        given: arguments as a recipe holds them, Python literals.

    Raises:
        UserError: an argument that it does not have, or a value that it cannot have.
    """
    known, hints = list(inspect.signature(make).parameters), hints_of(make)
    for key, value in given.items():
        if key not in known:
            if FORMER.get(key) in known:
                raise UserError(f"'{name}' has no argument '{key}' any more: it is called '{FORMER[key]}' now")
            hint = LENGTH if key in ("epochs", "max_epochs", "steps", "iterations") else nearest(key, known)
            raise UserError(f"'{name}' has no argument '{key}'.{hint} It has: {', '.join(known)}")
        if not fits(value, hints.get(key, Any)):
            raise UserError(f"'{name}' cannot have {key}={value!r}: {key} is {in_words(hints[key])}")
    return {key: _as_tuple(value, hints.get(key, Any)) for key, value in given.items()}


def described(make: Callable[..., Any]) -> dict[str, str]:
    """Return each argument with its default, and its type in words: `{"temperature=0.5": "a number above 0"}`."""
    hints = hints_of(make)
    return {
        name if each.default is each.empty else f"{name}={each.default!r}": in_words(hints.get(name, Any))
        for name, each in inspect.signature(make).parameters.items()
    }


def fits(value: Any, hint: Any) -> bool:
    """Return whether a literal is of this type, within its range."""
    inner, origin = get_args(hint), get_origin(hint)
    if origin is Annotated:
        return fits(value, inner[0]) and all(value in each for each in inner[1:] if isinstance(each, Range))
    if origin in (Union, UnionType):
        return any(fits(value, kind) for kind in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        each = inner[:1] * len(value) if inner[1:] == (...,) and isinstance(value, list | tuple) else inner
        return isinstance(value, list | tuple) and len(value) == len(each) and all(map(fits, value, each))
    if origin is Sequence:  # a text is a sequence of texts to Python, but not to who writes a recipe
        return isinstance(value, list | tuple) and all(fits(one, inner[0]) for one in value)
    if hint is float or hint is int:
        return isinstance(value, int | float if hint is float else int) and not isinstance(value, bool)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def in_words(hint: Any, *, several: bool = False) -> str:
    """Return a type as a user would name it: `a number above 0`, `2 whole numbers, in brackets`."""
    inner, origin = get_args(hint), get_origin(hint)
    if origin is Annotated:
        return " ".join([in_words(inner[0], several=several), *(str(one) for one in inner[1:])])
    if origin in (Union, UnionType):
        return " or ".join(in_words(kind) for kind in inner)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (tuple, Sequence):
        how_many = f"{len(inner)} " if origin is tuple and inner[-1] is not ... else ""
        return f"{how_many}{in_words(inner[0], several=True)}, in brackets"
    one, many = WORDS.get(hint) or [getattr(hint, "__name__", str(hint))] * 2
    return many if several else one


FORMER = {"queue": "memory_bank_size", "queue_from": "memory_bank_from"}
"""Settings of earlier editions, and what they are called now."""
LENGTH = " How long it trains is the budget (--budget 200k: image passes; 10m: minutes), so that methods compare."
WORDS = {
    float: ("a number", "numbers"),
    int: ("a whole number", "whole numbers"),
    str: ("a text in quotes", "texts in quotes"),
    bool: ("True or False", "True or False"),
    NoneType: ("None", "None"),
}


def _as_tuple(value: Any, hint: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(value) if isinstance(value, list) and any(get_origin(kind) is tuple for kind in kinds) else value
