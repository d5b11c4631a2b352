"""Texts as zero-padded UTF-8: captions, and an image's licence and whom it names. An empty text is unknown."""

from __future__ import annotations

import torch
from torch import Tensor

from rushlight.data.columns.base import Kind

KINDS = (
    Kind("caption", torch.uint8, ("L",), "empty", unknown=0, headings=("caption", "text", "description")),
    Kind("licence", torch.uint8, ("L",), "empty", unknown=0, label=False, headings=("licence", "license")),
    Kind("creator", torch.uint8, ("L",), "empty", unknown=0, label=False,
         headings=("creator", "photographer", "author")),
)  # fmt: skip


def encode_text(texts: list[str]) -> Tensor:
    """Return texts as a column of zero-padded UTF-8 bytes."""
    rows = [
        torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8)
        for text in texts
    ]
    if not rows:
        return torch.zeros(0, 1, dtype=torch.uint8)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded if padded.shape[1] else torch.zeros(len(rows), 1, dtype=torch.uint8)


def decode_text(values: Tensor) -> list[str]:
    """Return the texts of a column of zero-padded UTF-8 bytes."""
    return [bytes(row).rstrip(b"\0").decode() for row in values.cpu().numpy()]
