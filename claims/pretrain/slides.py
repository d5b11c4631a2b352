"""Bags of patches of which few, or many, decide the slide's label: does attention find them where a mean loses them?"""

from __future__ import annotations

from dataclasses import replace

from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import tissue
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.methods.pretrain.histopath_ssl.method import Slides
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

UNLABELLED, SLIDES, PATCHES, LABS = 6000, 100, 20, (0, 1, 2, 3)
FEW, HALF = 1 / PATCHES, 1 / 2
RECIPE, BUDGET = 'histopath-ssl(base="simclr(batch=128)")', Budget(passes=30e3)


def judged(model: Model, share: float, seed: int) -> dict[str, float]:
    """Return the AUC (0 … 100) of each pooling, on slides where the sick ones have that share of tumour patches."""
    data = tissue.slides(SLIDES, patches=PATCHES, share=share, labs=LABS, seed=5000 + seed)
    found = Slides(draws=1, titration=()).judge(model, data, RunContext(seed=seed)).numbers
    return {pooling: 100 * found[f"AUC, {pooling}"] for pooling in ("mean", "attention")}


def run(seed: int) -> dict[str, float]:
    bare = Dataset({"image": tissue.compose(UNLABELLED, labs=LABS, seed=10 * seed)["image"]})
    ctx = RunContext(seed=seed, task=None, precision=hardware.precision("cpu"))
    start = Model(encoders.create("conv16", image_size=32, seed=seed))
    model = Recipe.parse(RECIPE).run(bare, start, replace(ctx, budget=BUDGET)).model
    few, half, bare_few = judged(model, FEW, seed), judged(model, HALF, seed), judged(start, FEW, seed)
    gain = few["attention"] - few["mean"]
    return {
        "few": gain,
        "few more than many": gain - (half["attention"] - half["mean"]),
        "pretrained": few["attention"] - bare_few["attention"],
        **{f"1 in 20, {pooling}": value for pooling, value in few.items()},
        **{f"half, {pooling}": value for pooling, value in half.items()},
        **{f"1 in 20, {pooling}, untrained": value for pooling, value in bare_few.items()},
    }


CLAIM = Claim(
    id="slides",
    headline="attention as pooling of instances outperforms other multiple-instance methods on bags of MNIST digits "
    "and on two sets of histopathology images, and shows which instances decide",
    data="100 composed slides of 20 H&E patches (32×32) from four laboratories, of which the sick ones have one patch "
    "of tumour, or ten; frozen conv16, pretrained by histopath-ssl (SimCLR, 30,000 image passes) on 6,000 patches "
    "without labels; four folds divided by slides",
    baseline="logistic regression on the mean of a slide's features; the untrained encoder",
    metric="AUC for the slide's label",
    effects=(
        Effect("few", "where 1 patch in 20 decides, gated attention beats mean pooling"),
        Effect("few more than many", "and by more than where half of the patches decide"),
        Effect("pretrained", "where 1 in 20 decides, pretrained features beat those of the untrained encoder"),
    ),
    seeds=5,
    run=run,
)
