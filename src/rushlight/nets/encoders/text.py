"""A small encoder of text: a bag of hashed n-grams of bytes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from rushlight.nets.encoders.base import Encoder, Size

TEXTS = ("ngram64",)
FACTOR = 1_000_003
"""Of the polynomial hash: h ← (h · FACTOR + byte) mod buckets."""


class NGrams(Encoder):
    """UTF-8 bytes, padded with zeros → the mean of their n-grams' embeddings, refined by one hidden layer.

    n-grams of 1 to `longest` bytes share one table by a hash (as in Bojanowski et al., 2017, "Enriching word vectors
    with subword information"), so no vocabulary has to be built or kept, and any language can be read. Letters A–Z
    count as a–z. An empty text has an embedding of zeros before the hidden layer.

    Args:
        width: of the features.
        buckets: rows of the table; longest: bytes of an n-gram.
    """

    reads = "caption"

    def __init__(self, name: str, width: int = 64, buckets: int = 8192, longest: int = 4):
        super().__init__(name)
        self.width, self.buckets, self.longest = width, buckets, longest
        self.embedding = nn.Embedding(buckets, width)
        self.refine = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def example(self, n: int, size: Size = None, generator: torch.Generator | None = None) -> UInt8[Tensor, "n length"]:
        """Return n texts of random printable ASCII (`size` bytes, 32 by default)."""
        length = size if isinstance(size, int) else 32
        device = self.embedding.weight.device
        return torch.randint(32, 127, (n, length), generator=generator, device=device).to(torch.uint8)

    def forward(self, text: UInt8[Tensor, "batch length"]) -> Float[Tensor, "batch dim"]:
        rows, there = self.ngrams(text.long())
        weight = there / there.sum(1, keepdim=True).clamp(min=1)
        mean = (self.embedding(rows) * weight[..., None].to(self.embedding.weight.dtype)).sum(1)
        return mean + self.refine(mean)

    def ngrams(
        self, text: Int[Tensor, "batch length"]
    ) -> tuple[Int[Tensor, "batch grams"], Bool[Tensor, "batch grams"]]:
        """Return each n-gram's row in the table, and whether it lies within the text."""
        length = text.shape[1]
        lower = torch.where((text >= 65) & (text <= 90), text + 32, text)
        lower = F.pad(lower, (0, self.longest - 1))
        found, inside = [], []
        for n in range(1, self.longest + 1):
            row, there = torch.full_like(text, n), torch.ones_like(text, dtype=torch.bool)
            for offset in range(n):
                byte = lower[:, offset : offset + length]
                row, there = (row * FACTOR + byte) % self.buckets, there & (byte != 0)
            found.append(row)
            inside.append(there)
        return torch.cat(found, 1), torch.cat(inside, 1)
