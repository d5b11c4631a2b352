"""Batch styles standardization: features that do not care about domains, from batches that have one style each.

Images of several domains (scanners, seasons, drawings and photos) look different before one sees what they show. A
method that tells images apart takes the style as a shortcut. If all images that are compared with each other have one
style, the shortcut is gone, and no domain label is needed. The style of an image is taken to be the amplitudes A of
its low frequencies, its content the phases P:

    F = FFT(x) = A·e^{iP},   Âᵢ = A_s within a central window of share r of all frequencies,   x̂ᵢ = FFT⁻¹(Âᵢ·e^{iPᵢ})

with one s and one r drawn for a whole column: the same view of every image of the batch. The views of an image have
different styles, so its positives do not share what its negatives share. Colour jitter, too, is drawn once for a
column; geometry stays each image's own. With `per_view` the learner compares within a column alone: SimCLR's negatives
are the other images of the same view, SwAV's and MSN's shares are balanced view by view.

`sharing=False` is Fourier augmentation, the paper's baseline: every image gets a style of its own.

Shared: the learner, whichever joint-embedding one it is; the Fourier part; the masks of contrast.
Scalbert et al., 2023, arXiv:2303.06088.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from rushlight.augment.policy import Policy
from rushlight.core.arguments import Several, SomeShare
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.methods.pretrain.bss import style
from rushlight.train.joint_embedding import AddOn, joint

STYLE, COLOUR = 21, 22
"""Streams of the generators that all processes share."""


class BSS(AddOn):
    """One style a view for a whole batch: an addition to any joint-embedding learner."""

    card = Card(
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

    def __init__(
        self,
        *,
        base: str = "simclr",
        area: tuple[SomeShare, SomeShare] = (0.02, 0.2),
        sharing: bool = True,
        negatives: str = "same_view",
        jitter: str = "batch",
        views: Several | None = None,
    ):
        """
        Args:
            base: the learner, written as in a recipe: `"simclr(temperature=0.2)"`, `"dino(local=2)"`, …
            area: range of r, the window's share of all frequencies (the paper's range is not known to us).
            sharing: one style for a whole view; False gives every image one of its own (Fourier augmentation).
            negatives: `same_view`, compare within a view, or `all`, with all views, where the learner compares images.
            jitter: `batch`, one draw of colours for a whole view, or `image`, one an image.
            views: how many views SimCLR makes; None leaves it at two.
        """
        super().__init__()
        if negatives not in ("same_view", "all") or jitter not in ("batch", "image"):
            raise UserError(f"negatives='{negatives}', jitter='{jitter}': negatives are same_view or all, "
                            "jitter is batch or image")  # fmt: skip
        if not 0 < area[0] <= area[1] <= 1:
            raise UserError(f"area={area}: give a range of shares between 0 and 1, the smaller first")
        self.learner = joint(base)
        if views is not None and (self.learner.card.id != "simclr" or views < 2):
            raise UserError(f"views={views}: simclr makes two or more views, '{self.learner.card.id}' its own number")
        self.area, self.sharing, self.jitter, self.count = area, sharing, jitter, views
        self.learner.look = self.look
        self.learner.per_view = sharing and negatives == "same_view"

    def look(self, policies: Sequence[Policy], columns: TensorDict, generator: torch.Generator) -> list[Tensor]:
        """One view a policy, each in one style."""
        policies = list(policies) if self.count is None else [policies[i % 2] for i in range(self.count)]
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
