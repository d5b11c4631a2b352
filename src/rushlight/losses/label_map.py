"""Label maps: class scores of each region of an image, stored once, read for any crop (ReLabel).

A classifier that pools its last feature map and then applies a linear layer gives the same logits if the
layer is applied to each cell first and the result is pooled: so the layer, as a 1×1 convolution, says which
classes stand where. The k best scores of each cell are kept, the others count as 0. A crop's target is the
softmax of the mean score within its box, taken from bilinear samples as RoIAlign takes them.

A box pools to one value a class, and bilinear sampling is separable: the mean over the samples is a weight
for each row times a weight for each column. RoIAlign is then one product of small matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Scores = Float[Tensor, "batch classes h w"]
Boxes = Float[Tensor, "batch 4"]


def class_map(
    maps: Float[Tensor, "batch width h w"],
    weight: Float[Tensor, "classes width"],
    bias: Float[Tensor, "classes"] | None = None,
) -> Scores:
    """Return the classifier's linear layer at each cell of the last feature map; its mean over cells is the logits."""
    return F.conv2d(maps, weight[:, :, None, None], bias)


def sparsify(scores: Scores, *, k: int = 5) -> tuple[Float[Tensor, "batch k h w"], Int[Tensor, "batch k h w"]]:
    """Return the k largest scores of each cell and their class ids, largest first (all, if there are fewer)."""
    values, ids = scores.topk(min(k, scores.shape[1]), dim=1)
    return values, ids


def densify(values: Float[Tensor, "batch k h w"], ids: Int[Tensor, "batch k h w"], *, classes: int) -> Scores:
    """Return the map of all classes, 0 where a class is not among the k; unknown ids (−1) are left out."""
    known = ids >= 0
    dense = values.new_zeros(len(values), classes, *values.shape[2:])
    return dense.scatter_add(1, ids.clamp(min=0).long(), values.where(known, 0))


def pooled_logits(scores: Scores, boxes: Boxes) -> Float[Tensor, "batch classes"]:
    """Return the mean score within one box per image, as RoIAlign with a 1×1 output computes it.

    Args:
        scores: maps, one an image.
        boxes: x1, y1, x2, y2 as fractions of the image's width and height, in [0, 1].

    A box is taken as at least one cell wide and high (it grows to the right and down), as in the official
    code, which shifts boxes by half a cell and pools with the unaligned RoIAlign. That code also gives
    (top, left, …) where (x1, y1, …) is expected and scales both axes by the map's width; this function does
    neither.
    """
    columns = _sample_weights(boxes[:, 0], boxes[:, 2], scores.shape[3])
    rows = _sample_weights(boxes[:, 1], boxes[:, 3], scores.shape[2])
    return torch.einsum("bchw,bh,bw->bc", scores, rows.to(scores.dtype), columns.to(scores.dtype))


def pooled_targets(scores: Scores, boxes: Boxes) -> Float[Tensor, "batch classes"]:
    """Return the soft target of each image's crop: the softmax of `pooled_logits` (never of single cells)."""
    return pooled_logits(scores, boxes).softmax(1)


def one_hot_targets(targets: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
    """Return the most probable class alone: the single-label variant of a soft target."""
    return F.one_hot(targets.argmax(1), targets.shape[1]).to(targets.dtype)


def _sample_weights(low: Tensor, high: Tensor, cells: int) -> Float[Tensor, "batch cells"]:
    """Return how much each cell of an axis counts in the mean of ⌈length⌉ evenly spaced bilinear samples of a box."""
    start = low * cells - 0.5
    length = ((high - low) * cells).clamp(min=1)
    count = length.ceil()
    index = torch.arange(cells, device=low.device)
    at = start[:, None] + (index + 0.5) * (length / count)[:, None]
    used = (index < count[:, None]) & (at >= -1) & (at <= cells)
    distance = (at.clamp(0, cells - 1)[..., None] - index).abs()
    hat = (1 - distance).clamp(min=0) * used[..., None]
    return hat.sum(1) / count[:, None]
