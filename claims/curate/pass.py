"""People taken out, learned as well? Real faces planted in a pool, curated away, and three learners on both pools."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from rushlight.core.catalogue import load_method
from rushlight.data.columns import TEST, TRAIN, encode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.data.synthetic.scenes import compose
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.measure import linear
from rushlight.measure.features import pooled
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Findings, RunContext

IMAGES, SIDE, FACE, SEEN, REVIEW = 4000, 64, 50, 70, 300
SMALL, LABELS, TESTS = 32, 4000, 4000
LEARNERS = (
    "moco(memory_bank_size=2048, batch=128)",
    "swav(prototypes=100, local=2, batch=128)",
    "dino(local=2, batch=128)",
)
BUDGET = Budget(passes=40e3)
LICENCES = ("CC BY 2.0", "CC BY 4.0", "Attribution License", "CC BY 2.0", "CC BY-NC 2.0")


def crops() -> torch.Tensor:
    """Return 200 grey pictures of 25×25 that come with scikit-image: 100 real faces, then 100 without a face."""
    from skimage.data import lfw_subset

    return (255 * torch.from_numpy(lfw_subset())).round()[:, None]


def enlarged(pictures: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(pictures.float(), size=(side, side), mode="bilinear", antialias=True).round().byte()


def items(n: int, seed: int, fold: int = TRAIN) -> Dataset:
    """Return scenes with one uncoloured item each, of half to four fifths of the side."""
    data = compose(n, size=SIDE, objects=(1, 1), scale=(0.55, 0.8), colours=["white"], seed=seed, fold=fold)
    return Dataset({name: data[name] for name in ("image", "class")}, data.info)


def pool(seed: int) -> tuple[Dataset, torch.Tensor]:
    """Return scenes with licences, and which of them show a face: every fourth, one of 70 people, somewhere."""
    generator = torch.Generator().manual_seed(seed)
    data = items(IMAGES, seed)
    images, there = data["image"].clone(), torch.rand(IMAGES, generator=generator) < 0.25
    people = enlarged(crops()[:100][torch.randperm(100, generator=generator)[:SEEN]], FACE)
    for row in there.nonzero().flatten().tolist():
        y, x = torch.randint(SIDE - FACE + 1, (2,), generator=generator).tolist()
        images[row, :, y : y + FACE, x : x + FACE] = people[int(torch.randint(SEEN, (), generator=generator))]
    drawn = torch.randint(len(LICENCES), (IMAGES,), generator=generator).tolist()
    columns = {
        "image": images,
        "name": encode_text([f"{row}.png" for row in range(IMAGES)]),
        "licence": encode_text([LICENCES[i] for i in drawn]),
        "creator": encode_text([f"creator {row % 400}" for row in range(IMAGES)]),
    }
    return Dataset(columns), there


def curated(data: Dataset, there: torch.Tensor, seed: int) -> tuple[Pool, Pool, Findings]:
    """Return the pool after the automatic stages, then after a reviewer who is never wrong about a drawn sample."""
    model, ctx = Model(encoders.create("conv16", image_size=SIDE)), RunContext(seed=seed)
    first = load_method("pass")(threshold=0.25, review=REVIEW)
    before = first.run(data, model, replace(ctx, budget=Budget(passes=1)))
    sample = (~before.pool.scores["review"].isnan()).nonzero().flatten().tolist()
    with tempfile.TemporaryDirectory() as folder:
        earlier, verdicts = Path(folder) / "curation.csv", Path(folder) / "review.csv"
        before.pool.write(earlier)
        said = [f"{data.names[row]},{'remove' if there[row] else 'keep'}" for row in sample]
        verdicts.write_text("\n".join(["name,verdict", *said]))
        second = load_method("pass")(faces=None, review=REVIEW, previous=str(earlier), verdicts=str(verdicts))
        after = second.run(data, model, replace(ctx, budget=Budget(passes=1)))
    return before.pool, after.pool, after.findings


def learned(recipe: str, images: torch.Tensor, seed: int) -> Model:
    start = Model(encoders.create("conv16", image_size=SMALL, seed=seed))
    ctx = RunContext(seed=seed, task=None, precision=hardware.precision("cpu"))
    return Recipe.parse(recipe).run(Dataset({"image": images}), start, replace(ctx, budget=BUDGET)).model


def asked(model: Model, seed: int) -> tuple[float, float]:
    """Return the accuracy (0 … 100) of linear probes: items of other scenes; and a face or none, by five folds."""
    train, test = items(LABELS, 5000 + seed), items(TESTS, 5000 + seed, TEST)
    seen, other = (pooled(model, enlarged(data["image"], SMALL)) for data in (train, test))
    on_items = 100 * linear.accuracy(seen, train["class"], other, test["class"])
    faces = pooled(model, enlarged(crops(), SMALL).expand(-1, 3, -1, -1))
    return on_items, 100 * linear.folded_accuracy(faces, torch.tensor([1] * 100 + [0] * 100))


def run(seed: int) -> dict[str, float]:
    data, there = pool(seed)
    automatic, reviewed, found = curated(data, there, seed)
    kept = reviewed.kept
    hit = automatic.against["face: found by a detector"]
    given = ~automatic.scores["face"].isnan()
    unseen = kept & reviewed.scores["review"].isnan()
    outcome = {
        "fewer faces": float(there.double().mean()) / ((float((kept & there).sum()) + 0.5) / float(kept.sum())),
        "bound": 100 * (found.measure("residual share").high - float(there[unseen].double().mean())),
        "bound, per cent": 100 * found.measure("residual share").high,
        "recall of the face stage": 100 * float((hit & there).sum() / (given & there).sum()),
        "precision of the face stage": 100 * float((hit & there).sum() / hit.sum()),
        "faces before, per cent": 100 * float(there.double().mean()),
        "faces after the detector, per cent": 100 * float(there[automatic.kept].double().mean()),
        "faces after the review, per cent": 100 * float(there[kept].double().mean()),
        "kept": float(kept.sum()),
    }
    small = enlarged(data["image"], SMALL)
    other = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(seed))[: int(kept.sum())]
    untrained = asked(Model(encoders.create("conv16", image_size=SMALL, seed=seed)), seed)
    outcome |= dict(zip(("untrained, items", "untrained, faces"), untrained, strict=True))
    differences = []
    for recipe in LEARNERS:
        name = recipe.split("(")[0]
        with_care, without = (asked(learned(recipe, small[rows], seed), seed) for rows in (kept, other))
        differences.append([abs(a - b) for a, b in zip(with_care, without, strict=True)])
        for what, a, b in zip(("items", "faces"), with_care, without, strict=True):
            outcome |= {f"{name}, {what}, curated": a, f"{name}, {what}, uncurated": b}
    on_items, on_faces = (sum(each) / len(LEARNERS) for each in zip(*differences, strict=True))
    return {"items": 2.0 - on_items, "faces": 5.0 - on_faces, **outcome}


CLAIM = Claim(
    id="pass",
    headline="people can be taken out of a pretraining set and nothing is lost, even on tasks about people: MoCo-v2 "
    "linear on ImageNet / Places205 60.6 / 50.1 from ImageNet, 59.5 / 52.8 from PASS",
    data=f"{IMAGES:,} scenes of 64×64 with one item each; every fourth has one of {SEEN} real faces (50×50) pasted on "
    "it, one in five is not CC BY; curated by licence, the face cascade (two windows) and a reviewer of "
    f"{REVIEW} drawn images; then {', '.join(f'`{each}`' for each in LEARNERS)} on conv16 at 32×32, "
    f"{BUDGET.passes:,.0f} image passes each",
    baseline="the same learners on as many images drawn from the whole pool",
    metric="the mean over the learners of the absolute difference of linear probes: the item of "
    f"{TESTS:,} other scenes, and face or none on 200 crops (five folds); the share of images with a face before "
    "and after",
    effects=(
        Effect("items", "on items, curated and uncurated pools differ by at most 2 points (2 − difference is above 0)"),
        Effect("faces", "on faces, by at most 5 points (5 − difference is above 0)"),
        Effect("fewer faces", "at most a fifth of the faces' share is left after review", margin=5.0, unit="ratio"),
        Effect(
            "bound", "the bound from the review lies above the share of faces among the images that nobody reviewed"
        ),
    ),
    seeds=3,
    run=run,
    note="The curation holds: the detector found 94 % of the planted faces with 90 % precision, and the bound covers "
    "what is left. The learners do not show equivalence, and lean against it: in eight of nine pairs (three learners, "
    "three seeds) the item probe was better after the uncurated pool, by 1 to 14 points. At 40,000 image passes most "
    "learners are no better on items than the untrained encoder (25 to 30 %), so this is far from the paper's setting. "
    "Before the run, after trials on seed 100 in which nothing was learned (12 % on items), the items were made larger "
    "and uncoloured, the budget larger, and DINO's head its default.",
)
