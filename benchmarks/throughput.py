"""Images a second of whole training steps: ours, another library's pipeline, and the bare model step.

    python benchmarks/throughput.py --method barlow-twins --seconds 60

One process on one core with one thread, so seconds are those of the processor: on a calm machine they are the clock's.
One step of each arm is run in turn, over and over, so that whatever else the machine does falls on all arms alike;
figures are medians over steps, and ratios are of medians. Run it on a calm machine all the same: neighbours take
memory bandwidth, which the network needs more than the transforms of images do.

- ours: `Training.advance` as a trial runs it: rows, views, forward, backward, optimiser, Fabric.
- theirs: the other library's data set, loader, transforms and loss, with the same encoder, head and optimiser; once in
  our precision and memory format, once in float32, as its examples train.
- bare: the same network, loss and optimiser on a batch of views that is ready.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import os
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rushlight.data.dataset import Dataset
from rushlight.data.synthetic.scenes import compose
from rushlight.nets import encoders
from rushlight.run import hardware
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import RunContext
from rushlight.train import optim
from rushlight.train.learner import Learner
from rushlight.train.loop import Training

Step = Callable[[], None]
WARM_UP = 3


@dataclass(frozen=True)
class Measured:
    """Processor seconds of each step, by arm, and how many images a step has."""

    seconds: dict[str, list[float]]
    images: int

    def show(self, targets: dict[str, float]) -> None:
        if min(len(times) for times in self.seconds.values()) <= WARM_UP:
            raise SystemExit("too few steps to measure: give more --seconds")
        medians = {arm: statistics.median(times[WARM_UP:]) for arm, times in self.seconds.items()}
        for arm, median in medians.items():
            steps = len(self.seconds[arm][WARM_UP:])
            print(f"{arm:>16}: {self.images / median:8.0f} images/s   {1e3 * median:7.1f} ms a step, {steps} steps")
        for arm, target in targets.items():
            print(f"ours / {arm}: {medians[arm] / medians['ours']:.2f} (target {target:g})")


def interleave(
    kind: type[Learner], data: Dataset, arms: Callable[[Learner], dict[str, Step]], seconds: float, **arguments: object
) -> Measured:
    """Train by `kind`, and after each of its steps run one step of every other arm; stop after so many seconds."""
    size = (data.height, data.width)
    model = Model(encoders.create("conv16", seed=0, image_size=max(size)))
    task = "class" if kind.card.task else None
    ctx = RunContext(task=task, precision=hardware.precision("cpu"), budget=Budget(passes=1e9))
    training = Training(kind(**arguments), data, model, ctx)
    steps: dict[str, Step] = {"ours": training.advance, **arms(training.learner)}
    times: dict[str, list[float]] = {arm: [] for arm in steps}
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for arm, step in steps.items():
            began = time.process_time()
            step()
            times[arm].append(time.process_time() - began)
    return Measured(times, round(training.plan.batch * sum(training.learner.parts.values())))


def training_step(
    learner: Learner, loss: Callable[[Model, object], Tensor], batches: Iterator[object], *, plain: bool = False
) -> Step:
    """Return a training step on a copy of the learner's network with its optimiser, in its precision and memory format,
    or `plain`: in float32, contiguous."""
    network = copy.deepcopy(learner.model).train()
    groups = optim.parameter_groups(network, learner.weight_decay)
    optimiser = optim.optimiser(learner.optimiser, groups, learning_rate=learner.learning_rate)
    half = learner.ctx.precision == "bf16-mixed" and not plain
    if plain:
        network.to(memory_format=torch.contiguous_format)

    def step() -> None:
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            value = loss(network, batch)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()

    return step


def forever(batch: object) -> Iterator[object]:
    while True:
        yield batch


# Barlow Twins against lightly --------------------------------------------------------------------------------------


def lightly_batches(data: Dataset, batch: int) -> Iterator[list[Tensor]]:
    """Yield batches as lightly makes two views of PNG files: its data set, BYOL's transforms for this size, a loader.

    Blur and solarize are as in our views. (Its example for CIFAR-10 goes without blur, which is cheaper.)
    """
    from lightly.data import LightlyDataset
    from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    side = data.height
    transform = BYOLTransform(BYOLView1Transform(input_size=side), BYOLView2Transform(input_size=side))
    with tempfile.TemporaryDirectory() as folder:
        for row, image in enumerate(data["image"].permute(0, 2, 3, 1).numpy()):
            Image.fromarray(np.ascontiguousarray(image)).save(Path(folder) / f"{row}.png")
        dataset = LightlyDataset(folder, transform=transform)
        loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)
        while True:
            for views, *_ in loader:
                yield views


def barlow_twins(seconds: float) -> None:
    from lightly.loss import BarlowTwinsLoss

    from rushlight.losses import redundancy
    from rushlight.methods.pretrain.barlow_twins import BarlowTwins

    data = compose(4096, size=32, objects=(1, 1)).without("class", "tags", "mask", "boxes", "caption", "depth")
    theirs = BarlowTwinsLoss(lambda_param=0.0051)

    def outputs(network: Model, views: list[Tensor]) -> list[Tensor]:
        return [network.logits(view, "projector") for view in views]

    def arms(learner: Learner) -> dict[str, Step]:
        size = learner.plan.batch
        ready = [torch.rand(size, 3, 32, 32).contiguous(memory_format=torch.channels_last) for _ in range(2)]

        def ours(network: Model, views: list[Tensor]) -> Tensor:
            return redundancy.barlow_twins(*outputs(network, views))

        def lightlys(network: Model, views: list[Tensor]) -> Tensor:
            return theirs(*outputs(network, views))

        return {
            "bare": training_step(learner, ours, forever(ready)),
            "lightly": training_step(learner, lightlys, lightly_batches(data, size)),
            "lightly, float32": training_step(learner, lightlys, lightly_batches(data, size), plain=True),
        }

    measured = interleave(BarlowTwins, data, arms, seconds, batch=256)
    measured.show({"lightly": 4, "lightly, float32": 4, "bare": 0.92})


# FixMatch against semilearn ------------------------------------------------------------------------------------------


@cache
def load_semilearn() -> tuple[Any, Any, Any]:
    """Import semilearn's data set, RandAugment and losses without `__init__`, which needs audio and text packages."""
    root = Path(importlib.util.find_spec("semilearn").origin).parent  # type: ignore[union-attr, arg-type]
    for name in ("semilearn", "semilearn.datasets", "semilearn.datasets.cv_datasets", "semilearn.core"):
        package = sys.modules.setdefault(name, types.ModuleType(name))
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    augmentation = importlib.import_module("semilearn.datasets.augmentation")
    base = importlib.import_module("semilearn.datasets.cv_datasets.datasetbase")
    return base.BasicDataset, augmentation.RandAugment, importlib.import_module("semilearn.core.criterions")


def semilearn_batches(data: Dataset, batch: int, ratio: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of semilearn's transforms for CIFAR (`get_cifar`), a loader for labelled and one for unlabelled."""
    from torchvision import transforms

    basic_dataset, rand_augment, _ = load_semilearn()
    side, tensor = data.height, [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
    crop = transforms.RandomCrop(side, padding=int(side * 0.125), padding_mode="reflect")
    weak = [transforms.Resize(side), crop, transforms.RandomHorizontalFlip()]
    views = {"transform": transforms.Compose([*weak, *tensor])}
    views["strong_transform"] = transforms.Compose([*weak, rand_augment(3, 5), *tensor])
    images, known = data["image"].permute(0, 2, 3, 1).contiguous().numpy(), data.known("class").numpy()
    targets = data["class"].numpy()
    labelled = basic_dataset("fixmatch", images[known], targets[known], 10, is_ulb=False, **views)
    unlabelled = basic_dataset("fixmatch", images, targets, 10, is_ulb=True, **views)
    loaders = []
    for dataset, size in ((labelled, batch), (unlabelled, ratio * batch)):
        sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**7)
        loaders.append(torch.utils.data.DataLoader(dataset, batch_size=size, sampler=sampler, drop_last=True))
    for one, other in zip(*loaders, strict=True):
        yield one["x_lb"], one["y_lb"], other["x_ulb_w"], other["x_ulb_s"]


def fixmatch(seconds: float) -> None:
    from rushlight.data.edit.hide import per_class
    from rushlight.methods.baseline.fixmatch import FixMatch

    whole = compose(4096, size=32, objects=(1, 1))
    data = per_class(whole.without("tags", "mask", "boxes", "caption", "depth", "instance"), 25)
    losses = load_semilearn()[2]

    def loss(network: Model, batch: tuple[Tensor, ...]) -> Tensor:
        """Return semilearn's loss as configured (`use_cat`): one forward over the three parts, by the same network."""
        images = torch.cat([batch[0], *batch[2:]]).contiguous(memory_format=torch.channels_last)
        sizes = [len(batch[0]), len(batch[2]), len(batch[3])]
        logits_x, logits_u_weak, logits_u_strong = network.logits(images).split(sizes)
        confidence, target = logits_u_weak.detach().float().softmax(1).max(1)
        loss_x = losses.ce_loss(logits_x, batch[1], reduction="mean")
        return loss_x + losses.consistency_loss(logits_u_strong, target, "ce", mask=(confidence >= 0.95).float())

    def arms(learner: Learner) -> dict[str, Step]:
        size, ratio = learner.plan.batch, round(learner.parts["unlabelled"])
        ready = [torch.rand(n * size, 3, 32, 32) for n in (1, ratio, ratio)]
        labels = torch.arange(size) % 10
        return {
            "bare": training_step(learner, loss, forever((ready[0], labels, *ready[1:]))),
            "semilearn": training_step(learner, loss, semilearn_batches(data, size, ratio)),
        }

    measured = interleave(FixMatch, data, arms, seconds, ratio=7)
    measured.show({"semilearn": 3})


METHODS: dict[str, Callable[[float], None]] = {"barlow-twins": barlow_twins, "fixmatch": fixmatch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=[*METHODS, "all"], default="all")
    parser.add_argument("--seconds", type=float, default=60)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore")
    for method in METHODS if chosen.method == "all" else [chosen.method]:
        print(f"{method}: conv16, one thread, {hardware.precision('cpu')}, torch {torch.__version__}")
        METHODS[method](chosen.seconds)


if __name__ == "__main__":
    main()
