"""Scores are computed batch by batch, and no more than a batch of outputs exists at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders
from rushlight.nets.heads import Linear
from rushlight.run.budget import count_flops
from rushlight.run.evaluate import batches, evaluate, inference_flops
from rushlight.run.model import Model, ModelInfo

LARGE = """
import resource, torch
from rushlight.data.dataset import Dataset, Info
from rushlight.nets import encoders
from rushlight.nets.dense.decoders import Decoder
from rushlight.run.evaluate import evaluate
from rushlight.run.model import Model, ModelInfo
n, side, classes = {n}, 224, 21
image = torch.zeros(n, 3, side, side, dtype=torch.uint8)
mask = torch.zeros(n, side, side, dtype=torch.uint8)
names = tuple(map(str, range(classes)))
data = Dataset(dict(image=image, mask=mask), Info(mask_names=names))
encoder = encoders.create("conv16", image_size=side, seed=0)
head = Decoder(channels=encoder.channels, strides=encoder.strides, outputs=classes)
model = Model(encoder, dict(mask=head), ModelInfo.of(data.info, (side, side), "mask"))
image.fill_(1), mask.fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(model, data)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def model_of(task, data):
    encoder = encoders.create("conv16", image_size=data.height, seed=0)
    return Model(
        encoder, {task.id: task.head(encoder, data)}, ModelInfo.of(data.info, (data.height, data.width), task.id)
    )


def test_each_row_is_scored_once_in_order():
    task = tasks.find("tags")
    data = task.example()
    rows = torch.arange(len(data)).flip(0)[:70]
    seen = [(part, columns["tags"]) for part, _, columns in batches(model_of(task, data), data, rows, task)]
    assert torch.equal(torch.cat([part for part, _ in seen]), rows)
    assert torch.equal(torch.cat([tags for _, tags in seen]), data["tags"][rows])


def test_only_known_rows_are_scored_and_none_is_an_error():
    task = tasks.find("class")
    data = task.example().select(torch.arange(30))
    model = model_of(task, data)
    some = data.hide(torch.arange(30) >= 20)
    assert len(evaluate(model, some).parts["true"]) == 20
    with pytest.raises(UserError, match="no 'class' is known"):
        evaluate(model, data.hide())


def test_a_bare_encoder_predicts_nothing():
    data = tasks.find("class").example().select(torch.arange(5))
    bare = Model(encoders.create("conv16", image_size=28, seed=0), {}, ModelInfo())
    with pytest.raises(UserError, match="bare encoder"):
        evaluate(bare, data)


@pytest.mark.slow
def test_two_thousand_masks_of_21_classes_are_scored_within_a_gigabyte():
    """Beyond the data itself, which a pack maps; all outputs at once would be 8.4 GB."""
    grown = int(
        subprocess.run([sys.executable, "-c", LARGE.format(n=2000)], capture_output=True, text=True, check=True).stdout
    )
    assert grown < 1024 * 1024  # kilobytes


@pytest.mark.parametrize("name", ["conv16", "vit64"])
def test_an_answer_costs_the_encoder_once_and_the_heads_of_the_task(name):
    """A projector is not asked, and an open head costs no second pass of the encoder."""
    encoder = encoders.create(name, image_size=32, seed=0)
    heads = {key: Linear(width=encoder.width, outputs=n) for key, n in (("class", 10), ("open", 11), ("projector", 99))}
    model = Model(encoder, heads, ModelInfo(task="class", image_size=(32, 32)))
    data = Dataset({"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)})
    alone = count_flops(lambda: encoder.eval()(torch.zeros(1, 3, 32, 32)))
    assert inference_flops(model, data, tasks.find("class")) == alone + 2 * encoder.width * (10 + 11)
