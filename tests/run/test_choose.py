from __future__ import annotations

import pytest

from rushlight.core.catalogue import cards
from rushlight.core.errors import UserError
from rushlight.nets import encoders
from rushlight.run import choose
from rushlight.run.recipe import Recipe


@pytest.fixture(autouse=True)
def nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_cached", lambda name: None)


@pytest.mark.parametrize(
    ("size", "device", "name"),
    [(28, "cpu", "conv16"), (96, "cpu", "conv32"), (64, "cuda", "resnet18"), (224, "cuda", "resnet50")],
)
def test_what_suits_size_and_device(size: int, device: str, name: str) -> None:
    choice = choose.encoder(size, device)
    assert (choice.name, choice.weights) == (name, None)


def test_weights_on_the_disk_are_taken_for_images_that_are_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_cached", lambda name: f"/cache/{name}")
    assert choose.encoder(96).weights == f"/cache/{choose.PREFERRED['cpu'][0]}"
    assert choose.encoder(64).weights is None


def test_a_recipe_on_tokens_gets_a_vision_transformer() -> None:
    on_tokens = next(name for name, card in cards().items() if card.encoder == "vit" and card.role == "learner")
    recipes = [Recipe.parse("supervised"), Recipe.parse(f"{on_tokens} > supervised")]
    choice = choose.encoder(32, recipes=recipes)
    assert choice.name == "vit96"
    assert on_tokens in choice.why
    assert choose.encoder(32, recipes=recipes[:1]).name == "conv16"


def test_a_card_says_whether_tokens_are_needed() -> None:
    assert {name for name in cards() if choose.needs_vit(name)} == {
        name for name, card in cards().items() if card.encoder == "vit"
    }


def test_other_columns_have_an_encoder_that_reads_them() -> None:
    for column, name in choose.OTHERS.items():
        assert encoders.create(choose.of_column(column)).reads == column
    with pytest.raises(UserError, match="no encoder reads the column 'smell'"):
        choose.of_column("smell")
