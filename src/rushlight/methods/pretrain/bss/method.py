"""Batch styles standardization: features that ignore domains, from batches that have one style each.

Methods that tell images apart take the style of a domain as a shortcut. If all images that are compared with each other
have one style, the shortcut is gone, and no domain label is needed. Each view of a batch gets the low-frequency
amplitudes of one of its images; colour jitter, too, is drawn once a view, and with `per_view` the learner compares
within a view alone. `sharing=False` is Fourier augmentation, the paper's baseline.

Scalbert et al., 2023, arXiv:2303.06088.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from rushlight.augment.policy import Policy
from rushlight.core.arguments import Several, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.methods.pretrain.bss import style
from rushlight.train.joint_embedding import AddOn, joint

STYLE, COLOUR = 21, 22
"""Streams of the generators that all processes share."""


@settings
class BSS(AddOn):
    """One style a view for a whole batch: an addition to any joint-embedding learner."""

    card: ClassVar = Card(
        id="bss",
        title="Towards domain-invariant Self-Supervised Learning with Batch Styles Standardization",
        paper="arXiv:2303.06088",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, less sensitive to how images of different origin look",
        says="PACS, DomainNet, Camelyon17: SimCLR, SwAV and MSN gain on unseen domains, without domain labels",
        tags=("contrastive", "style-invariant instance discrimination"),
    )

    base: str = "simclr"
    """The learner, written as in a recipe: `"simclr(temperature=0.2)"`, `"dino(local=2)"`, …."""
    area: tuple[SomeShare, SomeShare] = (0.02, 0.2)
    """Range of r, the window's share of all frequencies (the paper's range is not known to us)."""
    sharing: bool = True
    """One style for a whole view; False gives every image one of its own (Fourier augmentation)."""
    negatives: str = "same_view"
    """`same_view`, compare within a view, or `all`, with all views, where the learner compares images."""
    jitter: str = "batch"
    """`batch`, one draw of colours for a whole view, or `image`, one an image."""
    views: Several | None = None
    """How many views SimCLR makes; None leaves it at two."""

    def __post_init__(self) -> None:
        if self.negatives not in ("same_view", "all") or self.jitter not in ("batch", "image"):
            raise UserError(f"negatives='{self.negatives}', jitter='{self.jitter}': negatives are same_view or all, "
                            "jitter is batch or image")  # fmt: skip
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"area={self.area}: give a range of shares between 0 and 1, the smaller first")
        self.learner = joint(self.base)
        if self.views is not None and (self.learner.card.id != "simclr" or self.views < 2):
            raise UserError(f"views={self.views}: simclr makes two or more views, '{self.learner.card.id}' its own "
                            "number")  # fmt: skip
        self.learner.look = self.look
        self.learner.per_view = self.sharing and self.negatives == "same_view"

    def look(self, policies: Sequence[Policy], columns: TensorDict, generator: torch.Generator) -> list[Tensor]:
        """Return one view per policy, each in one style."""
        policies = list(policies) if self.views is None else [policies[i % 2] for i in range(self.views)]
        styles, colours = self.learner.joint_generator(STYLE), self.learner.joint_generator(COLOUR)
        seen = []
        for policy in policies:
            shared = colours if self.jitter == "batch" else None
            view, _ = policy.with_view(columns["image"], generator=generator, shared=shared)
            if self.sharing:
                seen.append(style.standardise(view, area=self.area, generator=styles))
            else:
                seen.append(style.exchange(view, area=self.area, generator=generator))
        return seen
