"""Any model of timm, without its head."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.nets.encoders.base import ImageEncoder

MEAN = "mean"
"""Added to a name (`vit96+mean`): pooled features are the mean of the last map."""


class Timm(ImageEncoder):
    """A timm model without its head.

    Attributes:
        pool: `default`, the model's own (a ViT's class token); or `mean`, that of the last map.
    """

    pool: Literal["default", "mean"] = "default"

    def __init__(self, name: str, image_size: int, pretrained: bool = False, **settings: Any):
        import timm

        model = _timm_model(name, image_size, pretrained, settings)
        config = timm.data.resolve_data_config({}, model=model)
        super().__init__(name, config["mean"], config["std"])
        self.image_size = image_size
        self.model: Any = model
        self._taken: dict[int, bool] = {}
        with torch.no_grad():
            example = self.example(1, generator=torch.Generator())
            self.eval()
            try:
                levels = self.pyramid(example)
                self.width = self.forward(example).shape[1]
            except UNFIT as error:
                raise _unfit(name, image_size, model) from error
            self.train()
        self.channels = [level.shape[1] for level in levels]
        self.strides = [round(image_size / level.shape[-1]) for level in levels]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(self.normalise(images), intermediates_only=True)

    def maps(self, images: Tensor) -> Tensor:
        features = self.model.forward_features(self.normalise(images))
        patches: Any = getattr(self.model, "patch_embed", None)
        if isinstance(features, Tensor) and features.ndim == 4:
            last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"  # Swin and kin keep channels last
            return features.permute(0, 3, 1, 2) if last else features
        if isinstance(features, Tensor) and features.ndim == 3 and hasattr(patches, "dynamic_feat_size"):
            # Tokens: drop the prefix (class and register tokens), back to a grid.
            tokens = features[:, getattr(self.model, "num_prefix_tokens", 0) :]
            return tokens.transpose(1, 2).unflatten(2, patches.dynamic_feat_size(images.shape[-2:]))
        return self.pyramid(images)[-1]  # only timm knows what the model keeps where

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).mean((2, 3)) if self.pool == "mean" else self.model(self.normalise(images))

    @torch.no_grad()
    def takes(self, size: int) -> bool:
        # Grids of positions, windows, strides, attention biases: what binds a model to a size has no common name.
        if size not in self._taken:
            was_training = self.training
            self.eval()
            try:
                self.maps(self.mean.new_zeros(1, 3, size, size))
                self._taken[size] = True
            except UNFIT:
                self._taken[size] = False
            self.train(was_training)
        return self._taken[size]

    def pool_by_mean(self) -> None:
        """Make pooled features the mean of the tokens, for pretraining that never trains a class token."""
        if self.pool != "mean":
            self.pool, self.name = "mean", f"{self.name}+{MEAN}"


UNFIT = (AssertionError, IndexError, RuntimeError, ValueError)
"""What timm's models raise at images of a size that they cannot read."""


def _unfit(name: str, image_size: int, model: nn.Module) -> UserError:
    from timm.layers import to_2tuple

    patch, _ = to_2tuple(getattr(getattr(model, "patch_embed", None), "patch_size", 1))
    near = -(-image_size // patch) * patch
    own = getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[-1]
    return UserError(
        f"'{name}' does not read images of {image_size} × {image_size} pixels (it was made for {own}): "
        f"give --size {own if near == image_size else near}, or another encoder"
    )


def _timm_model(name: str, image_size: int, pretrained: bool, settings: dict[str, Any]) -> nn.Module:
    import timm

    architecture = name.removeprefix("timm/")
    try:
        # A ViT's positions are made for one size and stretched for others, such as the small views of multi-crop.
        for sizes in ({"img_size": image_size, "dynamic_img_size": True}, {"img_size": image_size}):
            with contextlib.suppress(TypeError):
                return timm.create_model(architecture, pretrained=pretrained, num_classes=0, **(sizes | settings))
        return timm.create_model(architecture, pretrained=pretrained, num_classes=0, **settings)  # takes any size
    except (AssertionError, OSError, RuntimeError) as error:
        if not pretrained:
            raise _unfit(name, image_size, timm.create_model(architecture)) from error
        raise UserError(
            f"the weights of '{name}' could not be fetched ({type(error).__name__}): "
            "give a local file with --weights FILE.safetensors, or train from scratch"
        ) from error
