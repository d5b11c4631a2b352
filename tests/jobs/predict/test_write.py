from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rushlight
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.jobs.predict.write import is_table, write_files, write_table
from rushlight.nets import encoders
from rushlight.nets.heads import Head, Linear
from rushlight.run.model import Model, ModelInfo


class Brightness(Head):
    """Class 1 where a pixel of the finest level's first channel is positive: a mask whose truth is known."""

    reads = "pyramid"

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        first = self.gain * levels[0][:, :1]
        return torch.cat([-first, first], 1)


class Bright(encoders.ImageEncoder):
    """Its finest level is the image's red channel less a half."""

    def pyramid(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images[:, :1] - 0.5]


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_masks_come_back_in_the_images_own_pixels(fit: str, tmp_path: Path) -> None:
    """A picture whose left third is white: so is the mask, at the picture's own size, whatever the packing did."""
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[:, :30] = 255
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "photos" / "deep" / "a.png")
    model = Model(
        Bright("conv16", (0.5,) * 3, (0.5,) * 3),
        {"mask": Brightness()},
        ModelInfo(image_size=(32, 32), packing={"fit": fit}, task="mask"),
    )
    written = write_files(model, tmp_path / "photos", tmp_path / "masks", cache=False)
    assert written == [tmp_path / "masks" / "deep" / "a.png"]
    mask = np.array(Image.open(tmp_path / "masks" / "deep" / "a.png"))
    assert mask.shape == (60, 90)
    seen = mask != 255
    assert seen.mean() > (0.6 if fit == "crop" else 0.99)
    assert (mask == (pixels[..., 0] > 0))[seen].mean() > 0.96


def test_a_classifier_writes_a_table_alone(photos: Dataset, tmp_path: Path) -> None:
    encoder = encoders.create("conv16", image_size=28, seed=0)
    model = Model(encoder, {"class": Linear(width=64, outputs=10)}, ModelInfo(image_size=(28, 28), task="class"))
    with pytest.raises(UserError, match="writes tables alone"):
        write_files(model, photos, tmp_path / "masks")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_are_written_and_read_back(ending: str, photos: Dataset, tmp_path: Path) -> None:
    import pandas as pd

    model = rushlight.fit(photos, "iomatch", budget=100)
    table = rushlight.predict(model, photos.fold(1))
    write_table(table, tmp_path / f"p.{ending}")
    again = pd.read_csv(tmp_path / "p.csv") if ending == "csv" else pd.read_parquet(tmp_path / "p.parquet")
    assert list(again["class"]) == list(table["class"])
    assert {"probability", "unknown", "p(bag)"} <= set(again.columns)
    shares = again[[c for c in again.columns if c.startswith("p(")]].to_numpy()
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-4)


def test_where_predictions_go_is_told_by_the_ending() -> None:
    assert is_table("a.csv")
    assert is_table("a.parquet")
    assert not is_table("masks")
    with pytest.raises(UserError, match="or into a folder"):
        is_table("a.xlsx")
