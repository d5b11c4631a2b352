"""What the claims of the members of the pretraining family share: one protocol, equal image passes, same judges.

Each is pretrained on the same 8,000 embedded photos without labels, from the same initial encoder, and judged by a
linear probe (2,000 labels) and nearest neighbours on 2,000 test photos, beside the encoder it started from.
"""

from __future__ import annotations

import torch

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.synthetic import fashion
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.measure import knn, linear
from rushlight.measure.features import pooled
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

PASSES, LABELS, IMAGES = 40e3, 2000, 8000


def pretrained(recipe: str, encoder: str, seed: int, passes: float = PASSES) -> tuple[Model, Model]:
    """Return (the initial model, the pretrained one)."""
    photos = fashion.load()
    data = photos.fold(TRAIN).select(torch.arange(IMAGES)).without(*photos.label_names)
    start = Model(encoders.create(encoder, image_size=28, seed=seed))
    ctx = RunContext(seed=seed, task=None, budget=Budget(passes=passes), precision=hardware.precision("cpu"))
    return start, Recipe.parse(recipe).run(data, start, ctx).model


def judged(model: Model) -> dict[str, float]:
    """Return the accuracy (0 … 100) of a linear probe and of nearest neighbours on frozen features."""
    photos = fashion.load()
    train, test = photos.fold(TRAIN).select(torch.arange(LABELS)), photos.fold(TEST)
    seen, asked = (pooled(model, data) for data in (train, test))
    (label,) = photos.label_names
    labels, true = train[label], test[label]
    return {
        "linear": 100 * linear.accuracy(seen, labels, asked, true),
        "knn": 100 * knn.accuracy(seen, labels, asked, true),
    }


def member(name: str, headline: str, *, recipe: str | None = None, encoder: str = "conv16", note: str = "") -> Claim:
    """Return the claim of one member: its features beat those of the encoder it started from."""
    recipe = recipe or name

    def run(seed: int) -> dict[str, float]:
        before, after = (judged(model) for model in pretrained(recipe, encoder, seed))
        gains = {f"{judge} gain": after[judge] - before[judge] for judge in before}
        return {**gains, **{f"{judge} {when}": found[judge] for when, found in
                            (("untrained", before), ("pretrained", after)) for judge in found}}  # fmt: skip

    return Claim(
        id=name,
        headline=headline,
        data=f"{IMAGES:,} embedded photos of 28×28 without labels, {PASSES:,.0f} image passes, {encoder}, `{recipe}`",
        baseline="the same encoder untrained",
        metric=f"accuracy on 2,000 test photos of a linear probe with {LABELS:,} labels, and of 20 nearest neighbours",
        effects=(
            Effect("linear gain", "a linear probe reads more from the pretrained features than from untrained ones"),
            Effect("knn gain", "and so do nearest neighbours"),
        ),
        seeds=3,
        run=run,
        note=note,
    )
