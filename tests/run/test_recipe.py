from __future__ import annotations

import pytest

from rushlight.core.errors import UserError
from rushlight.run.recipe import Recipe


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
