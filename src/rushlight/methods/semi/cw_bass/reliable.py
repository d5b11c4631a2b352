"""Reliable images: those on which a training's earlier states already said what its last one says.

ST++ (Yang et al., 2022, arXiv 2106.05095) ranks unlabelled images by how stable their predicted masks were, labels
the more stable ones, and trains again with them. An image on which early checkpoints and the last one agree is
likely to be predicted well; no confidence has to be believed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rushlight.data.dataset import Dataset
from rushlight.run.model import Model
from rushlight.tasks.scores import confusion

BATCH = 64
"""Images whose predicted maps are held at once."""


def stability(predictions: Sequence[Int[Tensor, "n height width"]], classes: int) -> Float[Tensor, "n"]:
    """Return for each image the mean over the earlier predictions of its mIoU against the last one (ST++, equation 2).

    Args:
        predictions: class maps of checkpoints in order of time, at least two.

    Raises:
        ValueError: a single prediction, against which nothing can be stable.
    """
    *earlier, last = predictions
    if not earlier:
        raise ValueError("stability needs the predictions of two checkpoints or more")
    scores = [_image_iou(confusion(prediction, last, classes)) for prediction in earlier]
    return torch.stack(scores).mean(0)


def label_reliable(
    data: Dataset, checkpoints: Sequence[Model], rows: Int[Tensor, "m"], *, share: float = 0.5
) -> tuple[Dataset, Int[Tensor, "kept"]]:
    """Label the most stable share of some unlabelled rows with the last checkpoint's masks.

    Returns:
        The data with these masks, and the rows that got them.
    """
    masks: UInt8[Tensor, "n height width"] = data["mask"].clone()
    scores = []
    for part in rows.split(BATCH):
        score, last = scored(data, checkpoints, part)
        scores.append(score)
        masks[part] = last.to(torch.uint8)
    order = torch.cat(scores).argsort(descending=True, stable=True)
    kept, doubtful = rows[order].tensor_split([round(share * len(rows))])
    masks[doubtful] = data.read("mask", doubtful)
    return data.with_columns(mask=masks), kept


def scored(
    data: Dataset, checkpoints: Sequence[Model], rows: Int[Tensor, "m"]
) -> tuple[Float[Tensor, "m"], Int[Tensor, "m height width"]]:
    """Return the stability of some rows over the checkpoints, and the last one's masks."""
    predictions = [_predicted(model, data.select(rows)) for model in checkpoints]
    return stability(predictions, checkpoints[-1].head("mask").config["outputs"]), predictions[-1]


def _predicted(model: Model, data: Dataset) -> Int[Tensor, "n height width"]:
    return model.predict(data, names=["mask"])["mask"].argmax(1)


def _image_iou(matrices: Int[Tensor, "n classes classes"]) -> Float[Tensor, "n"]:
    """Return the mean IoU of each image over the classes that occur in it."""
    counts = matrices.double()
    both = counts.diagonal(dim1=1, dim2=2)
    union = counts.sum(1) + counts.sum(2) - both
    return (both / union.clamp(min=1)).sum(1) / (union > 0).sum(1).clamp(min=1)
