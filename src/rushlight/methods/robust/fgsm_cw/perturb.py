"""Attacks: optimise any loss of each image's logits under a constraint on the image.

Images lie in [0, 1] and stay there; the network takes them so (its own normalisation lives inside it) and
must be in evaluation mode. `Logits` is any function from images to logits; gradients are taken with respect
to the images alone, so parameters keep theirs untouched. Losses are summed over the batch, never averaged:
what happens to one image does not depend on its neighbours.

FGSM is one step of the signed gradient, PGD several of them projected back into a ball (L∞ or L2) around
the image, Carlini and Wagner's attack looks for the nearest image in L2 that fools the network: with x'(w)
= ½(tanh w + 1) it minimises ‖x' − x‖² + c·f(x') by Adam, f = max(margin of the true class, −κ), and
searches c for each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.core.float64 import double, where_float64

Images = Float[Tensor, "batch *pixel"]
Labels = Int[Tensor, "batch"]
PerImage = Float[Tensor, "batch"]
LogitsFn = Callable[[Tensor], Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]
"""From logits and labels to one loss an image."""


def cross_entropy(logits: Float[Tensor, "batch classes"], labels: Labels) -> PerImage:
    """Return −log softmax(z)_y of each image."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Float[Tensor, "batch classes"], labels: Labels) -> PerImage:
    """Return z_y − max_{i≠y} z_i of each image: negative where y is not the prediction."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -math.inf).amax(1)


def fooled(logits: Float[Tensor, "batch classes"], labels: Labels, *, targeted: bool = False) -> Bool[Tensor, "batch"]:
    """Return where an attack has reached its goal: the prediction is (targeted) or is not (untargeted) the label."""
    return (logits.argmax(1) == labels) == targeted


def share(which: Bool[Tensor, "n"]) -> float:
    """Return the share of true entries."""
    return int(which.sum()) / len(which) if len(which) else math.nan


def fgsm(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    *,
    eps: float,
    targeted: bool = False,
    loss: LossFn = cross_entropy,
) -> Images:
    """Perturb by the fast gradient sign method (Goodfellow et al., arXiv 1412.6572).

    x' = clip(x + ε sign ∇ loss(z(x), y)), or minus towards a target class.

    Args:
        images: in [0, 1].
        labels: the true classes, or the wanted ones if `targeted`.
        eps: largest change of any value of a pixel.
        loss: what to raise (lower, if targeted), one value an image.
    """
    _, gradient = _descend(logits_fn, images, labels, loss, -1 if targeted else 1)
    return torch.add(images, gradient.sign(), alpha=eps).clamp_(0, 1)


def pgd(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    *,
    eps: float,
    step: float | None = None,
    steps: int = 10,
    norm: Literal["linf", "l2"] = "linf",
    generator: torch.Generator | None = None,
    targeted: bool = False,
    loss: LossFn = cross_entropy,
    stop_early: bool = False,
) -> Images:
    """Perturb by projected gradient descent (Madry et al., arXiv 1706.06083).

    Args:
        images: in [0, 1].
        labels: the true classes, or the wanted ones if `targeted`.
        eps: radius of the ball around each image.
        step: length of a step; 2.5 ε / steps by default.
        norm: of the ball and the step: `linf` (signed gradient) or `l2` (gradient of unit length).
        generator: where the random start is drawn from; without one, the attack starts at the image.
        loss: what to raise (lower, if targeted), one value an image.
        stop_early: leave an image alone as soon as it fools the network, and compute no further on it.
    """
    step = 2.5 * eps / steps if step is None else step
    move, project = (_signed, _into_cube) if norm == "linf" else (_unit, _into_ball)
    result = images.detach().clone() if generator is None else _random_start(images, eps, norm, generator)
    at, rows = result, torch.arange(len(images), device=images.device)
    for _ in range(steps):
        logits, gradient = _descend(logits_fn, at, labels, loss, -1 if targeted else 1)
        if stop_early:
            going = ~fooled(logits, labels, targeted=targeted)
            result = result.index_copy(0, rows, at)
            rows, at, images, labels = rows[going], at[going], images[going], labels[going]
            gradient = gradient[going]
            if len(rows) == 0:
                return result
        at = project(torch.add(at, move(gradient), alpha=step), images, eps)
    return result.index_copy(0, rows, at) if stop_early else at


def _descend(logits_fn: LogitsFn, images: Tensor, labels: Tensor, loss: LossFn, sign: int) -> tuple[Tensor, Tensor]:
    """Return the logits at the images, and the gradient there of `sign` times the summed loss."""
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = logits_fn(leaf)
        total = sign * loss(logits, labels).sum()
    return logits.detach(), torch.autograd.grad(total, leaf)[0]


def _per_image(x: Tensor, like: Tensor) -> Tensor:
    return x.view(-1, *[1] * (like.ndim - 1))


def _norms(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


def _signed(gradient: Tensor) -> Tensor:
    return gradient.sign()  # never in place: autograd may hand out an expanded view


def _unit(gradient: Tensor) -> Tensor:
    return gradient / _per_image(_norms(gradient) + 1e-10, gradient)


def _into_cube(x: Tensor, centre: Tensor, eps: float) -> Tensor:
    return x.sub_(centre).clamp_(-eps, eps).add_(centre).clamp_(0, 1)


def _into_ball(x: Tensor, centre: Tensor, eps: float) -> Tensor:
    change = x.sub_(centre)
    shrink = eps / _norms(change).clamp(min=max(eps, 1e-30))
    return change.mul_(_per_image(shrink, change)).add_(centre).clamp_(0, 1)


def _random_start(images: Tensor, eps: float, norm: str, generator: torch.Generator) -> Tensor:
    """Draw a start: uniform in the cube; in the ball, of uniform direction and radius (as torchattacks has it)."""
    if norm == "linf":
        change = torch.empty_like(images).uniform_(-eps, eps, generator=generator)
    else:
        change = torch.empty_like(images).normal_(generator=generator)
        radius = torch.empty_like(_norms(change)).uniform_(0, 1, generator=generator)
        change = change * _per_image(radius / _norms(change) * eps, change)
    return (images + change).clamp_(0, 1)


@dataclass(frozen=True)
class CarliniWagner:
    """Settings of Carlini and Wagner's L2 attack.

    Attributes:
        c: the price of not fooling the network, at first.
        confidence: κ, the margin of logits by which it must be fooled.
        steps: iterations of Adam for each c.
        rate: Adam's learning rate.
        searches: how many values of c each image tries.
        stop_early: give an image up when, over a tenth of the steps, its loss fell by less than 0.01 %.
        box: the change of variables that keeps pixels in [0, 1]: x' = ½(tanh w + 1) as published, under which black
            and white pixels need thousands of steps to leave the border, or x' = ½(sin w + 1), where tens are enough.
    """

    c: float = 1.0
    confidence: float = 0.0
    steps: int = 50
    rate: float = 0.01
    searches: int = 1
    stop_early: bool = False
    box: Literal["sine", "tanh"] = "sine"


FAST = CarliniWagner()
"""One c and 50 steps, torchattacks' defaults."""
FULL = CarliniWagner(c=1e-3, steps=10_000, searches=9, stop_early=True, box="tanh")
"""The original attack's settings (Carlini and Wagner, arXiv 1608.04644)."""

_MOST = 1e10  # no c above this is tried: an upper bound not yet found


def carlini_wagner_l2(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    *,
    targeted: bool = False,
    settings: CarliniWagner = FAST,
) -> Images:
    """Perturb by Carlini and Wagner's L2 attack (arXiv 1608.04644): the nearest image found that fools the network.

    Of all iterates of all searches the successful one with the smallest L2 is returned for each image;
    where none succeeds, the image itself.

    Args:
        images: in [0, 1].
        labels: the true classes, or the wanted ones if `targeted`.
        settings: `FAST`, `FULL`, or your own.
    """
    best = images.detach().clone()
    distance = torch.full_like(images.flatten(1)[:, 0], math.inf)
    low, c = torch.zeros_like(distance), torch.full_like(distance, settings.c)
    high = torch.full_like(distance, _MOST)
    for _ in range(settings.searches):
        success = _search(logits_fn, images, labels, targeted, settings, c, best, distance)
        high = torch.where(success, high.minimum(c), high)
        low = torch.where(success, low, low.maximum(c))
        c = torch.where(high < _MOST / 10, (low + high) / 2, c * 10)
    return best


@dataclass(frozen=True)
class Box:
    """A map of the real line onto [−1, 1], its inverse, and by how much a start is shrunk towards 0."""

    map: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    shrink: float


BOXES = {"tanh": Box(torch.tanh, torch.atanh, 1e-6), "sine": Box(torch.sin, torch.asin, 1e-4)}


def _to_w(images: Tensor, box: str) -> Tensor:
    return BOXES[box].inverse((2 * images - 1) * (1 - BOXES[box].shrink))


def _search(
    logits_fn: LogitsFn,
    images: Tensor,
    labels: Tensor,
    targeted: bool,
    settings: CarliniWagner,
    c: Tensor,
    best: Tensor,
    distance: Tensor,
) -> Tensor:
    """Run Adam once with each image's c: improve `best` and `distance`, return which images succeeded."""
    success = torch.zeros_like(labels, dtype=torch.bool)
    rows = torch.arange(len(images), device=images.device)
    w = _to_w(images.detach(), settings.box)
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    before, each = torch.full_like(distance, math.inf), max(settings.steps // 10, 1)
    for step in range(settings.steps):
        at, squared, price, loss, gradient = _objective(
            logits_fn, w, images[rows], labels[rows], c[rows], targeted, settings
        )
        hit = (price < 0) & (price <= -settings.confidence)
        success[rows] |= hit
        nearer = hit & (squared < distance[rows])
        best[rows[nearer]], distance[rows[nearer]] = at[nearer], squared[nearer]
        _adam(w, gradient, first, second, step + 1, settings.rate)
        if settings.stop_early and step % each == 0:
            going = loss <= 0.9999 * before[rows]
            before[rows] = loss
            rows, w, first, second = rows[going], w[going], first[going], second[going]
            if len(rows) == 0:
                break
    return success


def _objective(
    logits_fn: LogitsFn,
    w: Tensor,
    images: Tensor,
    labels: Tensor,
    c: Tensor,
    targeted: bool,
    settings: CarliniWagner,
) -> tuple[Tensor, ...]:
    """Return x'(w), ‖x' − x‖², the margin that must become negative, each image's loss, its gradient in w."""
    leaf = w.requires_grad_()
    with torch.enable_grad():
        at = (BOXES[settings.box].map(leaf) + 1) / 2
        squared = (at - images).square().flatten(1).sum(1)
        price = margin(logits_fn(at), labels) * (-1 if targeted else 1)
        loss = squared + c * price.clamp(min=-settings.confidence)
    gradient = torch.autograd.grad(loss.sum(), leaf)[0]
    w.requires_grad_(False)
    return at.detach(), squared.detach(), price.detach(), loss.detach(), gradient


def _adam(w: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int, rate: float) -> None:
    """Make one step of Adam in place. torch.optim's cannot leave out finished images."""
    first.lerp_(gradient, 0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    root = (second.sqrt() / math.sqrt(1 - 0.999**step)).add_(1e-8)
    w.addcdiv_(first, root, value=-rate / (1 - 0.9**step))


@dataclass(frozen=True)
class Masking:
    """What `gradient_masking` saw.

    Attributes:
        zero: share of images whose gradient is exactly 0 everywhere.
        plain: share that FGSM fools.
        scaled: the same, logits divided by a temperature.
        precise: the same, softmax (or the whole network, if given) in float64.
        masked: one of the two fools at least `jump` more images than plain FGSM: the network does not
        resist the
            attack, it hides the gradient from it.
    """

    zero: float
    plain: float
    scaled: float
    precise: float
    masked: bool


def gradient_masking(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    *,
    eps: float,
    temperature: float = 100.0,
    precise_fn: LogitsFn | None = None,
    jump: float = 0.1,
) -> Masking:
    """Test whether a network resists FGSM, or only its gradient vanishes in float32.

    After training at a high temperature margins are so large that at temperature 1 softmax saturates: the
    gradient underflows to 0, and a signed step goes nowhere.

    Args:
        images: in [0, 1], best those that the network classifies rightly.
        temperature: divides the logits in the second attack.
        precise_fn: the network in float64; without it only the softmax is.
        jump: how many more images, as a share, must fall for the verdict `masked`.
    """
    _, gradient = _descend(logits_fn, images, labels, cross_entropy, 1)

    def error(attacked: Tensor) -> float:
        with torch.no_grad():
            return share(fooled(logits_fn(attacked.to(images)), labels))

    plain = error((images + eps * gradient.sign()).clamp(0, 1))
    scaled = error(fgsm(lambda x: logits_fn(x) / temperature, images, labels, eps=eps))
    if precise_fn is None:
        precise = error(fgsm(lambda x: double(logits_fn(x)), images, where_float64(labels), eps=eps))
    else:
        precise = error(fgsm(precise_fn, double(images), where_float64(labels), eps=eps))
    zero = share((gradient == 0).flatten(1).all(1))
    return Masking(zero, plain, scaled, precise, max(scaled, precise) - plain >= jump)
