"""Images on which a model errs most, with what it answers drawn on them."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Int
from torch import Tensor

from rushlight.core.findings import Findings, Pictures
from rushlight.data.dataset import Dataset
from rushlight.run.evaluate import batches
from rushlight.run.model import Model
from rushlight.tasks.base import Parts, Task, names_of

SHOWN = 24


def examples(model: Model, data: Dataset, rows: Int[Tensor, "n"], task: Task, parts: Parts) -> Findings:
    """Return pictures of the images with the worst answers; none for a task that draws none.

    Args:
        rows: of the data, in the order of the parts.
    """
    worst = rows[task.worst(parts)[:SHOWN]]
    drawn = []
    for part, outputs, columns in batches(model, data, worst, task):
        pictures = task.pictures(outputs, columns, model.info)
        drawn += [replace(one, name=name) for one, name in zip(pictures, names_of(data, part), strict=False)]
    caption = f"The {len(drawn)} images with the worst answers, the worst first."
    shown = (Pictures("examples", tuple(drawn), caption),) if drawn else ()
    return Findings("examples", pictures=shown, title="What it gets wrong", priority=21)
