"""MultiMAE: rebuild several modalities of a scene, each from what is seen of all. Multi-modal masked autoencoder.

An image, its depth and its map of classes are cut into the same patches. Of all tokens together a sixth is seen, shared
among modalities at random, so that the network learns to predict one from another. A light decoder a target asks,
patch by patch, what stands in its modality. What is unknown (NaN, 255) is neither shown nor asked for; maps of classes
that nobody drew can come from another model (`pseudo`).

Bachmann et al., 2022, arXiv:2204.01678; code: EPFL-VILAB/MultiMAE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor, nn

from rushlight import tasks
from rushlight.augment import mask
from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, NotNegative, Positive, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.data.columns import KINDS
from rushlight.data.dataset import Dataset
from rushlight.methods.pretrain.multimae.multimodal import (
    UNKNOWN,
    Adapters,
    CrossDecoder,
    all_tokens,
    label_stride,
    transform,
)
from rushlight.methods.pretrain.multimae.pseudo import fill_masks
from rushlight.methods.pretrain.multimae.reconstruction import errors, over_images
from rushlight.nets.encoders.multimodal import MultiModal, standardise_depth
from rushlight.nets.vit import decoder_size, fix_positions, gather, patch_size
from rushlight.run.model import Model
from rushlight.run.stage import Outcome, RunContext
from rushlight.train.joint_embedding import crop_scale
from rushlight.train.learner import Batch, Learner

MODALITIES = ("image", "depth", "mask")


@settings
class MultiMAE(Learner):
    """Features from rebuilding images, depth and classes from parts of all of them."""

    card: ClassVar = Card(
        id="multimae",
        title="MultiMAE: Multi-modal Multi-task Masked Autoencoders",
        paper="arXiv:2204.01678",
        code="EPFL-VILAB/MultiMAE",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="a vision transformer trained on any of image, depth and mask, and its adapters for the latter two",
        says="ViT-B: ImageNet 83.3 % as MAE; NYUv2 mIoU 52.0 from images and 56.0 with depth, against 50.8 for MAE",
        tags=("generative", "multi-modal reconstruction"),
        encoder="vit",
    )
    parts = {"views": 1}
    smallest_batch = 64

    modalities: Sequence[str] | None = None
    """Seen, of `image`, `depth` and `mask`; None: those of which the data has any."""
    targets: Sequence[str] | None = None
    """Rebuilt; None: the modalities."""
    hands_on: Literal["image", "image+depth", "depth"] | None = None
    """What the encoder that is handed on reads; None: images where they are seen, else depth (the paper: images, and
    both where depth is measured)."""
    pseudo: Mapping[str, str] | None = None
    """`{"mask": "model/"}`: a model of ours that fills a column where it is unknown."""
    kept: SomeShare = 0.5
    """Visible tokens, as a share of one modality's (the paper: 98 of 196)."""
    alpha: Positive = 1.0
    """Of the Dirichlet distribution of shares."""
    subsets: bool = False
    """Draw a set of modalities first, all non-empty ones alike, and share among these."""
    normalised: bool = True
    """A second decoder of images, whose targets are normalised by patch."""
    uncertainty: bool = False
    """Weigh the losses by learned uncertainties, exp(−s)·ℓ + s, instead of a plain sum."""
    decoder: tuple[Count, Count, Count] | None = None
    """Its width, blocks and heads; None: 256, 2 and 8 for a ViT-B, less for smaller encoders."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.2 to 1, of 16×16 pixels at least."""
    flip: bool = True
    """Mirror half of the images."""
    batch: Count = 256
    """Images a step."""
    learning_rate: Positive = 0.001
    """At its peak (the paper: 1e-4 · batch/256 at 2048)."""
    weight_decay: NotNegative = 0.05
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 40 of 1600 epochs)."""

    def __post_init__(self) -> None:
        for name in [*(self.modalities or ()), *(self.targets or ()), *(self.pseudo or ())]:
            if name not in MODALITIES:
                raise UserError(f"multimae has no modality '{name}': it has {', '.join(MODALITIES)}")
        if self.pseudo and set(self.pseudo) != {"mask"}:
            raise UserError("multimae fills the column 'mask' by a model of ours; depth must be in the data")
        if not 0 < self.kept <= 1:
            raise UserError(f"multimae's `kept` is a share of one modality's tokens, above 0 and at most 1, not "
                            f"{self.kept}")  # fmt: skip

    def lacks(self, data: Dataset) -> str:
        named = (*(self.hands_on.split("+") if self.hands_on else ()), *(self.modalities or ()), *(self.targets or ()))
        for name in named:
            if name not in ("image", *(self.pseudo or ())) and not data.known(name).any():
                where = f"--{KINDS[name].option} FOLDER" if KINDS[name].option else f"the column '{name}'"
                return f"reads {name}, and {data.info.source} has none: give {where}, or leave '{name}' out"
        return ""

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Fill in pseudo-labels, whose cost is charged, and train; the data are returned unchanged."""
        if not self.pseudo:
            return super().run(data, model, ctx)
        filled, paid = fill_masks(data, self.pseudo["mask"], model, ctx)
        return replace(super().run(filled, model, ctx.after(paid)).charged(paid), data=data)

    def build(self, data: Dataset) -> None:
        encoder: Any = self.model.encoder
        if encoder.model.num_prefix_tokens != 1:
            raise UserError(f"multimae needs a class token and no registers, and '{encoder.name}' has "
                            f"{encoder.model.num_prefix_tokens} prefix tokens")  # fmt: skip
        encoder.pool_by_mean()
        fix_positions(encoder, column_first=False)
        there = [name for name in MODALITIES if name == "image" or data.known(name).any()]
        self.inputs = list(self.modalities or there)
        self.asked = list(self.targets or self.inputs)
        for name in (*self.inputs, *self.asked):
            if name not in there:
                raise UserError(
                    f"multimae's modality '{name}' is not known in {data.info.source}: it has {', '.join(there)}"
                )
        if not torch.stack([data.known(name) | (name == "image") for name in self.inputs]).any(0).all():
            raise UserError(f"some images of {data.info.source} have no known {' or '.join(self.inputs)}, and there is "
                            f"nothing that multimae could see of them: add 'image' to its modalities")  # fmt: skip
        self.handed = self._handed()
        self.every = [name for name in MODALITIES if name in (*self.inputs, *self.asked)]
        encoder.model.patch_embed.requires_grad_("image" in self.every)  # what no loss uses, DDP does not forgive
        width, patch = encoder.model.embed_dim, patch_size(encoder)
        classes = tasks.find("mask").outputs(data) if "mask" in self.every else 0
        adapters = Adapters(width=width, patch=patch, classes=classes, depth="depth" in self.every)
        self.add_head("adapters", adapters)
        self.patch, self.classes = patch, classes
        self.decoders = nn.ModuleDict({f"{name}_": self._decoder(name) for name in self._losses()})
        weighed = self._losses() if self.uncertainty else []
        self.doubts = nn.ParameterDict({f"{name}_": nn.Parameter(torch.zeros(())) for name in weighed})
        size = (data.height, data.width)
        scale = self.scale or crop_scale(*size, smallest=0.2)
        self.view = Policy(size, crop_scale=scale, flip=0.5 if self.flip else 0.0, padding="border")

    def _handed(self) -> tuple[str, ...]:
        """Return the columns that the encoder reads in the end: by default images where they are seen, else depth. Of
        maps of classes alone, the blocks are handed on under the untrained patches of images.

        Raises:
            UserError: one that was named is not among the modalities.
        """
        asked = self.hands_on or ("depth" if "depth" in self.inputs and "image" not in self.inputs else "image")
        for name in self.hands_on.split("+") if self.hands_on else ():
            if name not in self.inputs:
                ways = [f"add '{name}' to its modalities"]
                ways += [f"hand on another, hands_on='{other}'" for other in ("image", "depth") if other in self.inputs]
                raise UserError(f"multimae cannot hand on an encoder of '{asked}': it sees "
                                f"{' and '.join(self.inputs)} alone; {', or '.join(ways)}")  # fmt: skip
        return tuple(asked.split("+"))

    def _losses(self) -> list[str]:
        extra = ["normalised"] if self.normalised and "image" in self.asked else []
        return [*self.asked, *extra]

    def _decoder(self, name: str) -> CrossDecoder:
        size = decoder_size(self.model.encoder)
        size = {"width": max(size["width"] // 2, 32), "depth": 2 if size["depth"] == 8 else 1}
        size |= {"heads": max(size["width"] // 32, 1)}
        if self.decoder is not None:
            size = dict(zip(("width", "depth", "heads"), self.decoder, strict=True))
        outputs = {"depth": self.patch**2, "mask": self.classes * (self.patch // label_stride(self.patch)) ** 2}
        width = self.model.encoder.width
        return CrossDecoder(
            inputs=width, outputs=outputs.get(name, 3 * self.patch**2), modalities=len(self.every), **size
        )

    def step(self, batch: Batch) -> Tensor:
        values, known = self.prepared(self.crops(batch["views"]))
        losses = self.losses(values, known, self.masked(self.available(known)))
        self.log(**losses)
        if not self.uncertainty:
            return torch.stack(list(losses.values())).sum()
        return sum((-self.doubts[f"{n}_"]).exp() * loss + self.doubts[f"{n}_"] for n, loss in losses.items())

    def crops(self, columns: TensorDict) -> dict[str, Tensor]:
        """Return one crop and flip per image, the same for all its modalities."""
        source = (self.data.height, self.data.width)
        view = self.view.sample(len(columns["row"]), source=source, generator=self.generator())
        images = partial(view.images, reduce=self.view.reduction(source))
        move: dict[str, Callable] = {"image": images, "depth": view.depth, "mask": view.masks}
        return {name: move[name](columns[name]) for name in self.every}

    def prepared(self, columns: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return each modality as the network reads it, and which of its pixels are known."""
        values, known = dict(columns), {}
        for name, column in columns.items():
            if name == "depth":
                values[name], known[name] = standardise_depth(column)
            else:
                shape = column[:, 0] if name == "image" else column
                known[name] = torch.ones_like(shape, dtype=torch.bool) if name == "image" else shape != UNKNOWN
        return values, known

    def available(self, known: Mapping[str, Tensor]) -> Bool[Tensor, "batch modalities"]:
        """Return which modalities of an image may be shown: those that are seen and known; all that are seen, where a
        crop has no known pixel of any (each image of a batch keeps equally many tokens)."""
        some = torch.stack([pixels.flatten(1).any(1) & (name in self.inputs) for name, pixels in known.items()], 1)
        seen = torch.tensor([name in self.inputs for name in known], device=some.device)
        return torch.where(some.any(1, keepdim=True), some, seen)

    def masked(self, available: Bool[Tensor, "batch modalities"]) -> Bool[Tensor, "batch tokens"]:
        """Draw which tokens of all modalities are hidden, for the joined batch of all processes."""
        cells = self.cells[0] * self.cells[1]
        n, everywhere = len(available), available.new_ones(len(available) * self.processes, available.shape[1])
        joined = everywhere.clone()
        joined[self.process :: self.processes] = available
        drawn = mask.dirichlet_tokens(
            n * self.processes, [cells] * len(self.every), kept=max(round(self.kept * cells), 1), alpha=self.alpha,
            available=joined, subsets=self.subsets, generator=self.joint_generator(1),
        )  # fmt: skip
        return self.local_rows(drawn)

    @property
    def cells(self) -> tuple[int, int]:
        height, width = self.view.size
        return height // self.patch, width // self.patch

    def losses(
        self, values: Mapping[str, Tensor], known: Mapping[str, Tensor], masked: Bool[Tensor, "batch tokens"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return each target's loss, for prepared values."""
        encoder: Any = self.model.encoder
        adapters, grid = cast(Adapters, self.model.head("adapters")), self.cells
        rows = mask.visible(masked[:, None])
        tokens = gather(all_tokens(encoder, adapters, values, grid), rows)
        seen = transform(encoder, tokens)
        hidden = dict(zip(self.every, masked.chunk(len(self.every), 1), strict=True))
        found = {}
        for name in self._losses():
            source = "image" if name == "normalised" else name
            decoder = self.decoders[f"{name}_"]
            said = decoder(seen[:, :1], seen[:, 1:], rows, grid, self.every.index(source)).float()
            target = encoder.normalise(values[source].float()) if source == "image" else values[source]
            error, counts = errors(name, said, target, known[source], patch=self.patch)
            found[name] = over_images(error, counts * hidden[source][..., None])
        return found

    def finish(self) -> Model:
        """Return the encoder of images with its adapters, or an encoder of one of the columns to read."""
        model = super().finish()
        if self.handed == ("image",):
            return model
        adapters = cast(Adapters, model.head("adapters"))
        return Model(MultiModal(model.encoder, self.handed, adapters.depth), {}, model.info).eval()

    def groups(self) -> list[dict]:
        return [{**group, "betas": (0.9, 0.95)} for group in super().groups()]
