"""Does pretraining, not chance, decide where a small backbone stands, whatever the task?"""

from __future__ import annotations

from dataclasses import replace

import torch

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic import fashion
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.methods.evaluate.backbones.method import Backbones
from rushlight.methods.evaluate.backbones.zscore_ranking import zscore_ranking
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe
from rushlight.run.stage import RunContext

BUDGET, FEW = Budget(passes=15e3), 240
CONV, VIT = "conv16", "vit64-p7"
TRAININGS = {
    "conv supervised": (CONV, "supervised", None),
    "conv supervised, few": (CONV, "supervised", FEW),
    "conv barlow": (CONV, "barlow-twins", None),
    "vit supervised": (VIT, "supervised", None),
    "vit supervised, few": (VIT, "supervised", FEW),
    "vit mae": (VIT, "mae", None),
    "vit dino": (VIT, "dino", None),
}
ALL_TASKS = ("neighbours", "linear", "few-label", "fine-tune", "retrieval", "scenes", "shift")


def pretrained(seed: int) -> dict[str, Model]:
    """Return nine backbones, each trained on the photos of the first five classes or not at all."""
    photos = fashion.load().fold(TRAIN)
    source = photos.select(photos["class"] < 5)
    models = {}
    for name, encoder in (("conv untrained", CONV), ("vit untrained", VIT)):
        models[name] = _start(encoder, seed)
    for name, (encoder, recipe, most) in TRAININGS.items():
        data = source if most is None else source.select(torch.arange(most))
        task = "class" if recipe == "supervised" else None
        ctx = RunContext(seed=seed, task=task, precision=hardware.precision("cpu"))
        given = data if task else data.without("class")
        models[name] = Recipe.parse(recipe).run(given, _start(encoder, seed), replace(ctx, budget=BUDGET)).model.eval()
    return models


def _start(encoder: str, seed: int) -> Model:
    return Model(encoders.create(encoder, image_size=28, seed=seed), {}, ModelInfo(image_size=(28, 28)))


def other_classes() -> Dataset:
    """Return photos of the five classes that no backbone was trained on, as classes 0 … 4."""
    photos = fashion.load()
    kept = photos.select(photos["class"] >= 5)
    names = kept.info.class_names[5:]
    return kept.with_columns(**{"class": kept["class"] - 5}).with_info(class_names=names)


def digits() -> Dataset:
    """Return scikit-learn's handwritten digits, enlarged to 28×28."""
    from sklearn.datasets import load_digits

    whole = load_digits()
    images = torch.from_numpy(whole.images / 16).float()[:, None].expand(-1, 3, -1, -1)
    images = torch.nn.functional.interpolate(images, size=(28, 28), mode="bilinear")
    fold = torch.full((len(images),), TRAIN, dtype=torch.int8)
    fold[1000:] = TEST
    return Dataset({"image": (255 * images).byte(), "class": torch.from_numpy(whole.target).long(), "fold": fold})


def run(seed: int) -> dict[str, float]:
    models = pretrained(seed)
    whole = Backbones(tasks=ALL_TASKS, images=600, scenes=120, steps=30, tuning_steps=40, rates=(1e-3, 3e-3))
    ctx = RunContext(seed=seed)
    found = whole.judge_all(models, other_classes(), ctx).table("scores")
    foreign = Backbones(tasks=("neighbours", "linear"), images=600).judge_all(models, digits(), ctx).table("scores")
    names = found["backbone"]
    columns = {task: column for task, column in found.items() if task != "backbone"}
    columns |= {f"digits: {task}": foreign[task] for task in ("neighbours", "linear")}
    result = zscore_ranking(names, columns)
    z = dict(zip(names, result.mean.tolist(), strict=True))
    rank = {name: int(r) for name, r in zip(names, result.rank, strict=True)}
    blank = (z["conv untrained"] + z["vit untrained"]) / 2
    lead = [z[f"{net} supervised"] - z[f"{net} untrained"] for net in ("conv", "vit")]
    vit_ssl = (z["vit mae"] + z["vit dino"]) / 2
    apart = [abs(z["conv barlow"] - z["conv supervised"]), abs(vit_ssl - z["vit supervised"])]
    return {
        "pretrained": sum(z[name] for name in TRAININGS) / len(TRAININGS) - blank,
        "more data": sum(z[f"{net} supervised"] - z[f"{net} supervised, few"] for net in ("conv", "vit")) / 2,
        "top two": 2.5 - rank["conv supervised"],
        "agreement": result.agreement,
        "alike": sum(map(abs, lead)) / 2 - sum(apart) / 2,
        **{f"z of {name}": value for name, value in z.items()},
    }


CLAIM = Claim(
    id="backbones",
    headline="over 1,500 runs: supervised backbones with more data lead, SSL is highly competitive at equal "
    "architecture and data, and performance across tasks is strongly correlated (ρ above 0.8)",
    data="nine backbones (conv16 and vit64 with patches of 7: untrained; supervised with about 6,000 or 240 photos of "
    "five classes; Barlow Twins, MAE, DINO on the same 6,000), 15,000 image passes each, and three simple baselines; "
    "asked about the other five classes (neighbours, probe, 5 labels, fine-tuning, retrieval, shift), scenes, and "
    "digits",
    baseline="the same encoders untrained",
    metric="z-scores over the twelve entrants, averaged over tasks; Spearman's correlation between tasks",
    effects=(
        Effect("pretrained", "pretrained backbones have a higher mean z than untrained ones", unit="z"),
        Effect("more data", "6,000 images beat 240 at the same architecture and passes", unit="z"),
        Effect(
            "top two", "the CNN supervised with all images is among the first two (2.5 less its rank)", unit="ranks"
        ),
        Effect("agreement", "tasks order them alike: mean pairwise Spearman above 0.5", margin=0.5, unit="ρ"),
        Effect("alike", "self-supervised and supervised lie closer than supervised and untrained", unit="z"),
    ),
    seeds=3,
    run=run,
    note="In all three seeds pretrained backbones lead untrained ones, 6,000 images lead 240, and self-supervised lies "
    "nearer to supervised than untrained does, but three seeds leave the intervals open. Barlow Twins, not the "
    "supervised CNN, is first in each; DINO's ViT stays below an untrained one in two of three after 15,000 passes. "
    "Tasks agree by 0.39 to 0.47, short of 0.5.",
)
