from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rushlight import tasks
from rushlight.data.columns import encode_text
from rushlight.jobs.export.run import to_onnx
from rushlight.nets import encoders
from rushlight.nets.dense.decoders import Decoder
from rushlight.nets.heads import Head, Linear
from rushlight.run.model import Model, ModelInfo

onnxruntime = pytest.importorskip("onnxruntime")


def model(name: str, task: str | None) -> Model:
    encoder = encoders.create(name, image_size=28, seed=1)
    heads = {
        "class": Linear(width=encoder.width, outputs=4),
        "mask": Decoder(channels=encoder.channels, strides=encoder.strides, outputs=3),
    }
    info = ModelInfo(image_size=(28, 28), task=task, names={"class": ("a", "b", "né", "신발")}, recipe="supervised")
    return Model(encoder, heads if task else {}, info).eval()


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("name", "task"), [("conv16", "class"), ("vit96", "class"), pytest.param("vit96", None, marks=pytest.mark.slow)]
)
def test_onnx_answers_as_pytorch_does(name: str, task: str | None, tmp_path: Path) -> None:
    one = model(name, task)
    assert to_onnx(one, tmp_path / "m.onnx") <= 1e-4
    opened = session(tmp_path / "m.onnx")
    for n in (1, 11):
        images = torch.rand(n, 3, 28, 28)
        with torch.inference_mode():
            wanted = one.logits(images) if task else one.encoder(images)
        found = torch.from_numpy(opened.run(None, {"images": images.numpy()})[0])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.slow  # an export takes seconds
@pytest.mark.parametrize("task", tasks.all(), ids=lambda task: task.id)
def test_every_tasks_head_is_exported_for_any_batch(task: tasks.Task, tmp_path: Path) -> None:
    data = task.example()
    encoder, size = encoders.create("conv16", image_size=data.height, seed=1), (data.height, data.width)
    one = Model(encoder, {task.id: task.head(encoder, data)}, ModelInfo.of(data.info, size, task.id)).eval()
    assert to_onnx(one, tmp_path / "m.onnx") <= 1e-4
    opened = session(tmp_path / "m.onnx")
    for n in (1, 3):
        images = encoder.example(n, size)
        found = torch.from_numpy(opened.run(None, {"images": images.numpy()})[0])
        with torch.inference_mode():
            torch.testing.assert_close(found, one.logits(images), rtol=1e-4, atol=1e-4)
    assert json.loads(opened.get_modelmeta().custom_metadata_map["names"]) == list(task.names(data.info))


def test_the_file_says_what_it_reads_and_answers(tmp_path: Path) -> None:
    to_onnx(model("conv16", "class"), tmp_path / "m.onnx")
    told = {
        key: json.loads(value)
        for key, value in session(tmp_path / "m.onnx").get_modelmeta().custom_metadata_map.items()
    }
    assert told["task"] == "class"
    assert told["names"] == ["a", "b", "né", "신발"]
    assert told["recipe"] == "supervised"
    images = told["inputs"]["images"]
    assert images["size"] == [28, 28]
    assert images["normalised inside the graph by"] == {"mean": [0.5] * 3, "std": [0.25] * 3}


class Match(Head):
    """The product of the features of an image and those of a text."""

    reads = ("image.pooled", "text.pooled")

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return (image * text).sum(1, keepdim=True)


def pair(heads: dict[str, torch.nn.Module], task: str | None) -> Model:
    nets = {"image": encoders.create("conv16", image_size=28, seed=1), "text": encoders.create("ngram64", seed=2)}
    return Model(nets, heads, ModelInfo(image_size=(28, 28), task=task)).eval()


@pytest.mark.parametrize("task", ["match", pytest.param(None, marks=pytest.mark.slow)])
def test_two_encoders_are_two_inputs(task: str | None, tmp_path: Path) -> None:
    one = pair({"match": Match()} if task else {}, task)
    assert to_onnx(one, tmp_path / "m.onnx") <= 1e-4
    opened = session(tmp_path / "m.onnx")
    assert [each.name for each in opened.get_inputs()] == ["images", "texts"]
    images, texts = torch.rand(3, 3, 28, 28), encode_text(["a bag", "a much longer text than the exporter saw", ""])
    found = opened.run(None, {"images": images.numpy(), "texts": texts.numpy()})
    with torch.inference_mode():
        image, text = one.encoders["image"](images), one.encoders["text"](texts)
    wanted = [(image * text).sum(1, keepdim=True)] if task else [image, text]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(a), b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["vit64-p7+image+depth", "vit64-p7+depth"])
def test_an_encoder_of_several_columns_has_an_input_each(name: str, tmp_path: Path) -> None:
    one = model(name, "class")
    assert to_onnx(one, tmp_path / "m.onnx") <= 1e-4
    opened = session(tmp_path / "m.onnx")
    columns = {"images": torch.rand(3, 3, 28, 28), "depths": torch.rand(3, 28, 28)}
    columns["depths"][0, :7], columns["depths"][1] = torch.nan, 0.5  # partly unknown, and flat
    names = [each.name for each in opened.get_inputs()]
    assert names == [f"{column}s" for column in one.encoder.columns]
    found = opened.run(None, {each: columns[each].numpy() for each in names})[0]
    with torch.inference_mode():
        wanted = one.logits({each.removesuffix("s"): columns[each] for each in names})
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-4)
    told = json.loads(opened.get_modelmeta().custom_metadata_map["inputs"])
    assert told["depths"]["values"] == "depth in any unit, NaN where unknown"
    assert told["depths"]["size"] == [28, 28]


def test_only_the_inputs_that_the_answer_needs_are_asked_for(tmp_path: Path) -> None:
    to_onnx(pair({"topic": Linear(width=64, outputs=2).reading("text.pooled")}, "topic"), tmp_path / "m.onnx")
    assert [each.name for each in session(tmp_path / "m.onnx").get_inputs()] == ["texts"]


def test_a_graph_that_differs_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="differs by"):
        to_onnx(model("conv16", "class"), tmp_path / "m.onnx", tolerance=0.0)
    assert not list(tmp_path.iterdir())
