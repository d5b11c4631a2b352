"""Contracts that are wrong are found to be wrong, by neighbours that are scikit-learn's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from margins import Margin
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion, scenes
from rushlight.measure.preprocessing import Reader
from rushlight.methods.evaluate.resize_normalize import Asked, ResizeNormalize
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext


def model_of(name: str = "conv16", size: int = 28) -> Model:
    return Model(encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size))).eval()


@pytest.fixture(scope="module")
def trained() -> Model:
    """conv16 after 6,000 passes on whole photos of 28 pixels."""
    data = fashion.load().fold(0).select(torch.arange(2000))
    return Recipe.parse("supervised").run(data, model_of(), RunContext(budget=Budget(passes=6000))).model


@pytest.fixture(scope="module")
def little() -> Asked:
    """Photos of 10 pixels in values from 0 to 4,000."""
    photos = fashion.load()
    parts = photos.select(torch.arange(2000, 2400)), photos.fold(TEST).select(torch.arange(300))
    images = (torch.nn.functional.interpolate(part["image"].float(), (10, 10), mode="area") for part in parts)
    bank, queries = (4000 * part / 255 for part in images)
    return Asked(bank, parts[0]["class"], queries, parts[1]["class"])


def scores(grid: dict) -> dict[tuple[str, int, str], float]:
    return {(row["encoder"], row["size"], row["normalisation"]): row["score"] for row in grid.dicts()}


@pytest.mark.slow
def test_a_pretrained_encoder_wants_its_own_size_and_values(trained: Model, little: Asked, margin: Margin) -> None:
    found = ResizeNormalize(unit=4000).study(trained, little)
    grid = scores(found.table("grid"))
    both, neither = grid["conv16", 28, "own"], grid["conv16", 10, "raw"]
    margin("loss by a wrong size and wrong values", both - neither, 0.04)
    assert found.numbers["costs at most"] >= both - neither - 1e-9
    assert found.numbers["own at 28 px"] == both
    assert "Recommended for conv16" in found.notes[0]
    margin("the recommended less the wrong", found.numbers["recommended"] - neither, 0.0)
    x, y = found.curve("size").series["conv16"]
    assert x == sorted(x)
    assert 10 in x
    assert all(0 <= value <= 100 for value in y)
    assert {row["baseline"] for row in found.table("baselines").dicts()} == {"image statistics", "RCF", "MOSAIKS"}
    assert len(found.table("resize")["score"]) == 3


def test_scores_are_those_of_scikit_learns_neighbours(trained: Model, little: Asked) -> None:
    judge = ResizeNormalize(unit=4000)
    contract = judge.contract(trained, little, 28, "standardise")
    bank, queries = (Reader(trained, contract).features(x).numpy() for x in (little.bank, little.queries))
    expected = KNeighborsClassifier(5).fit(bank, little.labels.numpy()).score(queries, little.true.numpy())
    among, found = judge.scored(trained, little, contract)
    assert found == pytest.approx(expected, abs=1 / 300 + 1e-9)
    left_out = []
    for row in range(60):
        others = np.arange(len(bank)) != row
        nearest = KNeighborsClassifier(5).fit(bank[others], little.labels.numpy()[others])
        left_out.append(nearest.predict(bank[row : row + 1])[0] == int(little.labels[row]))
    assert among == pytest.approx(np.mean(left_out), abs=0.15)


def test_standardised_values_do_not_know_their_unit(trained: Model, little: Asked) -> None:
    """Standardise after any affine change of the input is the same, so the score is too."""
    other = Asked(0.01 * little.bank + 7, little.labels, 0.01 * little.queries + 7, little.true)
    judges = ResizeNormalize(unit=4000), ResizeNormalize(unit=1)
    found = [
        judge.scored(trained, asked, judge.contract(trained, asked, 28, "standardise"))
        for judge, asked in zip(judges, (little, other), strict=True)
    ]
    assert found[0] == pytest.approx(found[1], abs=0.01)
    raw = [
        judge.scored(trained, asked, judge.contract(trained, asked, 28, "raw"))
        for judge, asked in zip(judges, (little, other))
    ]
    assert raw[0] != raw[1]


def test_statistics_come_from_the_bank_alone(trained: Model, little: Asked) -> None:
    judge = ResizeNormalize(unit=4000)
    odd = replace(little, queries=little.queries * 0 + 4000)
    for how in ("standardise", "min-max"):
        assert judge.contract(trained, odd, 28, how) == judge.contract(trained, little, 28, how)
    values = little.bank / 4000
    contract = judge.contract(trained, little, None, "standardise")
    np.testing.assert_allclose(contract.mean, values.numpy().mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(contract.std, values.numpy().std((0, 2, 3)), rtol=1e-3)
    flat = replace(little, bank=torch.ones_like(little.bank))
    assert judge.contract(trained, flat, None, "min-max").std == (1.0, 1.0, 1.0)


def test_only_what_is_not_pretrained_has_its_features_standardised(little: Asked) -> None:
    judge, model = ResizeNormalize(unit=4000), model_of()
    contract = judge.contract(model, little, 28, "divide")
    reader = Reader(model, contract)
    bank, queries = reader.features(little.bank), reader.features(little.queries)
    mean, std = bank.mean(0), bank.std(0, correction=0)
    flat = std <= 1e-6 * mean.abs().clamp(min=1e-6)
    scaled = [torch.where(flat, torch.zeros(()), (x - mean) / std.clamp(min=1e-30)) for x in (bank, queries)]
    assert judge.scored(model, little, contract, pretrained=False) == judge.score(
        *scaled, asked=little, pretrained=True
    )


def test_tags_are_scored_by_their_mean_average_precision() -> None:
    data = scenes.compose(120, size=32, seed=0, classes=["trouser", "bag", "sneaker"])
    judge, model = ResizeNormalize(normalisations=["divide"], sizes=(32,)), model_of(size=32)
    found = judge.judge(model, data, RunContext(task="tags"))
    asked = judge.asked(data, "tags")
    contract = judge.contract(model, asked, 32, "divide")
    bank, queries = (Reader(model, contract).features(x).numpy() for x in (asked.bank, asked.queries))
    votes = KNeighborsClassifier(5).fit(bank, asked.labels.numpy()).kneighbors(queries, return_distance=False)
    shares = asked.labels.numpy()[votes].mean(1)
    per_tag = [average_precision_score(asked.true[:, t].numpy(), shares[:, t]) for t in range(3)]
    assert found.numbers["divide at 32 px"] == pytest.approx(np.mean(per_tag), abs=0.02)


def test_a_fixed_grid_of_positions_is_never_given_another_size() -> None:
    photos = fashion.load().select(torch.arange(80))
    found = ResizeNormalize(normalisations=["own"], images=40).judge(model_of("mixer_s16_224", 32), photos)
    assert set(found.table("grid")["size"]) == {32}
    assert found.curve("size").series["mixer_s16_224"][0] == [32.0]


def test_several_models_stand_in_one_table(photos: Dataset) -> None:
    judge = ResizeNormalize(normalisations=["divide", "own"], images=60)
    found = judge.judge_all({"one": model_of(), "other": model_of("vit64")}, photos, RunContext())
    assert found.table("models")["model"] == ["one", "other"]
    assert set(found.table("grid")["model"]) == {"one", "other"}
    assert {curve.name for curve in found.curves} == {"size: one", "size: other"}


def test_unknown_normalisations_are_named() -> None:
    with pytest.raises(UserError, match=r"standardize.*they are raw, divide"):
        ResizeNormalize(normalisations=["standardize"])
