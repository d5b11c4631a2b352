"""Scenes with exact depth and classes: does learning to say one from another help, and does depth at the end?"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.synthetic.scenes import compose
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.methods.pretrain.multimae.method import MultiMAE
from rushlight.methods.pretrain.multimae.multimodal import Adapters, TokenSegmenter
from rushlight.nets import encoders
from rushlight.nets.encoders.multimodal import standardise_depth
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import RunContext
from rushlight.tasks import scores

SIZE, SCENES, LABELLED, TESTED = 32, 4000, 100, 400
CLASSES = ("trouser", "bag", "sneaker")
COMPUTE, SAME_STEPS = Budget(passes=50e3), Budget(passes=19.1e3)
"""What MultiMAE's steps cost; and what as many steps of MAE cost, which sees one modality instead of three."""
STEPS, BATCH, RATE = 300, 32, 3e-3


def scenes(n: int, seed: int, fold: int = 0) -> Dataset:
    return compose(n, size=SIZE, objects=(2, 3), classes=CLASSES, scale=(0.4, 0.7), seed=seed, fold=fold)


def columns(data: Dataset) -> dict[str, torch.Tensor]:
    depth, _ = standardise_depth(data["depth"])
    return {"image": data["image"].float() / 255, "depth": depth}


def tuned(
    model: Model, adapters: Adapters | None, modalities: tuple[str, ...], data: Dataset, seed: int
) -> TokenSegmenter:
    """Return a segmenter fine-tuned as a whole on the labelled scenes, mirrored at random."""
    torch.manual_seed(seed)
    network = TokenSegmenter(
        copy.deepcopy(model.encoder), copy.deepcopy(adapters), modalities, len(CLASSES) + 1
    ).train()
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=RATE, weight_decay=0.05)
    given, masks = columns(data), data["mask"].long()
    generator = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(step / 15, 1) * (1 - step / STEPS)
        rows = torch.randint(len(data), (BATCH,), generator=generator)
        turn = (lambda x: x.flip(-1)) if torch.rand((), generator=generator) < 0.5 else (lambda x: x)
        logits = network({name: turn(values[rows]) for name, values in given.items()})
        loss = F.cross_entropy(logits, turn(masks[rows]), ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


@torch.no_grad()
def miou(network: TokenSegmenter, data: Dataset) -> float:
    """Return the mean IoU (0 … 100)."""
    given, parts = columns(data), []
    for rows in torch.arange(len(data)).split(100):
        predicted = network({name: values[rows] for name, values in given.items()}).argmax(1)
        parts.append(scores.confusion(predicted, data["mask"][rows], len(CLASSES) + 1))
    return 100 * scores.mean_iou(torch.cat(parts).sum(0))


@torch.no_grad()
def depth_error(stage: MultiMAE, train: Dataset, test: Dataset) -> tuple[float, float]:
    """Return the L1 of standardised depth predicted from images alone, and of each place's mean."""
    stage.eval()
    values, known = stage.prepared(
        {name: columns(test)["image"] if name == "image" else test[name] for name in stage.every}
    )
    cells = stage.cells[0] * stage.cells[1]
    masked = (torch.arange(3 * cells) >= cells).expand(len(test), -1)
    told = float(stage.losses(values, known, masked)["depth"])
    mean = columns(train)["depth"].mean(0)
    return told, float((values["depth"] - mean).abs().mean())


def run(seed: int) -> dict[str, float]:
    data, test = scenes(SCENES, seed), scenes(TESTED, 1000 + seed, TEST)
    few = data.select(torch.arange(LABELLED))
    bare = Dataset({name: data[name] for name in ("image", "depth", "mask")}, data.info)
    ctx = RunContext(seed=seed, task=None, precision=hardware.precision("cpu", "vit64"))
    start = Model(encoders.create("vit64", image_size=SIZE, seed=seed))
    multi = MultiMAE(batch=64, learning_rate=8e-3)
    alone, longer = (MultiMAE(batch=64, learning_rate=3e-3, modalities=["image"], kept=0.25) for _ in range(2))
    full = multi.run(bare, start, replace(ctx, budget=COMPUTE)).model
    rgb = alone.run(bare, start, replace(ctx, budget=SAME_STEPS)).model
    rgb_longer = longer.run(bare, start, replace(ctx, budget=COMPUTE)).model
    assert abs(multi.plan.steps - alone.plan.steps) <= 0.02 * alone.plan.steps
    torch.manual_seed(seed)
    new = Adapters(width=64, patch=4, depth=True)
    both = ("image", "depth")
    found = {
        "untrained": miou(tuned(start, None, ("image",), few, seed), test),
        "multimae": miou(tuned(full, None, ("image",), few, seed), test),
        "multimae, depth": miou(tuned(full, full.head("adapters"), both, few, seed), test),  # type: ignore[arg-type]
        "mae": miou(tuned(rgb, None, ("image",), few, seed), test),
        "mae, depth": miou(tuned(rgb, new, both, few, seed), test),
        "mae, equal compute": miou(tuned(rgb_longer, None, ("image",), few, seed), test),
    }
    told, mean = depth_error(multi, few, test)
    return {
        "with depth": found["multimae, depth"] - found["multimae"],
        "over a new adapter": found["multimae, depth"] - found["mae, depth"],
        "over mae": found["multimae"] - found["mae"],
        "depth": (mean - told) / mean,
        **{f"mIoU {name}": value for name, value in found.items()},
        "depth error": told,
    }


CLAIM = Claim(
    id="multimae",
    headline="NYUv2 mIoU: MAE 50.8; MultiMAE 52.0 from images and 56.0 from images and depth",
    data="4,000 composed scenes of 32×32 (two or three trousers, bags or sneakers) with exact depth and masks; ViT of "
    "width 64 with 4 blocks and patches of 4 pixels; 575 steps of 64 images; a linear token decoder fine-tuned on 100 "
    "labelled scenes (300 steps)",
    baseline="the same without depth at the end; as many steps of masked autoencoding of images alone (MAE), with a "
    "new depth adapter and without; same fine-tuning",
    metric="mean IoU on 400 test scenes; L1 of standardised depth told from images alone, against each place's mean",
    effects=(
        Effect("with depth", "MultiMAE segments better from images and depth than from images"),
        Effect("over a new adapter", "and better than MAE with a freshly initialised depth adapter"),
        Effect("over mae", "from images alone it is at most half a point below MAE", -0.5),
        Effect("depth", "depth told from images alone beats each place's mean", 0.0, "share"),
    ),
    seeds=3,
    run=run,
    note="The design is not the first one: with all ten classes, half the steps and slower learning no arm segmented. "
    "Rates of learning were chosen for each arm on training photos with seed 100; with one of the seeds MultiMAE's is "
    "too high, and depth is hardly told. From images its encoder segments no better than an untrained one, while as "
    "many steps of MAE, which has one modality to rebuild instead of three, gain 0 to 4 points, and equal compute 6 to "
    "10. The paper trains 1600 epochs, this is 9.",
)
