"""A memory bank of past embeddings: MoCo's negatives, NNCLR's support set, SwAV's small-batch scores."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rushlight.core.distributed import all_gather
from rushlight.core.errors import UserError


class MemoryBank(nn.Module):
    """The last `size` embeddings of all processes, first in, first out; filled at first with random directions.

    Args:
        size: how many are kept; the joined batch must divide it, so that no embedding outlives another.
        width: of each.
    """

    values: Tensor
    position: Tensor
    pushed: Tensor

    def __init__(self, size: int, width: int):
        super().__init__()
        self.register_buffer("values", nn.functional.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    @property
    def full(self) -> bool:
        """Return whether the bank holds real embeddings only."""
        return int(self.pushed) >= len(self.values)

    @torch.no_grad()
    def push(self, embeddings: Float[Tensor, "batch width"]) -> None:
        """Replace the oldest embeddings by these (of all processes).

        Raises:
            UserError: the joined batch does not divide the memory bank's size.
        """
        joined = all_gather(embeddings.detach().to(self.values.dtype))
        size, rows = len(self.values), len(joined)
        if size % rows:
            raise UserError(
                f"a memory bank of {size} does not divide into batches of {rows}: give a multiple of the batch"
            )
        places = self.position + torch.arange(rows, device=joined.device)  # a number on the device: no waiting for it
        self.values.index_copy_(0, places, joined)
        self.position.add_(rows).remainder_(size)
        self.pushed.add_(rows).clamp_(max=size)


def sized(wanted: int | None, images: int, batch: int, *, largest: int) -> int:
    """Return a memory bank's size as given; None takes `largest`, at most the images, in whole batches.

    Raises:
        UserError: what was given does not divide into batches.
    """
    if wanted is None:
        return max(min(largest, images) // batch, 1) * batch
    if wanted < batch or wanted % batch:
        raise UserError(
            f"a memory bank of {wanted} does not divide into batches of {batch}: give a multiple of the batch"
        )
    return wanted
