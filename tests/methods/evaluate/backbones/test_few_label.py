"""Fine-tuning with few labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from margins import Margin

from rushlight.data.columns import TEST
from rushlight.data.synthetic import fashion, scenes
from rushlight.methods.evaluate.backbones import few_label
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo


def model_of(name: str = "conv16", size: int = 28) -> Model:
    return Model(encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size))).eval()


@pytest.mark.slow
def test_fine_tuning_learns_and_chooses_its_rate_by_training_labels_alone(margin: Margin):
    photos, model = fashion.load(), model_of()
    train, test = photos.select(torch.arange(150)), photos.fold(TEST).select(torch.arange(300))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    tuning = few_label.Tuning(rates=(1e-6, 3e-3), steps=40)
    tuned = few_label.fine_tune(model, train["image"], train["class"], tuning)
    assert set(tuned.held_out) == {1e-6, 3e-3}
    assert tuned.rate == max(tuned.held_out, key=tuned.held_out.get)
    margin("gain by the higher rate on held-out labels", tuned.held_out[3e-3] - tuned.held_out[1e-6], 0.1)
    margin("accuracy", few_label.score(tuned.network, test["image"], test["class"]), 0.35)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    again = few_label.fine_tune(model, train["image"], train["class"], tuning)
    assert torch.equal(again.network.head.linear.weight, tuned.network.head.linear.weight)
    learn, held = few_label._parted(train["class"], 0.25, 0)
    assert set(learn.tolist()) | set(held.tolist()) == set(range(150))
    assert set(learn.tolist()).isdisjoint(held.tolist())
    alone = few_label.fine_tune(model, train["image"][:1], torch.zeros(1, dtype=torch.long), replace(tuning, steps=1))
    assert alone.held_out == {}


def test_the_papers_views_and_tags_train_too():
    data, model = scenes.compose(40, size=32, seed=0), model_of(size=32)
    strong = few_label.Tuning(rates=(1e-3,), steps=5, batch=16, strong=True)
    for targets in (data["class"], data["tags"]):
        tuned = few_label.fine_tune(model, data["image"], targets, strong)
        assert 0 <= few_label.score(tuned.network, data["image"], targets) <= 1
