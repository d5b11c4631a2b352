"""Heads: what stands on an encoder. Each says what it reads, and can be built again from its description."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Reads = str | tuple[str, ...]
"""`pooled` features, the last `maps` or the `pyramid` of a model's first encoder; `text.pooled`, … of the one named."""
HOMES = ("rushlight.nets.", "rushlight.tasks.", "rushlight.methods.")
"""Where heads live; a description read from a file can name nothing else."""


class Head(nn.Module):
    """Features → an output.

    Attributes:
        reads: which outputs of the encoders its `forward` takes, one argument each.
        config: the keyword arguments it was made with (plain JSON values), to make it again.
    """

    reads: Reads = "pooled"
    config: dict[str, Any]

    def reading(self, *sources: str) -> Head:
        """Make the head read these outputs, such as `text.pooled`, and return it."""
        self.reads = sources if len(sources) > 1 else sources[0]
        return self


@runtime_checkable
class Sampler(Protocol):
    """What draws new inputs: a head (or an encoder) with this method lets its model `sample`."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n inputs of the model, on the generator's device; images in [0, 1]."""


class Linear(Head):
    """A linear map of the pooled features: class or tag logits."""

    def __init__(self, *, width: int, outputs: int, bias: bool = True):
        super().__init__()
        self.config = {"width": width, "outputs": outputs, "bias": bias}
        self.linear = nn.Linear(width, outputs, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)


class MLP(Head):
    """Linear layers with ReLU (or GELU) between them: projectors and predictors.

    Args:
        widths: of the input, each hidden layer and the output.
        norm: batch norm after each hidden layer.
        last_norm: an affine-free batch norm after the output.
        bias: of the linear layers.
        activation: `relu` or `gelu`.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        norm: bool = True,
        last_norm: bool = False,
        bias: bool = True,
        activation: Literal["relu", "gelu"] = "relu",
    ):
        super().__init__()
        self.config = {"widths": list(widths), "norm": norm, "last_norm": last_norm, "bias": bias}
        self.config |= {"activation": activation}
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths[:-1]):
            layers += [nn.Linear(inputs, outputs, bias=bias)]
            layers += [nn.BatchNorm1d(outputs)] if norm else []
            layers += [nn.ReLU(inplace=True) if activation == "relu" else nn.GELU()]
        layers += [nn.Linear(widths[-2], widths[-1], bias=bias)]
        layers += [nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class Prototypes(Head):
    """Cosines with learnable prototypes: both sides have length 1. Works on the last axis.

    DINO's weight-normed last layer with its gain fixed at 1, SwAV's and MSN's prototypes.
    """

    def __init__(self, *, width: int, outputs: int, std: float = 0.02):
        super().__init__()
        self.config = {"width": width, "outputs": outputs, "std": std}
        self.weight = nn.Parameter(torch.randn(outputs, width) * std)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))


class Chain(Head):
    """Heads one after the other, e.g. a projector and a classifier on it."""

    def __init__(self, *heads: Head):
        super().__init__()
        self.heads = nn.Sequential(*heads)

    @property
    def reads(self) -> Reads:
        return self.heads[0].reads  # type: ignore[return-value]

    @reads.setter
    def reads(self, sources: Reads) -> None:
        self.heads[0].reads = sources  # type: ignore[assignment]

    @property
    def config(self) -> dict[str, Any]:
        return {"heads": [describe(head) for head in self.heads]}

    def forward(self, features: Tensor) -> Tensor:
        return self.heads(features)


def prototype_head(width: int, outputs: int, hidden: int | None = None, bottleneck: int = 256) -> Chain:
    """Return DINO's head: an MLP of three layers with GELU to a bottleneck of length 1, then cosines with prototypes.

    Args:
        hidden: width of the MLP; None takes six times the encoder's, at most the paper's 2048.
    """
    hidden = hidden or min(6 * width, 2048)
    mlp = MLP(widths=[width, hidden, hidden, bottleneck], norm=False, activation="gelu")
    return Chain(mlp, Prototypes(width=bottleneck, outputs=outputs))


def describe(head: nn.Module) -> dict[str, Any]:
    """Return a head as plain JSON: its kind, its configuration, and what it reads where that is not its kind's own."""
    described = {"kind": f"{type(head).__module__}:{type(head).__name__}", **head.config}  # type: ignore[dict-item]
    return described | ({"reads": head.reads} if "reads" in vars(head) else {})


def rebuild(description: dict[str, Any]) -> Head:
    """Return the head that `describe` described, with new weights.

    Only heads of this package are built: a description read from a file cannot name anything else.

    Raises:
        ValueError: the description names something that is no head.
    """
    settings = dict(description)
    kind, reads = _kind(settings.pop("kind")), settings.pop("reads", None)
    if kind is Chain:
        return Chain(*(rebuild(head) for head in settings["heads"]))
    head = kind(**settings)
    return head if reads is None else head.reading(*([reads] if isinstance(reads, str) else reads))


def _kind(named: str) -> type[Head]:
    from importlib import import_module

    module, _, name = named.partition(":")
    found = getattr(import_module(module), name, None) if module.startswith(HOMES) else None
    if not (isinstance(found, type) and issubclass(found, Head)):
        raise ValueError(f"'{named}' is no head of this library")
    return found
