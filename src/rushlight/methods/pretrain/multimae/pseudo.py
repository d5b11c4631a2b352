"""Pseudo-labels of MultiMAE: maps of classes that nobody drew, from a model of ours."""

from __future__ import annotations

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.methods.pretrain.multimae.multimodal import UNKNOWN
from rushlight.run.budget import Clock, Spent, count_flops, pace, pass_flops
from rushlight.run.model import Model
from rushlight.run.stage import RunContext

TEACHING = 0.25
"""Pseudo-labels cost at most this share of the budget; images beyond it keep what they have."""


def fill_masks(data: Dataset, folder: str, model: Model, ctx: RunContext) -> tuple[Dataset, Spent]:
    """Return the data with the masks that the model in a folder predicts where none is known, and what they cost.

    Raises:
        UserError: the folder holds no model, one that predicts no masks, or other classes than the data's.
    """
    teacher = Model.load(folder)
    names = _class_names(data, teacher, folder)
    a_pass = pass_flops(model.encoder, (data.height, data.width))
    with torch.no_grad():
        price = count_flops(lambda: teacher.logits(data.read("image", slice(1)).float() / 255, "mask"))
    rows = (~data.known("mask")).nonzero()[:, 0]
    size = (len(data), data.height, data.width)
    masks = data["mask"].clone() if "mask" in data else torch.full(size, UNKNOWN, dtype=torch.uint8)
    with Clock() as clock:
        if len(rows):
            rows = rows[: max(_bought(data, teacher, rows, price / a_pass, ctx), 1)]
            masks[rows] = _told(teacher, data, rows)
    numbers = range(int(masks[masks != UNKNOWN].max()) + 1) if (masks != UNKNOWN).any() else ()
    paid = Spent(len(rows) * price / a_pass, len(rows) * price, seconds=clock.seconds)
    return data.with_columns(mask=masks).with_info(mask_names=names or tuple(map(str, numbers))), paid


def _bought(data: Dataset, teacher: Model, rows: Int[Tensor, "n"], passes: float, ctx: RunContext) -> int:
    """Return of how many images the budget pays for a mask."""

    def seconds() -> float:
        return ctx.measured("pseudo-masks", lambda: pace(lambda part: _told(teacher, data, rows[part]), len(rows)))

    return ctx.budget.pays_for(TEACHING, passes=passes, seconds=seconds)


def _told(teacher: Model, data: Dataset, rows: Int[Tensor, "n"]) -> UInt8[Tensor, "n height width"]:
    """Return the masks that the teacher predicts of some rows."""
    told = teacher.predict_batches(data, rows=rows, names=["mask"])
    return torch.cat([outputs["mask"].argmax(1).byte().cpu() for outputs in told])


def _class_names(data: Dataset, teacher: Model, folder: str) -> tuple[str, ...]:
    """Return the class names of both, as far as one of them has any."""
    if "mask" not in teacher.head_names:
        raise UserError(f"the model in {folder} predicts no masks: name one that does")
    own = data.info.mask_names or (data.info.class_names if data.known("mask").any() else ())
    names = teacher.info.mask_names or teacher.info.class_names
    if own and names and tuple(own) != tuple(names):
        raise UserError(f"the masks of {data.info.source} and of the model in {folder} have other classes: train that "
                        "model on the same ones")  # fmt: skip
    return tuple(own or names)
