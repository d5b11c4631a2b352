"""Features of data sets, and the parts that judges learn from and test on."""

from __future__ import annotations

import torch

from rushlight.data.columns import TEST
from rushlight.data.synthetic import fashion
from rushlight.measure.features import divided, pooled
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo


def model_of(name: str = "conv16", size: int = 28) -> Model:
    return Model(encoders.create(name, image_size=size, seed=0), {}, ModelInfo(image_size=(size, size))).eval()


def test_features_of_a_data_set_are_those_of_its_images_whatever_the_batch():
    data, model = fashion.load().select(torch.arange(30, 70)), model_of()
    expected = model.encoder(model.encoder.prepare(data["image"])).detach()
    for batch in (7, 500):
        torch.testing.assert_close(pooled(model, data, batch=batch), expected, rtol=1e-5, atol=1e-5)


def test_data_are_divided_by_their_folds_or_anew():
    photos = fashion.load()
    train, test = divided(photos, "class")
    assert (len(train), len(test)) == (12_000, 2_000)
    train, test = divided(photos.fold(TEST), "class")
    assert (len(train), len(test)) == (1_500, 500)
    assert "fold" in train
