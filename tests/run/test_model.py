from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.jobs.export.run import to_onnx
from rushlight.nets import encoders
from rushlight.nets.dense.decoders import Decoder
from rushlight.nets.heads import MLP, Chain, Linear, describe, rebuild
from rushlight.run.model import Model, ModelInfo


def model(name: str = "conv16", size: int = 28, task: str = "class") -> Model:
    encoder = encoders.create(name, image_size=size, seed=1)
    heads = {
        "class": Linear(width=encoder.width, outputs=4),
        "open": Chain(MLP(widths=[encoder.width, 8, 6]), Linear(width=6, outputs=5, bias=False)),
        "mask": Decoder(channels=encoder.channels, strides=encoder.strides, outputs=3),
    }
    return Model(encoder, heads, ModelInfo(image_size=(size, size), task=task, class_names=("a", "b", "c", "d"))).eval()


@pytest.mark.parametrize("name", ["conv16", "vit96", "resnet18"])
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    size = 32
    one = model(name, size)
    one.save(tmp_path / "m")
    two = Model.load(tmp_path / "m")
    assert two.info == one.info
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    first, second = one.predict(images), two.predict(images)
    assert set(first) == {"class", "open", "mask"}
    assert first["mask"].shape == (3, 3, size, size)
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=1e-6)


def test_the_hub_convention(tmp_path: Path) -> None:
    """What `push_to_hub` uploads is what `from_pretrained` reads."""
    one = model()
    one.save_pretrained(tmp_path / "m")
    two = Model.from_pretrained(str(tmp_path / "m"))
    images = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    assert torch.equal(one.predict(images)["class"], two.predict(images)["class"])


def test_saving_replaces_a_model_and_nothing_else(tmp_path: Path) -> None:
    model().save(tmp_path / "m")
    model().save(tmp_path / "m")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds no model"):
        model().save(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "other"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04pickle"),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-50]),
    ],
)
def test_a_damaged_model_is_refused_in_one_sentence(damage, tmp_path: Path) -> None:
    model().save(tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(UserError, match="cannot be read"):
        Model.load(tmp_path / "m")


@pytest.mark.parametrize("kind", ["os:system", "rushlight.nets.heads:os", "rushlight.nets.encoders:Encoder", "x"])
def test_a_description_builds_heads_alone(kind: str) -> None:
    with pytest.raises(ValueError, match="no head"):
        rebuild({"kind": kind})


def test_descriptions_are_plain_json() -> None:
    described = json.loads(json.dumps(describe(Chain(MLP(widths=[4, 3, 2]), Linear(width=2, outputs=2)))))
    assert describe(rebuild(described)) == described


def test_predicting_keeps_the_mode_and_splits_batches_evenly() -> None:
    one = model().train()
    images = torch.randint(0, 256, (7, 3, 28, 28), dtype=torch.uint8)
    parts, whole = one.predict(images, batch=2), one.predict(images)
    assert one.training
    torch.testing.assert_close(parts["class"], whole["class"])
    assert one.predict(images[:0])["class"].shape == (0, 4)


@pytest.mark.parametrize(("name", "task"), [("conv16", "class"), ("conv16", "mask"), ("vit96", "class")])
def test_onnx_answers_as_pytorch_does(name: str, task: str, tmp_path: Path) -> None:
    one = model(name, 28, task)
    assert to_onnx(one, tmp_path / "m.onnx") <= 1e-4
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    images = torch.rand(11, 3, 28, 28)
    with torch.inference_mode():
        wanted = one.logits(images)
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), wanted, rtol=0, atol=1e-4
    )
