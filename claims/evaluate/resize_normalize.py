"""Do small images lose by reaching an encoder at their own size and in their own values?"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.synthetic import fashion
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.measure.features import untrained
from rushlight.methods.evaluate.resize_normalize import Asked, ResizeNormalize
from rushlight.nets import baselines, encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

BUDGET, OWN = Budget(passes=30e3), 28
BANK, QUERIES = 1000, 700


def pretrained(seed: int) -> Model:
    """Return conv16 after Barlow Twins on 8,000 photos of 28 pixels without labels, read as (x/255 − 0.5)/0.25."""
    data = fashion.load().fold(TRAIN).select(torch.arange(8000)).without("class")
    start = Model(encoders.create("conv16", seed=seed, image_size=OWN), {}, ModelInfo(image_size=(OWN, OWN)))
    ctx = RunContext(seed=seed, task=None, precision=hardware.precision("cpu"))
    return Recipe.parse("barlow-twins").run(data, start, replace(ctx, budget=BUDGET)).model.eval()


def digits(seed: int) -> tuple[Asked, float]:
    """Return scikit-learn's handwritten digits: 8×8, values from 0 to 16."""
    from sklearn.datasets import load_digits

    whole = load_digits()
    order = torch.randperm(len(whole.target), generator=torch.Generator().manual_seed(seed))
    images = torch.from_numpy(whole.images).float()[order, None].expand(-1, 3, -1, -1).contiguous()
    return _asked(images, torch.from_numpy(whole.target)[order].long()), 16.0


def clothes(seed: int) -> tuple[Asked, float]:
    """Return photos that the encoder was not trained on, at 12×12, values from 0 to 1."""
    photos = fashion.load()
    rows = 8000 + torch.randperm(4000, generator=torch.Generator().manual_seed(seed))[:BANK]
    parts = photos.fold(TRAIN).select(rows), photos.fold(TEST).select(torch.arange(QUERIES))
    small = [F.interpolate(part["image"].float() / 255, (12, 12), mode="area") for part in parts]
    return Asked(small[0], parts[0]["class"], small[1], parts[1]["class"]), 1.0


def textures(seed: int) -> tuple[Asked, float]:
    """Return patches of 10×10 pixels of eight textures (noise through a 5×5 filter each), values from 0 to 255."""
    generator = torch.Generator().manual_seed(1000 + seed)
    labels = torch.arange(BANK + QUERIES) % 8
    filters = torch.randn(8, 1, 5, 5, generator=generator)
    noise = torch.randn(len(labels), 1, 14, 14, generator=generator)
    drawn = torch.stack([F.conv2d(x[None], filters[k][None])[0] for x, k in zip(noise, labels, strict=True)])
    values = (127.5 + 12 * drawn).clamp(0, 255)
    return _asked(values.expand(-1, 3, -1, -1).contiguous(), labels), 255.0


def _asked(images: Tensor, labels: Tensor) -> Asked:
    end = BANK + QUERIES
    return Asked(images[:BANK], labels[:BANK], images[BANK:end], labels[BANK:end])


def scores(judge: ResizeNormalize, model: Model, asked: Asked, *, trained: bool) -> dict[str, float]:
    """Return points of 100 at the four corners of the grid {native, 28} × {raw, standardise}, and at `divide`."""
    found = {}
    for where, size in (("native", asked.native), ("28", OWN)):
        for how in ("raw", "divide", "standardise"):
            contract = judge.contract(model, asked, size, how)
            found[f"{where} {how}"] = 100 * judge.scored(model, asked, contract, pretrained=trained)[1]
    return found


def run(seed: int) -> dict[str, float]:
    model = pretrained(seed)
    random = untrained(model, seed)
    recorded: dict[str, float] = {}
    gains: dict[str, list[float]] = {key: [] for key in ("both", "more", "either", "random", "baseline")}
    for name, (asked, unit) in {"digits": digits(seed), "clothes": clothes(seed), "textures": textures(seed)}.items():
        judge = ResizeNormalize(unit=unit)
        mine, blank = (scores(judge, net, asked, trained=net is model) for net in (model, random))
        both, neither = mine["28 standardise"], mine["native raw"]
        alone = mine["native standardise"], mine["28 raw"]
        simple = {
            key: 100 * judge.score(*read, asked=asked)[1]
            for key, read in baselines.every(asked.bank / unit, asked.queries / unit, seed=seed).items()
        }
        gains["both"].append(both - neither)
        gains["more"].append(both - max(alone))
        gains["either"].append(min(alone) - neither)
        gains["random"].append(blank["28 standardise"] - blank["native standardise"])
        gains["baseline"].append(max(simple.values()) - neither)
        recorded |= {f"{name}: {key}": value for key, value in (mine | simple).items()}
        recorded |= {f"{name}: untrained, {key}": value for key, value in blank.items()}
    return {name: sum(values) / len(values) for name, values in gains.items()} | recorded


CLAIM = Claim(
    id="resize-normalize",
    headline="resizing to the pretraining size and normalising as in pretraining lifts frozen ImageNet features by 11 "
    "(EuroSAT) to 32 points (So2Sat); at native size image statistics beat several networks",
    data="conv16 pretrained by Barlow Twins on 8,000 photos of 28 px (30,000 image passes), frozen; digits of 8×8 in "
    "values 0–16, photos of 12×12 in 0–1, textures of 10×10 in 0–255; 1,000 labelled images, 700 asked about",
    baseline="the same encoder at the images' native size and on raw values",
    metric="accuracy of 5 nearest neighbours, mean over the three sets, in points",
    effects=(
        Effect("both", "28 px and standardised values beat native size and raw values"),
        Effect("more", "and beat the better of doing one of the two alone"),
        Effect("either", "the worse of doing one alone still beats doing neither"),
        Effect("random", "resizing lifts an untrained network too"),
        Effect("baseline", "at native size and on raw values the best simple baseline beats the encoder"),
    ),
    seeds=3,
    run=run,
    note="Every seed gains from both together, but three seeds are few, and the sets differ: textures gain 10 to 23 "
    "points, digits and photos from -2 to +9. Photos enlarged without normalisation lose 5 to 6 points, so doing one "
    "alone may be worse than doing neither. On textures and digits the best simple baseline beats every cell.",
)
