from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rushlight.core.errors import UserError
from rushlight.nets import encoders


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = encoders.create("resnet18", image_size=32, seed=1)
    save_file({**source.model.state_dict(), "fc.weight": torch.zeros(2, 512)}, tmp_path / "timm.safetensors")
    save_file(dict(source.state_dict()), tmp_path / "ours.safetensors")
    whole = {f"encoders.image.{key}": value for key, value in source.state_dict().items()}
    other = {"encoders.text.embedding.weight": torch.zeros(3, 4), "heads.class.weight": torch.zeros(2, 512)}
    save_file({**other, **whole}, tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 32, 32)
    for file in ("timm", "ours", "model"):
        loaded = encoders.create("resnet18", image_size=32, seed=2, weights=tmp_path / f"{file}.safetensors")
        torch.testing.assert_close(loaded.eval()(images), source.eval()(images))


def test_weights_that_do_not_fit_are_said(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="do not fit the encoder 'conv16'"):
        encoders.create("conv16", weights=tmp_path / "w.safetensors")
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="never loaded"):
        encoders.create("conv16", weights=tmp_path / "w.pt")
