"""Detectors by name: how sure each one is (0 … 1) that an image shows what it looks for.

`lbp` looks for faces, on a CPU, with the cascade that scikit-image brings along (local binary patterns; needs the
extra `curate`). The others are torchvision's detectors and look for people; their weights are a local safetensors
file or torchvision's own, fetched only where the user asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rushlight.core.errors import UserError, nearest

Detector = Callable[[Sequence[UInt8[Tensor, "3 _ _"]]], Float[Tensor, "n"]]
"""Images of any sizes → a score for each."""

FACES = ("lbp",)
PEOPLE = (
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
FETCH = "fetch"
PERSON = 1
"""The class `person` among COCO's 91 numbers, as torchvision counts them."""
WINDOWS = (1, 2, 4, 8)
"""Overlapping windows that have to agree for a score of ⅛, ¼, ½ and 1; scikit-image's own rule is four."""


def create(name: str, weights: str | None = None, device: str = "cpu") -> Detector:
    """Return a detector by its name.

    Args:
        name: one of `FACES` or `PEOPLE`.
        weights: for people: a safetensors file, or `fetch` for torchvision's weights on COCO.

    Raises:
        UserError: no such detector, no weights named, weights that do not fit, or the extra is missing.
    """
    if name in FACES:
        return face_cascade()
    if name not in PEOPLE:
        raise UserError(f"there is no detector '{name}'.{nearest(name, FACES + PEOPLE)}")
    if weights is None:
        raise UserError(f"the detector '{name}' needs weights: name a safetensors file, or 'fetch' for torchvision's")
    return People(name, weights, device)


def face_cascade(smallest: int = 24, growth: float = 1.15) -> Detector:
    """Return a detector of upright frontal faces of at least `smallest` pixels, by windows that grow by a factor.

    Raises:
        UserError: scikit-image is missing.
    """
    try:
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade
    except ModuleNotFoundError:
        raise UserError(
            "the face detector 'lbp' needs scikit-image: pip install 'rushlight[curate]', or leave it out with "
            "faces=None"
        ) from None
    cascade = Cascade(lbp_frontal_face_cascade_filename())

    def score(image: Tensor) -> float:
        pixels, largest, found = image.permute(1, 2, 0).contiguous().numpy(), min(image.shape[1:]), 0.0
        for windows in WINDOWS if largest >= smallest else ():
            if not cascade.detect_multi_scale(
                pixels, growth, 1, (smallest, smallest), (largest, largest), min_neighbor_number=windows
            ):
                break
            found = windows / WINDOWS[-1]
        return found

    return lambda images: torch.tensor([score(image.cpu()) for image in images])


class People:
    """The best score of class person of a torchvision detector (RetinaNet or Faster R-CNN)."""

    def __init__(self, name: str, weights: str, device: str = "cpu"):
        self.network = load(name, weights).to(device).eval()
        self.device = device
        self.score = _of_head if name.startswith("retinanet") else _of_boxes

    @torch.inference_mode()
    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> Float[Tensor, "n"]:
        return torch.tensor([self.score(self.network, image.to(self.device).float() / 255) for image in images])


def _of_head(network: Any, image: Float[Tensor, "3 h w"]) -> float:
    """Return the best score over all anchors of a RetinaNet: suppression only drops boxes beside the best one."""
    given, _ = network.transform([image])
    logits = network.head(list(network.backbone(given.tensors).values()))["cls_logits"]
    return float(logits[..., PERSON].sigmoid().max())


def _of_boxes(network: Any, image: Float[Tensor, "3 h w"]) -> float:
    found = network([image])[0]
    people = found["scores"][found["labels"] == PERSON]
    return float(people.max()) if len(people) else 0.0


def load(name: str, weights: str) -> nn.Module:
    """Load a torchvision detector with its weights. Pickles are never loaded from the user's files.

    Raises:
        UserError: the weights cannot be fetched, read, or do not fit.
    """
    from torchvision.models import get_model

    network = get_model(name, weights=None, weights_backbone=None)
    state = _fetched(name) if weights == FETCH else _local(Path(weights))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"the weights '{weights}' do not fit the detector '{name}': {reason}") from None
    return network


def _local(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); pickles are never loaded") from error


def _fetched(name: str) -> Any:
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(name).DEFAULT.get_state_dict(check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the weights of '{name}' could not be fetched ({type(error).__name__}): give a local safetensors file"
        ) from error
