"""Image corruptions by severity."""

from __future__ import annotations

import pytest
import torch

from rushlight.data.synthetic import fashion
from rushlight.methods.evaluate.backbones import corruptions


def test_corruptions_grow_with_their_severity_and_repeat():
    images = fashion.load()["image"][:30]
    for kind in corruptions.CORRUPTIONS:
        away = [
            (corruptions.corrupt(images, kind, severity=s).float() - images.float()).abs().mean() for s in (1, 3, 5)
        ]
        assert 0 < away[0] < away[1] < away[2]
        assert torch.equal(corruptions.corrupt(images, kind, seed=4), corruptions.corrupt(images, kind, seed=4))
    with pytest.raises(ValueError, match="severity"):
        corruptions.corrupt(images, "blur", severity=6)
