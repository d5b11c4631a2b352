"""What backbones are put through: the parts of the data, and what an entrant gives."""

from __future__ import annotations

import pytest
import torch

from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion, scenes
from rushlight.methods.evaluate.backbones import benchmark, few_label
from rushlight.methods.evaluate.backbones.benchmark import Net, Simple
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo


def model_of(name: str = "conv16", size: int = 28) -> Model:
    return Model(encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size))).eval()


@pytest.fixture(scope="module")
def others() -> Dataset:
    """Photos of five classes, with both folds."""
    photos = fashion.load()
    rows = (photos["class"] >= 5).nonzero().squeeze(1)
    return photos.select(torch.cat([rows[:400], rows[-200:]]))


def test_a_part_holds_out_what_it_asks_about(others: Dataset) -> None:
    part = benchmark.parts(others, "class", 100, 0)
    assert (len(part.train), len(part.test)) == (100, 50)
    assert set(part.test["fold"].tolist()) == {TEST}
    few = part.few(3)
    assert part.labels[few].bincount(minlength=10)[5:].tolist() == [3] * 5
    tags = benchmark.parts(scenes.compose(80, size=32, seed=0), "tags", 40, 0)
    assert ((tags.labels[tags.few(2)] == 1).sum(0) >= 2).all()


def test_simple_features_are_standardised_by_their_bank_and_know_no_label(others: Dataset) -> None:
    bank = others["image"][:100]
    for name in ("image statistics", "RCF", "MOSAIKS"):
        features = Simple(name, bank, seed=0).features(bank)
        spread = features.std(0, correction=0)
        torch.testing.assert_close(spread[spread > 0.5], torch.ones_like(spread[spread > 0.5]), atol=1e-3, rtol=0)
        assert features.mean(0).abs().max() < 1e-3


def test_maps_are_read_at_the_images_size_where_the_encoder_takes_it() -> None:
    images = scenes.compose(2, size=48, seed=0)["image"]
    assert Net(model_of()).maps(images).shape[-2:] == (6, 6)
    assert Net(model_of(size=96)).maps(images).shape[-2:] == (12, 12)
    assert Net(model_of("vit64", 28)).maps(images).shape[-2:] == (12, 12)
    assert Net(model_of("vit_tiny_patch16_224", 32)).maps(images).shape[-2:] == (3, 3)
    assert Net(model_of("mixer_s16_224", 32)).maps(images).shape[-2:] == (2, 2)  # its grid is fixed


def test_what_cannot_be_tuned_gets_a_probe_of_the_few(others: Dataset) -> None:
    part = benchmark.parts(others, "class", 300, 0)
    rows = part.few(4)
    simple = Simple("RCF", part.train["image"])
    few = benchmark.Parts(part.train.select(rows), part.test, "class")
    found = benchmark.few_label_score(simple, part, rows, few_label.Tuning(), 0)
    assert found == benchmark.linear_score(simple, few)(part.test["image"])
