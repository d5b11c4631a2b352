"""Encoders: any timm model by its name, and a few small ones for small machines.

An encoder takes images in [0, 1] and normalises them itself, so that everything outside it (views, attacks, models)
speaks of the same images. It gives pooled features, the last feature map, and a pyramid of maps for dense heads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

import rushlight._torchvision  # noqa: F401  (before timm)
from rushlight.core.errors import UserError, nearest
from rushlight.nets import local_global

SMALL = ("conv16", "conv32", "vit64", "vit96")
VITS = {"vit64": (64, 4, 4), "vit96": (96, 6, 3)}
"""Of the small vision transformers: width, blocks and attention heads."""
MEAN = "mean"
"""Added to a name (`vit96+mean`): pooled features are the mean of the last map."""


class Encoder(nn.Module):
    """Images in [0, 1] → features.

    Attributes:
        name: what `create` was given.
        width: size of the pooled features.
        channels, strides: of the maps of the pyramid, from fine to coarse.
    """

    name: str
    width: int
    channels: list[int]
    strides: list[int]
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.name = name
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def normalise(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        return (images - self.mean) / self.std

    def pyramid(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Feature maps from fine to coarse."""
        raise NotImplementedError

    def maps(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim h w"]:
        """The last feature map; its mean over cells is what `forward` gives, for encoders that pool by the mean."""
        return self.pyramid(images)[-1]

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Pooled features."""
        return self.maps(images).mean((2, 3))

    def takes(self, size: int) -> bool:
        """Whether it reads square images of this side."""
        return size > 0


class Conv(Encoder):
    """Six 3×3 convolutions with batch norm, of width w, w, 2w, 2w, 4w, 4w; every second one halves the image. 72k
    parameters at w = 16.

    Only the first convolution works at full resolution: on a CPU the step is bound by memory traffic there.
    """

    def __init__(self, name: str, width: int = 16):
        super().__init__(name, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        blocks = [_block(i, o, stride) for i, o, stride in zip([3, *widths], widths, (1, 2, 1, 2, 1, 2), strict=False)]
        parts = [blocks[:1], blocks[1:3], blocks[3:5], blocks[5:]]
        self.stages = nn.ModuleList(nn.Sequential(*part) for part in parts)
        self.channels, self.strides = [width, 2 * width, 4 * width, 4 * width], [1, 2, 4, 8]
        self.width = 4 * width

    def pyramid(self, images: Tensor) -> list[Tensor]:
        levels = [self.normalise(images)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels[1:]


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Timm(Encoder):
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
        self.model: Any = model
        self._taken: dict[int, bool] = {}
        with torch.no_grad():
            example = torch.zeros(1, 3, image_size, image_size)
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
        """From now on pooled features are the mean of the tokens: for pretraining that never trains a class token."""
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
    if not timm.is_model(architecture):
        known = [*SMALL, *timm.list_models()]
        raise UserError(f"there is no encoder '{name}'.{nearest(name, known)} timm's models and {SMALL} can be named.")
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


def create(
    name: str,
    *,
    image_size: int = 32,
    seed: int | None = None,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> Encoder:
    """An encoder by its name.

    Args:
        name: `conv16`, `conv32`, `vit64`, `vit96` (`vit96-p7`: with patches of 7 pixels), or any timm model;
            `+local-global` after it widens its 3×3 convolutions (see `nets.local_global`), `+mean` pools a timm
            model's features by their mean.
        image_size: side of the images in pixels (a ViT's position grid is made for it).
        seed: of the initial weights; None draws from PyTorch's global generator.
        pretrained: fetch timm's pretrained weights from the Hub.
        weights: a local safetensors file with the encoder's weights.

    Raises:
        UserError: no such encoder; weights that cannot be read, or that do not fit.
    """
    name, plus, addition = name.partition("+")
    if plus and addition not in (local_global.SUFFIX, MEAN):
        raise UserError(
            f"there is no encoder '{name}+{addition}': "
            f"what can be added to one is '+{local_global.SUFFIX}' or '+{MEAN}'"
        )
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if name in ("conv16", "conv32"):
            encoder: Encoder = Conv(name, int(name.removeprefix("conv")))
        elif small_transformer(name):
            encoder = _small_vit(name, image_size)
        else:
            encoder = Timm(name, image_size, pretrained)
    if weights is not None:
        load_weights(encoder, Path(weights))
    if addition == MEAN:
        if not isinstance(encoder, Timm):
            raise UserError(f"'{name}' pools by the mean already: leave '+{MEAN}' away")
        encoder.pool_by_mean()
    elif plus:
        encoder = _widen(encoder, seed)
    return encoder


def small_transformer(name: str) -> bool:
    """Whether this is the name of one of the small vision transformers, with patches of any size and any addition."""
    return name.partition("+")[0].partition("-p")[0] in VITS


def _widen(encoder: Encoder, seed: int | None) -> Encoder:
    """The encoder with local-global convolutions, the branches' weights drawn by the seed."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return local_global.widen(encoder)


def _small_vit(name: str, image_size: int) -> Timm:
    """A small ViT: `vit96` has 0.7 million parameters, `vit64` 0.2. Patches of 4 pixels (8 above 64 pixels, 16 above
    128), or as the name says.

    Raises:
        UserError: the image does not divide into patches of the named size.
    """
    kind, _, named = name.partition("-p")
    patch = 4 if image_size <= 64 else 8 if image_size <= 128 else 16
    if named:
        patch = int(named) if named.isdecimal() and int(named) else 0
        if not patch or image_size % patch:
            raise UserError(f"'{name}': images of {image_size} pixels do not divide into patches of '{named}' pixels")
    width, depth, heads = VITS[kind]
    encoder = Timm(
        "vit_tiny_patch16_224",
        image_size,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        dynamic_img_size=True,
    )
    encoder.name = name
    return encoder


MODELS = "encoder."
"""What the names of an encoder's weights begin with in the file of a whole model."""


def load_weights(encoder: Encoder, path: Path) -> None:
    """Load a safetensors file into an encoder: of an encoder of ours, of a saved model (its heads are left), or a timm
    checkpoint of the same architecture.

    Raises:
        UserError: not a safetensors file (pickles are never loaded), or of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}); pickled weights are never loaded"
        ) from None
    if any(key.startswith(MODELS) for key in state):
        state = {key.removeprefix(MODELS): value for key, value in state.items() if key.startswith(MODELS)}
    target: nn.Module = encoder
    if isinstance(encoder, Timm) and not any(key.startswith("model.") for key in state):
        target = encoder.model
        state = {key: value for key, value in state.items() if key in target.state_dict()}
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"the weights in {path} do not fit the encoder '{encoder.name}': {reason}") from None
