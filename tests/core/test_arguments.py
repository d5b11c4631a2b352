from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushlight.core.arguments import (
    Count,
    NotNegative,
    Part,
    Positive,
    Range,
    Several,
    Share,
    SomeShare,
    Whole,
    checked,
    described,
    documented,
    fits,
    in_words,
    settings,
)  # fmt: skip
from rushlight.core.errors import UserError
from rushlight.run.recipe import Recipe


@pytest.mark.parametrize(
    ("hint", "can", "cannot"),
    [
        (float, [0.5, 1, -3], ["a", None, True, [1.0]]),
        (int, [3, -1], [2.5, "3", True]),
        (bool, [True], [1, "True"]),
        (str, ["a"], [1, ["a"]]),
        (Positive, [1e-9, 4], [0, -1, "1"]),
        (NotNegative, [0, 2.5], [-1e-9]),
        (Share, [0, 0.5, 1], [-0.1, 1.1]),
        (SomeShare, [0.1, 1], [0]),
        (Part, [0.1], [0, 1]),
        (Whole, [0, 3], [-1, 0.5]),
        (Count, [1], [0]),
        (Several, [2], [1]),
        (Count | None, [None, 1], [0, "1"]),
        (tuple[Share, Share], [(0, 1), [0.2, 0.3]], [(0, 2), (0.5,), 0.5, "01"]),
        (tuple[Count, ...], [(), (1, 2)], [(0,), 1]),
        (Sequence[Count], [[1, 2], (3,), []], [[0], 5]),
        (Sequence[str], [["image"]], ["image", [1]]),
        (Literal["adamw", "sgd"], ["sgd"], ["adam", 1]),
        (Any, [object()], []),
    ],
)
def test_what_fits_a_type_and_what_does_not(hint: Any, can: list, cannot: list) -> None:
    assert all(fits(value, hint) for value in can)
    assert not any(fits(value, hint) for value in cannot)


@given(low=st.floats(-9, 9), width=st.floats(0, 9), value=st.floats(-20, 20), above=st.booleans(), below=st.booleans())
def test_ranges_hold_what_lies_between_their_ends(
    low: float, width: float, value: float, above: bool, below: bool
) -> None:
    span = Range(low, low + width, above, below)
    inside = low <= value <= low + width
    ends = (above and value == low) or (below and value == low + width)
    assert (value in span) == (inside and not ends)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Positive, "a number above 0"),
        (Share, "a number from 0 to 1"),
        (Part | None, "a number above 0, below 1 or None"),
        (Several, "a whole number of 2 or more"),
        (tuple[SomeShare, SomeShare], "2 numbers above 0, up to 1, in brackets"),
        (Sequence[str], "texts in quotes, in brackets"),
        (Literal["same", "all"], "'same' or 'all'"),
        (Annotated[int, Range(3, 5)], "a whole number from 3 to 5"),
    ],
)
def test_types_in_words(hint: Any, words: str) -> None:
    assert in_words(hint) == words


class Example:
    def __init__(self, *, rate: Positive = 0.5, area: tuple[Share, Share] | None = None, free=3):
        pass


def test_lists_become_tuples_where_tuples_are_asked_for() -> None:
    assert checked("example", Example, {"area": [0.1, 0.2], "free": [1]}) == {"area": (0.1, 0.2), "free": [1]}


def test_what_does_not_fit_is_named_with_what_would() -> None:
    with pytest.raises(UserError, match=r"'example' cannot have rate=0: rate is a number above 0"):
        checked("example", Example, {"rate": 0})
    with pytest.raises(UserError, match=r"no argument 'rat'. Did you mean 'rate'\? It has: rate, area, free"):
        checked("example", Example, {"rat": 0})


def test_who_asks_for_epochs_is_told_of_budgets() -> None:
    with pytest.raises(
        UserError, match=r"'dino' has no argument 'epochs'. How long it trains is the budget \(--budget"
    ):
        Recipe.parse("dino(epochs=10)").steps[0].stage()


@pytest.mark.parametrize(
    ("recipe", "name"),
    [("moco(queue=512)", "memory_bank_size"), ("swav(queue_from=0.5)", "memory_bank_from")],
)
def test_a_setting_of_an_earlier_edition_answers_with_its_name_of_today(recipe: str, name: str) -> None:
    with pytest.raises(UserError, match=rf"has no argument 'queue\w*' any more: it is called '{name}' now"):
        Recipe.parse(recipe)


def test_arguments_are_described_with_their_defaults() -> None:
    assert described(Example) == {
        "rate=0.5": "a number above 0",
        "area=None": "2 numbers from 0 to 1, in brackets or None",
        "free=3": "Any",
    }


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("simclr(temperature=0)", "temperature is a number above 0"),
        ('simclr(temperature="a")', "temperature is a number above 0"),
        ("supervised(batch=0)", "batch is a whole number of 1 or more"),
        ("vicreg(batch=1)", "batch is a whole number of 2 or more"),
        ("mae(ratio=1)", "ratio is a number above 0, below 1"),
        ("bss(area=0.1)", "area is 2 numbers above 0, up to 1, in brackets"),
        ('bss(views="4")', "views is a whole number of 2 or more or None"),
        ('multimae(modalities="image")', "modalities is texts in quotes, in brackets or None"),
        ("simclr > fixmatch(threshold=1.5)", "'fixmatch' cannot have threshold=1.5: threshold is a number from 0 to 1"),
    ],
)
def test_a_recipe_with_a_value_that_cannot_be_says_what_could(recipe: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        [step.stage() for step in Recipe.parse(recipe).steps]


@settings
class Toy:
    """A method's settings."""

    temperature: Positive = 0.5
    """τ, of the softmax."""
    sizes: tuple[Count, ...] = (1, 2)
    """Of the layers,
    from the first."""


@settings
class Derived(Toy):
    ratio: Share = 0.1
    """Of unlabelled images."""


def test_settings_are_keyword_only_fields_with_documentation() -> None:
    assert vars(Derived(ratio=0.3)) == {"temperature": 0.5, "sizes": (1, 2), "ratio": 0.3}
    with pytest.raises(TypeError):
        Toy(0.2)
    assert Toy() != Toy()
    assert documented(Derived) == {
        "temperature": "τ, of the softmax.",
        "sizes": "Of the layers, from the first.",
        "ratio": "Of unlabelled images.",
    }


def test_ranges_of_settings_are_held_in_subclasses_too() -> None:
    assert checked("derived", Derived, {"sizes": [3]}) == {"sizes": (3,)}
    with pytest.raises(UserError, match="temperature is a number above 0"):
        checked("derived", Derived, {"temperature": 0})
