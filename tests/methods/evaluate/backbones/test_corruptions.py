"""Image corruptions by severity."""

from __future__ import annotations

import pytest
import torch

from rushlight.data.synthetic import fashion
from rushlight.methods.evaluate.backbones import corruptions
from rushlight.methods.evaluate.backbones.corruptions import Corrupted


def whole(corrupted: Corrupted, size: int = 500) -> torch.Tensor:
    return torch.cat(list(corrupted.split(size)))


def test_corruptions_grow_with_their_severity_and_repeat() -> None:
    images = fashion.load()["image"][:30]
    for kind in corruptions.CORRUPTIONS:
        away = [(whole(Corrupted(images, kind, s)).float() - images.float()).abs().mean() for s in (1, 3, 5)]
        assert 0 < away[0] < away[1] < away[2]
        assert torch.equal(whole(Corrupted(images, kind, seed=4)), whole(Corrupted(images, kind, seed=4)))
    with pytest.raises(ValueError, match="severity"):
        Corrupted(images, "blur", severity=6)
    with pytest.raises(KeyError, match="rain"):
        Corrupted(images, "rain")


def test_how_they_are_read_changes_no_pixel() -> None:
    photos = fashion.load().select(torch.arange(0, 1500, 2))
    at_once, in_parts = (Corrupted(images, "noise") for images in (photos["image"], photos.reader("image")))
    assert at_once.shape == in_parts.shape == (750, 3, 28, 28)
    assert torch.equal(whole(at_once), whole(in_parts, 32))
    assert at_once.digest != Corrupted(photos["image"], "noise", seed=1).digest
