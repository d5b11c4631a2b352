from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import rushlight
from rushlight.cli import app
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.sources.read import load
from rushlight.jobs.predict.run import batches, predict, ready
from rushlight.nets import encoders
from rushlight.nets.dense.decoders import Decoder
from rushlight.nets.heads import Linear
from rushlight.run.model import Model, ModelInfo


def model(task: str = "class", size: int = 28, outputs: int = 3) -> Model:
    encoder = encoders.create("conv16", image_size=size, seed=1)
    heads = {
        "class": Linear(width=64, outputs=outputs),
        "tags": Linear(width=64, outputs=outputs),
        "mask": Decoder(channels=encoder.channels, strides=encoder.strides, outputs=outputs),
    }
    info = ModelInfo(image_size=(size, size), names={"class": ("a", "b", "c"), "tag": ("a", "b", "c")}, task=task)
    return Model(encoder, {task: heads[task]}, info).eval()


def images(n: int, size: int = 28) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return Dataset({"image": torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)})


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("class", ["image", "class", "probability", "p(a)", "p(b)", "p(c)"]),
        ("tags", ["image", "a", "b", "c"]),
        ("mask", ["image", "share of a", "share of b", "share of c"]),
    ],
)
def test_predictions_are_one_row_an_image_and_the_same_in_any_batch(task: str, columns: list[str]) -> None:
    one, data = model(task), images(7)
    whole, parts = predict(one, data, device="cpu"), predict(one, data, device="cpu", batch=3)
    assert list(whole.columns) == columns
    assert list(whole["image"]) == [str(row) for row in range(7)]
    numbers = whole.select_dtypes("number").columns
    assert (whole[numbers] - parts[numbers]).abs().max().max() < 1e-5
    assert list(parts.index) == list(range(7))


def test_probabilities_are_those_of_the_model() -> None:
    one, data = model(), images(4)
    wanted = one.logits(data["image"].float() / 255).softmax(1)
    found = torch.tensor(predict(one, data, device="cpu")[["p(a)", "p(b)", "p(c)"]].to_numpy())
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_from_python_predictions_are_written_too(tmp_path: Path) -> None:
    one, data = model(), images(3)
    table = rushlight.predict(one, data, device="cpu", out=tmp_path / "p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == len(table) + 1 == 4
    with pytest.raises(UserError, match=r"\.csv or \.parquet"):
        rushlight.predict(one, data, device="cpu", out=tmp_path / "p.txt")


def test_a_bare_encoder_predicts_nothing() -> None:
    bare = Model(encoders.create("conv16", seed=0), {}, ModelInfo(task="class"))
    with pytest.raises(UserError, match="predicts nothing"):
        predict(bare, images(1))


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda is not on this machine"):
        predict(model(), images(1), device="cuda")


def test_a_model_that_the_user_holds_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    one = model()
    monkeypatch.setattr("rushlight.run.hardware.device", lambda name: "meta")
    moved, _ = ready(one, "meta")
    assert next(moved.parameters()).device.type == "meta"
    assert next(one.parameters()).device.type == "cpu"


def test_no_more_than_a_batch_of_masks_is_held() -> None:
    """24 images of 224 × 224 in 21 classes are 101 MB of logits; a batch of 4 is 17 MB."""
    one, data = model("mask", 224, 21), images(24, 224)
    largest = 0
    for rows, outputs in batches(one, data, 4):
        assert len(rows) == 4
        largest = max(largest, outputs["mask"].nbytes)
    assert largest == 4 * 21 * 224 * 224 * 4


def test_the_command_predicts_on_a_device(tmp_path: Path) -> None:
    from PIL import Image

    model().save(tmp_path / "m")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30), (200, 0, 0)).save(tmp_path / "images" / "a.png")
    words = ["predict", str(tmp_path / "m"), str(tmp_path / "images"), "--out", str(tmp_path / "p.csv")]
    done = CliRunner().invoke(app.app, [*words, "--device", "cpu", "--cache", str(tmp_path / "cache")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "image,class,probability,p(a),p(b),p(c)"
    refused = CliRunner().invoke(app.app, [*words[:4], str(tmp_path / "p.xlsx")])
    assert isinstance(refused.exception, UserError) or refused.exit_code == 2


def test_the_public_function_does_the_same() -> None:
    one, data = model(), images(3)
    assert rushlight.predict(one, data, device="cpu").equals(predict(one, data, device="cpu"))


def test_a_model_that_reads_depth_is_given_the_folder_of_the_maps(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    (tmp_path / "depth").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(generator.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{name}.png")
        depth = generator.integers(1, 5000, (28, 28)).astype(np.uint16)
        Image.fromarray(depth).save(tmp_path / "depth" / f"{name}.png")
    encoder = encoders.create("vit64-p7+image+depth", image_size=28, seed=1)
    info = ModelInfo(image_size=(28, 28), names={"class": ("a", "b", "c")}, task="class")
    Model(encoder, {"class": Linear(width=64, outputs=3)}, info).save(tmp_path / "model")
    typed = ["predict", str(tmp_path / "model"), str(tmp_path / "in"), "--out", str(tmp_path / "p.csv")]
    typed += ["--device", "cpu", "--cache", str(tmp_path / "cache")]
    lacking = CliRunner().invoke(app.app, typed)
    assert isinstance(lacking.exception, UserError)
    assert str(lacking.exception) == (
        f"the model reads image and depth, and {tmp_path / 'in'} has no 'depth': "
        "give its folder with --depth (load(depth=…))"
    )
    done = CliRunner().invoke(app.app, [*typed, "--depth", str(tmp_path / "depth")])
    assert done.exit_code == 0, done.output
    data = load(tmp_path / "in", depth=tmp_path / "depth", size=28, cache=False)
    wanted = Model.load(tmp_path / "model").predict(data)["class"].softmax(1)
    found = pd.read_csv(tmp_path / "p.csv")
    answers = torch.tensor(found[["p(a)", "p(b)", "p(c)"]].to_numpy()).float()
    torch.testing.assert_close(answers, wanted, atol=1e-5, rtol=0)
    told = predict(tmp_path / "model", tmp_path / "in", depth=tmp_path / "depth", device="cpu", cache=False)
    assert list(told["class"]) == list(found["class"])


def test_files_that_are_left_out_are_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (28, 28)).save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no")
    model().save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"1 left out: bad\.png \("):
        assert len(rushlight.predict(tmp_path / "model", tmp_path / "in", device="cpu", cache=False)) == 1
    words = ["predict", str(tmp_path / "model"), str(tmp_path / "in"), "--out", str(tmp_path / "p.csv")]
    done = CliRunner().invoke(app.app, [*words, "--device", "cpu", "--cache", str(tmp_path / "cache")])
    assert done.output.count("bad.png") == 2
    assert "1 prediction: " in done.output
    assert "; 1 left out: bad.png" in done.output
