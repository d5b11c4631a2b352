import pytest
import torch

from rushlight import tasks
from rushlight.measure.examples import examples
from rushlight.nets import encoders
from rushlight.run.evaluate import parts_of
from rushlight.run.model import Model, ModelInfo


def drawn(name):
    task = tasks.find(name)
    data = task.example().select(torch.arange(40))
    encoder = encoders.create("conv16", image_size=data.height, seed=0)
    info = ModelInfo.of(data.info, (data.height, data.width), name)
    model = Model(encoder, {name: task.head(encoder, data)}, info)
    rows = torch.arange(5, 40)
    parts = parts_of(model, data, rows, task)
    return task, rows, parts, examples(model, data, rows, task, parts)


@pytest.mark.parametrize("name", ["mask", "boxes"])
def test_the_worst_images_are_drawn_first(name):
    task, rows, parts, found = drawn(name)
    (shown,) = found.pictures
    assert [picture.name for picture in shown.pictures] == [str(i) for i in rows[task.worst(parts)[:24]].tolist()]
    assert all(picture.pixels.shape[2] == 3 for picture in shown.pictures)


def test_a_task_that_draws_nothing_is_left_out():
    *_, found = drawn("tags")
    assert not found.pictures
